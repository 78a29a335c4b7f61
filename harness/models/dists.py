"""DISTS, deep image structure and texture similarity.

K. Ding, K. Ma, S. Wang, E. P. Simoncelli, "Image quality assessment: unifying structure and texture similarity", IEEE
TPAMI 44(5), 2022, arXiv 2004.07728; numerically the authors' package `DISTS-pytorch`. Lower is better.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from harness.models import feature_extractors
from harness.models.lpips import Embedding, FeatureMetric

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def similarities(x: Tensor, y: Tensor, constant: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Texture and structure similarity (N, C) of feature maps (N, C, H, W): of their means, and of their co-variation."""
    mean_x, mean_y = x.mean((2, 3), keepdim=True), y.mean((2, 3), keepdim=True)
    variance_x = torch.square(x - mean_x).mean((2, 3))
    variance_y = torch.square(y - mean_y).mean((2, 3))
    covariance = (x * y).mean((2, 3)) - (mean_x * mean_y)[:, :, 0, 0]
    mean_x, mean_y = mean_x[:, :, 0, 0], mean_y[:, :, 0, 0]
    texture = (2 * mean_x * mean_y + constant) / (mean_x * mean_x + mean_y * mean_y + constant)
    structure = (2 * covariance + constant) / (variance_x + variance_y + constant)
    return texture, structure


class DISTS(FeatureMetric):
    """DISTS over VGG16 with L2 pooling and the image itself as its first layer; no resizing.

    Images in [0, 1] are normalised by ImageNet's mean and deviation. Identical images give 0 within 1e-6; constant, grey
    and tiny images (from one pixel up) are supported. `backbone` names the source of the trunk's weights and is used when
    the model is filled. Unfilled `alpha` and `beta` weigh all channels equally.
    """

    title = "DISTS"
    constants = ("mean", "std")

    def __init__(self, backbone: str = "") -> None:
        super().__init__(feature_extractors.vgg16(feature_extractors.L2Pool))
        self.backbone = backbone
        self.channels = (3, *self.trunk.channels)
        self.alpha = nn.Parameter(torch.ones(1, sum(self.channels), 1, 1))
        self.beta = nn.Parameter(torch.ones(1, sum(self.channels), 1, 1))
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.deviation: Tensor

    def features(self, images: Tensor) -> Embedding:
        """The images (N, 3, H, W) in [0, 1] themselves, and the trunk's five maps of them."""
        return [images, *self.trunk((images - self.mean) / self.deviation)]

    def compare(self, reference: Embedding, distorted: Embedding) -> Tensor:
        """1 - the mean similarity (N,) over all layers' channels, weighted by `alpha` (texture) and `beta` (structure)."""
        both = [similarities(x, y) for x, y in zip(reference, distorted, strict=True)]
        texture = torch.cat([t for t, _ in both], 1)
        structure = torch.cat([s for _, s in both], 1)
        total = self.alpha.sum() + self.beta.sum()
        weighed = texture * (self.alpha.flatten() / total) + structure * (self.beta.flatten() / total)
        return 1 - weighed.sum(1)

    def heads(self) -> dict[str, Tensor]:
        """`alpha` and `beta`, (1, 1475, 1, 1)."""
        return {"alpha": self.alpha, "beta": self.beta}

    def renamed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The authors' names (`stage1.0.weight`, ...) as ours; the pooling's fixed kernels are left out."""
        learned = {key: tensor for key, tensor in state.items() if not key.endswith(".filter")}
        return {re.sub(r"^stage[^.]*\.", "features.", key): tensor for key, tensor in learned.items()}
