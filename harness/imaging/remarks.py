"""What is worth knowing about images that can be read: compound files, embedded colour profiles, scans of zeros."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from harness.runtime.errors import listed

PRIMARY = "a file of several images (MPO), of which the first, its primary one, is read"
ZEROS = "a scan that holds a long run of zero bytes (a download that did not finish?): its pixels there are not the image's"
PROFILES = "embedded colour profiles differ; numbers are compared as stored, no profile is applied"
SRGB_PROFILES = "embedded colour profiles differ in name and all mean sRGB; numbers are compared as stored"


class Remark(NamedTuple):
    """One thing to know."""

    kind: str
    """One of the sentences above, the same for all images that it holds for."""
    what: str
    """The image, and the particulars."""


def lines(remarks: Iterable[Remark]) -> list[str]:
    """A line for each kind, naming the first twenty images, each once."""
    by_kind: dict[str, dict[str, None]] = {}
    for remark in remarks:
        by_kind.setdefault(remark.kind, {})[remark.what] = None
    severity = {ZEROS: "warning", PROFILES: "warning"}
    return [f"{severity.get(kind, 'note')}: {kind}: {listed(list(what))}" for kind, what in by_kind.items()]
