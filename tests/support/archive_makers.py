"""Makers of archives that no library writes: rar with stored members, and zip encrypted with a password."""

from __future__ import annotations

import io
import os
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path


def rar(members: Mapping[str, bytes], *, link: str = "") -> bytes:
    """A rar archive (format 5) of stored files; `link`: also a symbolic link of that name to /etc/passwd."""
    blocks = [_block(_vint(1) + _vint(0) + _vint(0))]
    for name, content in members.items():
        blocks.append(_block(_vint(2) + _vint(2) + _vint(len(content)) + _about(name, content)) + content)
    if link:
        target = b"/etc/passwd"
        record = _vint(5) + _vint(1) + _vint(0) + _vint(len(target)) + target
        extra = _vint(len(record)) + record
        blocks.append(_block(_vint(2) + _vint(3) + _vint(len(extra)) + _vint(0) + _about(link, b"") + extra))
    return b"Rar!\x1a\x07\x01\x00" + b"".join(blocks) + _block(_vint(5) + _vint(0) + _vint(0))


def _about(name: str, content: bytes) -> bytes:
    crc = zlib.crc32(content).to_bytes(4, "little")
    return (
        _vint(4) + _vint(len(content)) + _vint(0o100644) + crc + _vint(0) + _vint(1) + _vint(len(name.encode())) + name.encode()
    )


def _block(header: bytes) -> bytes:
    sized = _vint(len(header)) + header
    return zlib.crc32(sized).to_bytes(4, "little") + sized


def _vint(number: int) -> bytes:
    out = b""
    while True:
        number, low = number >> 7, number & 0x7F
        out += bytes([low | (0x80 if number else 0)])
        if not number:
            return out


def unrar(folder: Path, content: str = "archive.read(info)") -> str:
    """A program called `unrar` in `folder` that prints an archive's members, and the PATH on which it is the only tool."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "unrar"
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys, rarfile\n"
        "with rarfile.RarFile(sys.argv[-1]) as archive:\n"
        "    for info in archive.infolist():\n"
        f"        sys.stdout.buffer.write({content})\n"
    )
    os.chmod(program, 0o755)
    return str(folder)


def encrypted_zip(members: Mapping[str, bytes], password: bytes) -> bytes:
    """A zip whose members are encrypted as zip programs did in 2005 (PKWARE's stream cipher)."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            check = zlib.crc32(content) >> 24
            # Stored as if it were the content: the headers are corrected below.
            archive.writestr(name, _encrypt(bytes(11) + bytes([check]) + content, password))
    data = bytearray(memory.getvalue())
    for signature, flags, crc, size in ((b"PK\x03\x04", 6, 14, 22), (b"PK\x01\x02", 8, 16, 24)):
        place = -1
        for content in members.values():
            place = data.index(signature, place + 1)
            data[place + flags] |= 1
            data[place + crc : place + crc + 4] = zlib.crc32(content).to_bytes(4, "little")
            data[place + size : place + size + 4] = len(content).to_bytes(4, "little")
    return bytes(data)


def _encrypt(plain: bytes, password: bytes) -> bytes:
    keys = [0x12345678, 0x23456789, 0x34567890]

    def crc(key: int, byte: int) -> int:
        return zlib.crc32(bytes([byte]), key ^ 0xFFFFFFFF) ^ 0xFFFFFFFF

    def update(byte: int) -> None:
        keys[0] = crc(keys[0], byte)
        keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = crc(keys[2], keys[1] >> 24)

    for byte in password:
        update(byte)
    out = bytearray()
    for byte in plain:
        key = keys[2] | 2
        out.append(byte ^ ((key * (key ^ 1)) >> 8) & 0xFF)
        update(byte)
    return bytes(out)
