"""PSNR: peak signal-to-noise ratio in dB."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from harness.models.base import Model, check_pair
from harness.models.planes import Rows, bands, check_pair_uint8, rows_tensor, rows_uint8
from harness.runtime.errors import UsageError

if TYPE_CHECKING:
    import torch


def psnr_of_error(squared_error: float, count: int) -> float:
    """PSNR in dB from the sum of squared differences of `count` samples with peak 255; no error gives +inf.

    Rounded to float32, the precision in which scores are kept, so that both doors of `PSNR` give the same bits.
    """
    if squared_error == 0:
        return math.inf
    return float(np.float32(10 * math.log10(255.0**2 * count / squared_error)))


class PSNR(Model):
    """PSNR over all samples of R, G and B (`colour="rgb"`), or over the rounded grey of MATLAB's rgb2gray (`"luma"`).

    Peak 255; no border is cut. Identical images give +inf (a card's `identical` puts a ceiling in its place); any
    size from one pixel up and constant or grey images are ordinary cases. Luma can be identical where RGB is not.
    Sums of squares of 8-bit pictures are whole numbers, so their scores depend on no order, batch or thread count.
    """

    higher_is_better = True

    def __init__(self, colour: Literal["rgb", "luma"] = "rgb") -> None:
        if colour not in ("rgb", "luma"):
            raise UsageError(f"PSNR: colour = {colour!r} is neither 'rgb' nor 'luma'")
        self.colour = colour

    def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
        """PSNR (N,) in dB of two float32 batches (N, 3, H, W) in [0, 1]."""
        import torch

        check_pair(reference, distorted)
        scores = [self._score_one(x, y) for x, y in zip(reference, distorted, strict=True)]
        return torch.tensor(scores, dtype=torch.float32, device=distorted.device)

    def _score_one(self, reference: torch.Tensor, distorted: torch.Tensor) -> float:
        import torch

        if self.colour == "luma":
            return _of_rows(rows_tensor(reference, None), rows_tensor(distorted, None))
        # One image at a time: the order in which a batched sum is taken may depend on the batch.
        error = torch.sum(torch.square(reference.detach() * 255 - distorted.detach() * 255), dtype=torch.float64)
        return psnr_of_error(float(error), distorted.numel())

    def score_uint8(self, reference: NDArray[np.uint8], distorted: NDArray[np.uint8]) -> float:
        """PSNR in dB of two (H, W, 3) uint8 arrays: the same bits as `score` of the same pictures."""
        import cv2

        check_pair_uint8(reference, distorted)
        if self.colour == "luma":
            return _of_rows(rows_uint8(reference, None), rows_uint8(distorted, None))
        # OpenCV takes a root and squares it again, which misses the whole number by a few ulp.
        return psnr_of_error(round(cv2.norm(reference, distorted, cv2.NORM_L2SQR)), distorted.size)


def _of_rows(reference: Rows, distorted: Rows) -> float:
    error = 0.0
    for band in bands(reference.height, reference.width):
        difference = reference.take(band, "x")
        difference -= distorted.take(band, "y")
        error += float(np.sum(np.square(difference, out=difference), dtype=np.float64))
    return psnr_of_error(error, reference.height * reference.width)
