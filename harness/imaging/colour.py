"""Embedded colour profiles of image files: ICC profiles, and CICP codes of primaries and transfer function.

Nothing is converted: models get the values as stored. A remark is made where the two images of a pair have different
profiles.
"""

from __future__ import annotations

import functools
import hashlib
import io
import struct
from typing import Any, NamedTuple

from harness.imaging.refused_formats import Data, boxes
from harness.imaging.remarks import PROFILES, SRGB_PROFILES, Remark

_SRGB_CICP = (1, 13)
_UNSPECIFIED = 2
_CLOSE = 2
"""Largest difference in 8-bit values between a profile and sRGB that still counts as sRGB."""


class Colour(NamedTuple):
    """A file's embedded colour profile."""

    text: str = ""
    """The profile's description and digest, for messages; empty where the file embeds none."""
    srgb: bool = True
    """Whether it is sRGB; also true for a file without a profile."""


NONE = Colour()


def embedded(kind: str, data: Data, info: dict[Any, Any]) -> Colour:
    """The profile of an image of format `kind`; `info` is Pillow's. In PNG CICP has priority over ICC, in AVIF ICC has."""
    profile, code = info.get("icc_profile"), _cicp(kind, data)
    if not profile and kind == "JPEG2000":
        # Pillow does not read its profile.
        for box, at, end in boxes(data):
            own = box == b"colr" and data[at] in (2, 3)
            profile = bytes(data[at + 3 : end]) if own else profile
            if own or box == b"jp2c":
                break
    if isinstance(profile, bytes) and profile and (code is None or kind == "AVIF"):
        found = _of_profile(profile)
    else:
        found = NONE if code is None else Colour(f"CICP {code[0]}/{code[1]}", code == _SRGB_CICP)
    # AVIF always holds a code, and the decoder of JPEG XL adds a profile to every image: sRGB there counts as no profile.
    return NONE if kind in ("AVIF", "JXL") and found.srgb else found


def compared(name: str, distorted: Colour, reference: Colour) -> Remark | None:
    """The remark on a pair whose files embed different profiles; None where they agree."""
    if distorted.text == reference.text:
        return None
    kind = SRGB_PROFILES if distorted.srgb and reference.srgb else PROFILES
    return Remark(kind, f"{name} ({distorted.text or 'no profile'}; its reference: {reference.text or 'no profile'})")


def _cicp(kind: str, data: Data) -> tuple[int, int] | None:
    """Primaries and transfer function by ITU-T H.273, where a file gives them."""
    code: tuple[int, int] | None = None
    if kind == "PNG":
        at = 8
        while at + 12 <= len(data) and code is None:
            length, chunk = struct.unpack(">I4s", data[at : at + 8])
            if chunk == b"IDAT":
                break
            if chunk == b"cICP" and length == 4 and at + 10 <= len(data):
                code = (data[at + 8], data[at + 9])
            at += 12 + length
    elif kind == "AVIF":
        for box, at, end in boxes(data):
            if box == b"colr" and data[at : at + 4] == b"nclx" and at + 8 <= end:
                code = struct.unpack(">HH", data[at + 4 : at + 8])
                break
    return None if code is None or code == (_UNSPECIFIED, _UNSPECIFIED) else code


@functools.lru_cache(64)
def _of_profile(profile: bytes) -> Colour:
    digest = hashlib.sha256(profile).hexdigest()[:8]
    try:
        import numpy as np
        from PIL import Image, ImageCms

        opened: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = str(opened.profile.profile_description or "").strip() or "without a name"
        # It counts as sRGB where converting values from it to sRGB changes them little.
        steps = np.array([0, 40, 90, 140, 190, 230, 255], np.uint8)
        grey = opened.profile.xcolor_space.strip() == "GRAY"
        patches = steps[None, :] if grey else np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
        image, intent = Image.fromarray(np.ascontiguousarray(patches)), ImageCms.Intent.RELATIVE_COLORIMETRIC
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, opened, target, outputMode="RGB", renderingIntent=intent)
        expected = patches[..., None].repeat(3, -1) if grey else patches
        difference = np.asarray(converted).astype(int) - expected.astype(int)
        return Colour(f"ICC profile {name[:60]!r} {digest}", int(np.abs(difference).max()) <= _CLOSE)
    except Exception:  # a damaged profile, or a Pillow without Little CMS
        return Colour(f"ICC profile that cannot be read {digest}", False)
