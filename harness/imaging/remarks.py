"""Remarks on readable images: files of several images, embedded colour profiles, runs of zero bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from harness.runtime.errors import listed

PRIMARY = "a file of several images (MPO), of which the first, its primary one, is read"
ZEROS = "a scan that holds a long run of zero bytes (a download that did not finish?): its pixels there are not the image's"
PROFILES = "embedded colour profiles differ; values are compared as stored, no profile is applied"
SRGB_PROFILES = "embedded colour profiles differ in name and all are sRGB; values are compared as stored"


class Remark(NamedTuple):
    """One remark on an image."""

    kind: str
    """One of the sentences above, the same for all images that it applies to."""
    what: str
    """The image, and details."""


def lines(remarks: Iterable[Remark]) -> list[str]:
    """A line for each kind, naming the first twenty images, each once."""
    by_kind: dict[str, dict[str, None]] = {}
    for remark in remarks:
        by_kind.setdefault(remark.kind, {})[remark.what] = None
    severity = {ZEROS: "warning", PROFILES: "warning"}
    return [f"{severity.get(kind, 'note')}: {kind}: {listed(list(what))}" for kind, what in by_kind.items()]
