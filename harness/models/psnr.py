"""PSNR: peak signal-to-noise ratio in dB."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.models.base import Model, check_pair
from harness.models.planes import Colour, Rows, bands, check_colour, check_pair_uint8, rows_tensor, rows_uint8

if TYPE_CHECKING:
    import torch


def psnr_of_error(squared_error: float, count: int) -> float:
    """PSNR in dB from the sum of squared differences of `count` samples with peak 255; no error gives +inf.

    Rounded to float32, the precision in which scores are kept, so that both methods of `PSNR` give the same bits.
    """
    if squared_error == 0:
        return math.inf
    return float(np.float32(10 * math.log10(255.0**2 * count / squared_error)))


class PSNR(Model):
    """PSNR over all samples of R, G and B (`colour="rgb"`), of the rounded grey of MATLAB's rgb2gray (`"luma"`), or of the
    rounded Y, 16..235, of its rgb2ycbcr (`"ycbcr"`).

    Peak 255; `border` pixels are left out at each side. Identical images give +inf (a card's `identical` replaces
    it); images of any size that leaves a pixel, constant and grey ones are supported. Luma can be identical where RGB is not.
    Sums of squares of 8-bit images are whole numbers, so their scores do not depend on order, batch or thread count.
    """

    higher_is_better = True

    def __init__(self, colour: Colour = "rgb", border: int = 0) -> None:
        check_colour("PSNR", colour, border)
        self.colour, self.border = colour, border
        self.minimum_size = 1 + 2 * border

    def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
        """PSNR (N,) in dB of two float32 batches (N, 3, H, W) in [0, 1]."""
        import torch

        check_pair(reference, distorted, minimum_size=self.minimum_size)
        inside = slice(self.border, -self.border or None)
        scores = []
        for x, y in zip(reference[..., inside, inside], distorted[..., inside, inside], strict=True):
            if self.colour != "rgb":
                scores.append(_of_rows(rows_tensor(x, self.colour), rows_tensor(y, self.colour)))
                continue
            # One image at a time: the order of summation in a batch may depend on the batch size.
            error = torch.sum(torch.square(x.detach() * 255 - y.detach() * 255), dtype=torch.float64)
            scores.append(psnr_of_error(float(error), y.numel()))
        return torch.tensor(scores, dtype=torch.float32, device=distorted.device)

    def score_uint8(self, reference: NDArray[np.uint8], distorted: NDArray[np.uint8]) -> float:
        """PSNR in dB of two (H, W, 3) uint8 arrays: the same bits as `score` of the same images."""
        import cv2

        check_pair_uint8(reference, distorted, self.minimum_size)
        inside = slice(self.border, -self.border or None)
        reference, distorted = reference[inside, inside], distorted[inside, inside]
        if self.colour != "rgb":
            return _of_rows(rows_uint8(reference, self.colour), rows_uint8(distorted, self.colour))
        # OpenCV computes a root, whose square may differ from the whole number by a few ulp.
        return psnr_of_error(round(cv2.norm(reference, distorted, cv2.NORM_L2SQR)), distorted.size)


def _of_rows(reference: Rows, distorted: Rows) -> float:
    error = 0.0
    for band in bands(reference.height, reference.width):
        difference = reference.take(band, "x")
        difference -= distorted.take(band, "y")
        error += float(np.sum(np.square(difference, out=difference), dtype=np.float64))
    return psnr_of_error(error, reference.height * reference.width)
