"""Grey values of colour pictures, as MATLAB's `rgb2gray` gives them.

`rgb2gray` weighs R, G and B by the first row of the inverse of the NTSC RGB-to-YIQ matrix and, for 8-bit pictures,
returns 8-bit grey. The published SSIM and MS-SSIM values come from that rounded grey; so do ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Plane = NDArray[np.float32]

WEIGHTS = np.array([0.298936021293775, 0.587043074451121, 0.114020904255103], np.float32)


def planes_uint8(image: NDArray[np.uint8]) -> tuple[Plane, Plane, Plane]:
    """The R, G and B planes (H, W), float32 in 0..255, of an (H, W, 3) uint8 picture."""
    import cv2

    red, green, blue = cv2.split(image)
    return red.astype(np.float32), green.astype(np.float32), blue.astype(np.float32)


def planes(image: torch.Tensor) -> tuple[Plane, Plane, Plane]:
    """The R, G and B planes (H, W), float32 in 0..255, of a (3, H, W) tensor in [0, 1].

    For k/255 in float32 the product with 255 is exactly k, so 8-bit pictures give what `planes_uint8` gives.
    """
    red, green, blue = (image.detach() * 255).cpu().numpy()
    return red, green, blue


def luma(red: Plane, green: Plane, blue: Plane) -> Plane:
    """Grey (H, W) of three planes in 0..255: whole numbers in 0..255, float32."""
    grey: Plane = red * WEIGHTS[0]
    grey += green * WEIGHTS[1]
    grey += blue * WEIGHTS[2]
    np.rint(grey, out=grey)
    return grey


def check_pair_uint8(reference: NDArray[Any], distorted: NDArray[Any], minimum_size: int = 1) -> None:
    """Refuse anything but two (H, W, 3) uint8 arrays of one shape, with one line that says what is wrong."""
    from harness.errors import BadRequest

    for what, x in (("reference", reference), ("distorted", distorted)):
        if x.ndim != 3 or x.shape[2] != 3 or x.dtype != np.uint8:
            raise BadRequest(f"{what}: expected (H, W, 3) uint8, got {x.shape} {x.dtype}")
    if reference.shape != distorted.shape:
        raise BadRequest(f"reference {reference.shape} and distorted {distorted.shape} differ in shape")
    height, width = reference.shape[:2]
    if min(height, width) < minimum_size:
        raise BadRequest(f"images of {height}x{width} are too small: this model needs at least {minimum_size} pixels a side")
