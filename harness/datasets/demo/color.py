"""Conversion between sRGB, CIELAB and YCbCr for the distortions (D65, float32)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of R, G and B in Y (BT.601)."""
RGB_FROM_YCBCR = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]], dtype=np.float32)
"""BT.601, Cb and Cr around 0."""

# sRGB (IEC 61966-2-1) to CIE XYZ under D65, divided by the white point, so that white is (1, 1, 1).
_XYZ_FROM_RGB = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]], dtype=np.float64
)
_XYZ_FROM_RGB /= _XYZ_FROM_RGB.sum(axis=1, keepdims=True)
_RGB_FROM_XYZ = np.linalg.inv(_XYZ_FROM_RGB).astype(np.float32)
_XYZ_FROM_RGB = _XYZ_FROM_RGB.astype(np.float32)
_KNEE = 6 / 29


def lab_from_rgb(x: Floats) -> Floats:
    """CIELAB (D65), L in [0, 100], of sRGB in [0, 1]."""
    linear = np.where(x > 0.04045, ((x + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4), x / np.float32(12.92))
    xyz = linear @ _XYZ_FROM_RGB.T
    f = np.where(xyz > _KNEE**3, np.cbrt(xyz), xyz / np.float32(3 * _KNEE**2) + np.float32(4 / 29))
    lab = np.empty_like(f)
    lab[..., 0] = 116 * f[..., 1] - 16
    lab[..., 1] = 500 * (f[..., 0] - f[..., 1])
    lab[..., 2] = 200 * (f[..., 1] - f[..., 2])
    return lab


def rgb_from_lab(lab: Floats) -> Floats:
    """sRGB clipped to [0, 1] of CIELAB (D65)."""
    f = np.empty_like(lab)
    f[..., 1] = (lab[..., 0] + 16) / 116
    f[..., 0] = f[..., 1] + lab[..., 1] / 500
    f[..., 2] = f[..., 1] - lab[..., 2] / 200
    xyz = np.where(f > _KNEE, f * f * f, np.float32(3 * _KNEE**2) * (f - np.float32(4 / 29)))
    linear = np.clip(xyz @ _RGB_FROM_XYZ.T, 0, 1)
    return np.where(
        linear > 0.0031308, np.float32(1.055) * linear ** np.float32(1 / 2.4) - np.float32(0.055), linear * np.float32(12.92)
    )
