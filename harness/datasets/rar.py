"""Reading rar archives: the listing by `rarfile`, the content from an installed program over a pipe.

The program writes no file: it prints the content of all members one after the other, which is split by the sizes in the
listing and compared with its checksums. So names, links and sizes are checked here, and solid archives are read once.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from harness.runtime.errors import RunError

_BLOCK = 1 << 20
_LARGEST_LISTED = 1 << 40


class Tool(NamedTuple):
    """A program that prints the content of a rar archive."""

    name: str
    options: tuple[str, ...]


_TOOLS = (
    Tool("unrar", ("p", "-inul", "-p-", "--")),
    Tool("7zz", ("x", "-so", "-bd", "-p-", "--")),
    Tool("7z", ("x", "-so", "-bd", "-p-", "--")),
    Tool("bsdtar", ("-xOf",)),
    Tool("unar", ("-quiet", "-output-directory", "-")),
)
INSTALL = (
    "install one of unrar, bsdtar (Debian, Ubuntu: apt install libarchive-tools; macOS has it), unar, 7-Zip with its rar module"
)


class ToolFailed(Exception):
    """One tool did not give the archive's content; another may."""


class Member(NamedTuple):
    """A file of the archive, from its listing."""

    name: str
    size: int
    crc: int | None


def tools() -> list[Tool]:
    """The tools that are installed, best first."""
    return [tool for tool in _TOOLS if shutil.which(tool.name)]


def members(path: Path) -> list[Member]:
    """The files in an archive, in its order; raises RunError for links, archives in several volumes, and encrypted ones."""
    import rarfile

    with rarfile.RarFile(str(path)) as archive:
        if archive.needs_password():
            raise RunError(f"{path}: encrypted; unpack it yourself with the password from its authors")
        if len(archive.volumelist()) > 1:
            raise RunError(f"{path}: one of several volumes; unpack them yourself (unrar x {path.name})")
        found = []
        for info in archive.infolist():
            if info.is_dir():
                continue
            if not info.is_file() or info.is_symlink() or getattr(info, "file_redir", None):
                raise RunError(f"{path}: {info.filename} is a link or not an ordinary file; not unpacked")
            if info.file_size is None or not 0 <= info.file_size < _LARGEST_LISTED:
                raise RunError(f"{path}: {info.filename} has no usable size; not unpacked")
            found.append(Member(str(info.filename), int(info.file_size), info.CRC))
        return found


class Content:
    """One member's bytes from the program's pipe: `read` returns only these, and fails where their checksum differs."""

    def __init__(self, pipe: IO[bytes], member: Member, tool: Tool) -> None:
        self._pipe, self._member, self._tool, self._left, self._crc = pipe, member, tool, member.size, 0

    def read(self, amount: int = _BLOCK) -> bytes:
        """Up to `amount` bytes; raises ToolFailed."""
        if not self._left:
            return b""
        block = self._pipe.read(min(amount, self._left))
        self._left -= len(block)
        self._crc = zlib.crc32(block, self._crc)
        if not block or (not self._left and self._member.crc is not None and self._crc != self._member.crc):
            raise ToolFailed(f"{self._tool.name}: {self._member.name} is cut or damaged")
        return block


def contents(path: Path, listed: list[Member], tool: Tool) -> Iterator[tuple[Member, Content]]:
    """Each member with its content, which is to be read to its end before the next is asked for; raises ToolFailed."""
    place = str(path.absolute())  # an absolute path is never read as an option
    with tempfile.TemporaryFile() as complaints:
        command = [tool.name, *tool.options, place]
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints)
        except OSError as error:
            raise ToolFailed(f"{tool.name}: {error.strerror}") from error
        assert process.stdout is not None
        try:
            for member in listed:
                yield member, Content(process.stdout, member, tool)
            if process.stdout.read(1):
                raise ToolFailed(f"{tool.name}: printed more bytes than the archive lists")
        finally:
            process.stdout.close()
            process.kill()
            process.wait()
