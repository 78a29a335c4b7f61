"""The description of an unfinished download, kept next to its part so that the next command can resume it."""

from __future__ import annotations

import datetime
import email.utils
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from harness.files import atomic


@dataclass(frozen=True)
class Origin:
    """The source of a part, and the server's identifiers of this version of the file."""

    source: str
    etag: str = ""
    """The entity tag, also a weak one; only a strong one may be sent back."""
    modified: str = ""
    """Last-Modified, where it is older than the answer, so that it identifies a version."""
    total: int = 0
    """Bytes of the complete file as transferred; 0: unknown."""
    encoding: str = ""
    sha256: str = ""
    """From the hub's headers."""
    revision: str = ""
    resumed: bool = False

    @property
    def validator(self) -> str:
        """What If-Range may carry: a strong entity tag, else the time of change; empty where there is neither."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def with_hub(self, headers: Mapping[str, str]) -> Origin:
        """With the facts in the hub's first answer, before it redirects to the file."""
        linked = str(headers.get("X-Linked-ETag", "")).removeprefix("W/").strip('"').lower()
        revision = str(headers.get("X-Repo-Commit", ""))
        return replace(
            self,
            sha256=linked if re.fullmatch("[0-9a-f]{64}", linked) else "",
            revision=revision if re.fullmatch("[0-9a-f]{7,40}", revision) else "",
        )

    def with_answer(self, headers: Mapping[str, str]) -> Origin:
        """With the facts in the headers of the answer that holds the bytes."""
        encoding = str(headers.get("Content-Encoding", "")).strip().lower()
        modified = str(headers.get("Last-Modified", ""))
        try:
            changed = email.utils.parsedate_to_datetime(modified)
            asked = email.utils.parsedate_to_datetime(str(headers.get("Date", "")))
            # A file that changed within the second before the answer may change again within it.
            modified = modified if changed + datetime.timedelta(seconds=1) <= asked else ""
        except (ValueError, TypeError):
            modified = ""
        return replace(self, etag=str(headers.get("ETag", "")), modified=modified, encoding=encoding)

    def continues(self, before: Origin) -> bool:
        """Whether this answer is of the same version as the part, as far as the servers' headers say."""
        pairs = (
            (self.etag.removeprefix("W/"), before.etag.removeprefix("W/")),
            (self.sha256, before.sha256),
            (self.encoding, before.encoding),
        )
        return all(now == then for now, then in pairs if now and then)


def origin_path(part: Path) -> Path:
    """The file that holds the part's origin."""
    return part.with_name(f"{part.name}.json")


def read_origin(part: Path, source: str) -> Origin | None:
    """The part's origin; None where there is none, it is damaged, or the part is another source's."""
    try:
        origin = msgspec.json.decode(origin_path(part).read_bytes(), type=Origin)
    except (OSError, ValueError, RecursionError):
        return None
    return origin if origin.source == source else None


def write_origin(part: Path, origin: Origin) -> None:
    """Write the part's origin. Raises Unwritable."""
    atomic.write_json(origin_path(part), asdict(origin))


def forget(part: Path) -> None:
    """Remove the part, its origin, and a killed process's unfinished unpacking of it."""
    with atomic.writing(part):
        part.unlink(missing_ok=True)
        part.with_name(f"{part.name}.plain").unlink(missing_ok=True)
        origin_path(part).unlink(missing_ok=True)
