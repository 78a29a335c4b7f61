"""LPIPS, the learned perceptual image patch similarity, and its shift-tolerant variant ST-LPIPS. Lower is better.

R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang, "The unreasonable effectiveness of deep features as a perceptual
metric", CVPR 2018, arXiv 1801.03924; numerically the authors' package `lpips`.

A. Ghildyal, F. Liu, "Shift-tolerant perceptual similarity metric", ECCV 2022, arXiv 2207.13686; its network is implemented
from the paper and filled from the authors' weight files.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models import feature_extractors
from harness.models.base import Model, check_pair
from harness.models.weights.state_dict import fill
from harness.runtime.errors import UsageError, near

Embedding = list[Tensor]
"""Per layer the features (R, C, H', W') of R references, of length 1 at every place."""

Trunks = Mapping[str, Callable[[], feature_extractors.Trunk]]
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


class FeatureMetric(Model, nn.Module):
    """Base of LPIPS, ST-LPIPS and DISTS: a distance between a trunk's features.

    The reference's features can be kept: `score_embedded(embed(reference), distorted, index)`.
    """

    higher_is_better = False
    title = "this metric"
    constants: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the authors' names of constants, which are not filled."""

    def __init__(self, trunk: feature_extractors.Trunk) -> None:
        super().__init__()
        self.trunk = trunk
        self.minimum_size = trunk.minimum_size

    def features(self, images: Tensor) -> Embedding:
        """The compared features of images (N, 3, H, W) in [0, 1]."""
        raise NotImplementedError

    def compare(self, reference: Embedding, distorted: Embedding) -> Tensor:
        """Distances (N,) of features of N pairs."""
        raise NotImplementedError

    def forward(self, reference: Tensor, distorted: Tensor, index: Tensor | None = None) -> Tensor:
        """Differentiable distances (N,); row i of `distorted` is compared with row index[i] (default: i) of `reference`."""
        of_reference = self.features(reference)
        return self.compare(of_reference if index is None else [f[index] for f in of_reference], self.features(distorted))

    def score(self, reference: Tensor, distorted: Tensor) -> Tensor:
        """Distances (N,), lower is better, of two float32 batches (N, 3, H, W) in [0, 1]."""
        check_pair(reference, distorted, minimum_size=self.minimum_size)
        with torch.inference_mode():
            distances: Tensor = self(reference, distorted)
            return distances.clone()

    def embed(self, reference: Tensor) -> Embedding:
        """The embedding of references (R, 3, H, W) in [0, 1] for `score_embedded`."""
        check_pair(reference, reference, minimum_size=self.minimum_size)
        with torch.inference_mode():
            return self.features(reference)

    def score_embedded(self, embedding: Embedding, distorted: Tensor, index: Tensor) -> Tensor:
        """Distances (N,) of `distorted` (N, 3, H, W) from the embedded references that `index` (N,) names, row by row."""
        check_pair(distorted, distorted, minimum_size=self.minimum_size)
        with torch.inference_mode():
            of_distorted = self.features(distorted)
            if embedding[0].shape[1:] != of_distorted[0].shape[1:]:
                raise UsageError(f"{self.title}: the embedded references and the distorted images differ in size")
            # One reference for all rows, the usual case, is not copied.
            single = len(embedding[0]) == 1
            return self.compare([f if single else f[index.to(f.device)] for f in embedding], of_distorted)

    def heads(self) -> dict[str, Tensor]:
        """The learned weights besides the trunk's, by their names in the authors' files."""
        raise NotImplementedError

    def load_part(self, part: str, state: Mapping[str, Tensor]) -> None:
        """Fill `trunk` from torchvision's state dict (its classifier is ignored), `heads` from the authors' file, or `network`,
        both, from one file.

        Raises UsageError naming every missing, misshapen or foreign entry; nothing is changed then.
        """
        if part == "network":
            fill(self.trunk.state_dict(keep_vars=True) | self.heads(), state, f"the weights for {self.title}", ignored=())
        elif part == "trunk":
            fill(self.trunk.state_dict(keep_vars=True), state, f"the trunk's weights for {self.title}", ignored=("classifier.",))
        elif part == "heads":
            fill(self.heads(), state, f"the heads' weights for {self.title}", ignored=())
        else:
            raise UsageError(
                f"{self.title} has no part {part!r}{near(part, ('trunk', 'heads', 'network'))} (trunk, heads, network)"
            )

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Fill trunk and heads from the state dict of the authors' complete network, whose names `renamed` converts to ours.

        Raises UsageError naming every missing, misshapen or foreign entry; nothing is changed then.
        """
        own = self.trunk.state_dict(keep_vars=True) | self.heads()
        fill(own, self.renamed(state), f"the weights for {self.title}", ignored=self.constants)

    def renamed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the authors' complete network by our names."""
        raise NotImplementedError


