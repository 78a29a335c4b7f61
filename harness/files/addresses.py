"""The https address of a card's source: `https://`, `hf://` (Hugging Face hub) or `gdrive:` (Google Drive)."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from harness.runtime.errors import UsageError


@dataclass(frozen=True)
class Address:
    """An address, and the headers of a request to it."""

    url: str
    """Over https."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The user's token, where the host has one; sent to this host only."""
    hub: bool = False
    """Whether the host is the hub, whose headers give a file's sha256, size and revision."""


@dataclass(frozen=True)
class HubFile:
    """One file of a repository on the Hugging Face hub."""

    repository: str
    """`owner/repository`"""
    path: str
    revision: str = ""
    """A commit, branch or tag; empty: the hub's `main`."""
    dataset: bool = False
    """A repository of data sets, not of models."""


def hub_file(source: str) -> HubFile:
    """`hf://[datasets/]owner/repository[@revision]/path`, as huggingface_hub writes it. Raises UsageError for anything else."""
    rest = source.removeprefix("hf://")
    dataset = rest.startswith("datasets/")
    parts = rest.removeprefix("datasets/").split("/")
    if not source.startswith("hf://") or len(parts) < 3 or not all(is_inside(part) for part in parts):
        raise UsageError(f"{source}: should read hf://owner/repository/file")
    name, _, revision = parts[1].partition("@")
    if not name or not re.fullmatch(r"(\w[\w.-]*)?", revision):
        raise UsageError(f"{source}: should read hf://owner/repository@revision/file")
    return HubFile(f"{parts[0]}/{name}", "/".join(parts[2:]), revision, dataset)


def is_inside(name: str) -> bool:
    """Whether a relative name stays inside the folder that it is looked up in."""
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and not PurePosixPath(name).is_absolute()


def address(source: str) -> Address:
    """The https address of a source.

    Args:
        source: `https://...`, `hf://[datasets/]owner/repository[@revision]/file` or `gdrive:ID`.

    Raises:
        UsageError: for any other source, and for a hub ($HF_ENDPOINT) whose address is not https.
    """
    if source.startswith("https://"):
        return Address(source)
    if source.startswith("hf://"):
        # huggingface_hub gives the hub's address, a mirror ($HF_ENDPOINT) and the user's token. It does not download: its
        # downloads use a second program (hf_xet) that does not insist on https, cannot resume after a kill, and leaves its
        # own files in the folder.
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        file = hub_file(source)
        kind = "dataset" if file.dataset else None
        url = str(hf_hub_url(file.repository, file.path, repo_type=kind, revision=file.revision or None))
        if not url.startswith("https://"):
            raise UsageError(f"{url}: only https is used ($HF_ENDPOINT)")
        return Address(url, {str(name): str(value) for name, value in build_hf_headers().items()}, hub=True)
    if source.startswith("gdrive:"):
        number = source.removeprefix("gdrive:").strip("/")
        if re.fullmatch(r"[A-Za-z0-9_-]+", number):
            return Address(f"https://drive.usercontent.google.com/download?id={number}&export=download&confirm=t")
    raise UsageError(f"{source}: only https://, hf://owner/repository/file and gdrive:ID are downloaded")


def page(source: str) -> str:
    """The address of a source for a browser; a local source is returned unchanged."""
    if source.startswith("gdrive:"):
        return f"https://drive.google.com/file/d/{source.removeprefix('gdrive:').strip('/')}/view"
    if source.startswith("hf://"):
        file = hub_file(source)
        place = f"{'datasets/' if file.dataset else ''}{file.repository}/resolve/{file.revision or 'main'}/{file.path}"
        return f"https://huggingface.co/{urllib.parse.quote(place)}"
    return source


def offline(asked: bool = False) -> bool:
    """Whether the network must not be used: `asked` (`--offline`), or $HF_HUB_OFFLINE as huggingface_hub reads it."""
    return asked or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
