"""ST-LPIPS, the shift-tolerant LPIPS.

A. Ghildyal, F. Liu, "Shift-tolerant perceptual similarity metric", ECCV 2022, arXiv 2207.13686. Lower is better. The
network is written from the paper and filled from the authors' weight files alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from harness.models import trunks
from harness.models.lpips import LPIPS
from harness.runtime.errors import BadRequest, near


class STLPIPS(LPIPS):
    """ST-LPIPS over AlexNet (`net="alex"`) or VGG16 (`"vgg"`): LPIPS's distance over trunks that blur where they subsample.

    One file holds trunk and heads. Images in [0, 1] are brought to [-1, 1] inside. Identical images give 0 (where the two
    are computed in batches of different size: below 1e-9); constant and grey images are ordinary cases; at least 21 pixels
    a side (AlexNet) or 18 (VGG16).
    """

    def __init__(self, net: Literal["alex", "vgg"] = "alex") -> None:
        super().__init__(net)

    def make_trunk(self, net: str) -> trunks.Trunk:
        """The trunk that `net` names."""
        return trunks.shift_tolerant_alexnet() if net == "alex" else trunks.shift_tolerant_vgg16()

    def load_part(self, part: str, state: Mapping[str, Tensor]) -> None:
        """Fill `network`, trunk and heads, from the authors' file; raises BadRequest as `load_state` does."""
        if part != "network":
            raise BadRequest(f"{self.title} has no part {part!r}{near(part, ('network',))} (network)")
        self.load_state(state)