class LPIPS(FeatureMetric):
    """LPIPS over AlexNet (`net="alex"`) or VGG16 (`"vgg"`).

    `release` is the heads' version: 0.1, or 0.0, which did not normalise the input by the trunk's mean and deviation. Images in
    [0, 1] are scaled to the authors' [-1, 1]. Identical images give 0 (where the two are computed in batches of different
    size: below 1e-9); constant and grey images are supported; at least 31 pixels a side (AlexNet) or 16 (VGG16). `backbone`
    names the source of the trunk's weights and is used when the model is filled. Unfilled heads weigh all channels equally.
    """

    constants = ("scaling_layer.", "lins.")
    trunks: ClassVar[Trunks] = {"alex": feature_extractors.alexnet, "vgg": feature_extractors.vgg16}

    def __init__(self, net: Literal["alex", "vgg"] = "alex", release: str = "0.1", backbone: str = "") -> None:
        if net not in ("alex", "vgg"):
            raise UsageError(f"LPIPS: net = {net!r} is neither 'alex' nor 'vgg'")
        if release not in ("0.0", "0.1"):
            raise UsageError(f"LPIPS: release = {release!r} is neither '0.0' nor '0.1'")
        super().__init__(self.trunks[net]())
        self.net, self.release, self.backbone = net, release, backbone
        self.title = f"{type(self).__name__} ({net})"
        self.weights = nn.ParameterList(torch.full((1, c, 1, 1), 1 / c) for c in self.trunk.channels)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.shift: Tensor
        self.scale: Tensor

    def features(self, images: Tensor) -> Embedding:
        """The trunk's features, of unit length at every place, of images (N, 3, H, W) in [0, 1]."""
        x = 2 * images - 1
        if self.release != "0.0":
            x = (x - self.shift) / self.scale
        # Zeros stay zeros.
        return [f / (torch.sqrt(torch.sum(f * f, dim=1, keepdim=True)) + 1e-10) for f in self.trunk(x)]

    def compare(self, reference: Embedding, distorted: Embedding) -> Tensor:
        """Distances (N,): the sum over layers of the spatial mean of squared differences, weighted by the layer's head."""
        layers = []
        for of_reference, of_distorted, head in zip(reference, distorted, self.weights, strict=True):
            difference = of_reference - of_distorted
            layers.append(F.conv2d(difference * difference, head).mean((1, 2, 3)))
        return torch.stack(layers).sum(0)

    def heads(self) -> dict[str, Tensor]:
        """The heads by their names in the authors' files."""
        return {f"lin{i}.model.1.weight": weight for i, weight in enumerate(self.weights)}

    def renamed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The authors' names of convolutions converted to ours in order, because they number layers differently."""
        found = [re.fullmatch(r"net\.slice\d+\.(\d+)\.weight", key) for key in state]
        theirs = sorted((match for match in found if match), key=lambda match: int(match[1]))
        ours = [f"features.{name}" for name, layer in self.trunk.features.named_modules() if isinstance(layer, nn.Conv2d)]
        names = {match[0].removesuffix(".weight"): own for match, own in zip(theirs, ours, strict=False)}
        renamed = {}
        for key, tensor in state.items():
            layer, _, kind = key.rpartition(".")
            # The blurs' fixed kernels are among the learned weights.
            if kind != "filt":
                renamed[f"{names.get(layer, layer)}.{kind}"] = tensor
        return renamed


class STLPIPS(LPIPS):
    """ST-LPIPS over AlexNet (`net="alex"`) or VGG16 (`"vgg"`): LPIPS's distance over trunks that blur where they subsample.

    One file holds trunk and heads. Images in [0, 1] are scaled to [-1, 1]. Identical images give 0 (where the two are
    computed in batches of different size: below 1e-9); constant and grey images are supported; at least 21 pixels a side
    (AlexNet) or 18 (VGG16).
    """

    trunks: ClassVar[Trunks] = {
        "alex": functools.partial(feature_extractors.alexnet, shift_tolerant=True),
        "vgg": feature_extractors.shift_tolerant_vgg16,
    }

    def __init__(self, net: Literal["alex", "vgg"] = "alex") -> None:
        super().__init__(net)

    def load_part(self, part: str, state: Mapping[str, Tensor]) -> None:
        """Fill `network`, trunk and heads, from the authors' file; raises UsageError as `load_state` does."""
        if part != "network":
            raise UsageError(f"{self.title} has no part {part!r}{near(part, ('network',))} (network)")
        self.load_state(state)
