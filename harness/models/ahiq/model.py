"""AHIQ, the attention-based hybrid image quality assessment network (full reference).

S. Lao et al., "Attentions Help CNNs See Better: Attention-based Hybrid Image Quality Assessment Network", CVPRW 2022,
arXiv 2204.10485. Numerically the released code (github.com/IIGROUP/AHIQ); docs/ahiq.md lists the differences and their reasons.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.ahiq.backbones import INCEPTION_DEPTH, Inception, ResNet, ViT
from harness.models.ahiq.deform_conv import Places, as_map, places, upsampled_conv
from harness.models.ahiq.fusion import DeformFusion
from harness.models.base import Model, check_pair
from harness.models.kernels import choice, onednn
from harness.models.kernels.onednn import by_onednn
from harness.models.kernels.winograd import Conv3x3
from harness.models.weights.state_dict import fill
from harness.runtime.errors import UsageError, near

_HEADS = {"regressor_model_state_dict": "regressor", "deform_net_model_state_dict": "deform_net"}
_TRUNKS = ("vit", "resnet50", "inception")
_PARTS = (*_TRUNKS, "deform_net", "regressor")
_PIXELS_ON_CPU, _PIXELS_ON_GPU = 1 << 17, 1 << 22
"""Pixels of all images in one forward pass of scoring: 2 and 82 crops of 224. On a CPU more are not faster, and arrays of
over 32 MB would be returned to the system and allocated again at each layer."""


class Embedding(NamedTuple):
    """The features of a batch of R reference crops, shared by all scores; `index` selects rows later."""

    places: Places | None
    """None without a deformable convolution."""
    term: Tensor
    """(R, head_widths[1], g, g): the reference's part of the head's first convolution."""


class Maps(NamedTuple):
    """Scores with their maps: `score` (N,) is the mean of `quality` (N, g, g) weighted by `weight` (N, g, g)."""

    score: Tensor
    quality: Tensor
    weight: Tensor


class AHIQ(Model, nn.Module, choice.HasKernels):
    """ViT and ResNet features of both images, the latter deformed by offsets from the reference's ViT, and a patch-wise head.

    The defaults are the released network with ViT-B/8. `backbone` names the source of the trunks' weights and is used
    when the model is filled. `crop_size` and `patch_size` in pixels (patches of 8 or 16); `vit_*` and `cnn_*` shape the trunks
    (`cnn_block` bottleneck or basic; `cnn_norm` batch or group); `fusion_width` and the four `head_widths` the heads.
    `offsets`: initialisation of the offsets' convolution, `default` (PyTorch's, as released) or `zero`. `precision`: fp32;
    tf32 for GPUs that round to it; bf16 for matrix products and convolutions.

    The paper's ablations: `trunks` both, vit or cnn (only that one); `deformable` false uses the CNN's maps without deformation;
    `pooling` mean averages the quality map instead of weighting its patches; `cnn` inception uses Inception-ResNet-v2's first
    `cnn_depth` outputs of 320 channels (mixed_5b, then block35 by block35), resized to a quarter of the crop.

    Raises UsageError naming every invalid setting.
    """

    version = 1
    higher_is_better = True

    def __init__(
        self,
        *,
        backbone: str = "",
        crop_size: int = 224,
        patch_size: int = 8,
        vit_width: int = 768,
        vit_depth: int = 5,
        vit_heads: int = 12,
        cnn_block: str = "bottleneck",
        cnn_planes: int = 64,
        cnn_depth: int = 3,
        cnn_norm: str = "batch",
        fusion_width: int = 512,
        head_widths: Sequence[int] = (256, 1024, 512, 256),
        offsets: str = "default",
        precision: str = "fp32",
        trunks: str = "both",
        deformable: bool = True,
        pooling: str = "patches",
        cnn: str = "resnet",
    ) -> None:
        super().__init__()
        sizes = {"vit_width": vit_width, "vit_depth": vit_depth, "vit_heads": vit_heads, "cnn_planes": cnn_planes}
        sizes |= {"cnn_depth": cnn_depth, "fusion_width": fusion_width}
        sizes |= {f"head_widths[{i}]": width for i, width in enumerate(head_widths)}
        words = {
            "cnn_block": (cnn_block, ("bottleneck", "basic")),
            "cnn_norm": (cnn_norm, ("batch", "group")),
            "offsets": (offsets, ("default", "zero")),
            "precision": (precision, ("fp32", "tf32", "bf16")),
            "trunks": (trunks, ("both", "vit", "cnn")),
            "pooling": (pooling, ("patches", "mean")),
            "cnn": (cnn, ("resnet", "inception")),
        }
        problems = [f"{key} = {value} should be at least 1" for key, value in sizes.items() if value < 1]
        problems += [f"{k} = {v!r} is not one of {', '.join(ok)}{near(v, ok)}" for k, (v, ok) in words.items() if v not in ok]
        if patch_size not in (8, 16):
            problems.append(f"patch_size = {patch_size} should be 8 or 16")
        elif crop_size < patch_size or crop_size % patch_size:
            problems.append(f"crop_size = {crop_size} should be a multiple of patch_size = {patch_size}")
        if len(head_widths) != 4:
            problems.append(f"head_widths should hold 4 widths, has {len(head_widths)}")
        if vit_heads > 0 and vit_width % vit_heads:
            problems.append(f"vit_width = {vit_width} should be a multiple of vit_heads = {vit_heads}")
        if cnn_norm == "group" and cnn_planes % min(8, max(1, cnn_planes)):
            problems.append(f"cnn_planes = {cnn_planes} should be a multiple of 8 for cnn_norm = 'group'")
        if deformable and trunks != "both":
            problems.append(f"deformable = true needs both trunks: trunks = {trunks!r} goes with deformable = false")
        if cnn == "inception" and cnn_depth > INCEPTION_DEPTH:
            problems.append(f"cnn_depth = {cnn_depth} should be at most {INCEPTION_DEPTH} for cnn = 'inception'")
        if problems:
            raise UsageError("AHIQ's [model] settings: " + "; ".join(problems))

        self.backbone, self.precision = backbone, precision
        self.crop_size: int = crop_size
        self.patch_size = patch_size
        self.grid = crop_size // patch_size
        self.pooling, self.deformable = pooling, deformable
        tokens = channels = 0
        if trunks != "cnn":
            self.vit = ViT(crop_size, patch_size, vit_width, vit_depth, vit_heads)
            tokens = vit_width * vit_depth
        self.cnn: str = "" if trunks == "vit" else {"resnet": "resnet50", "inception": "inception"}[cnn]
        if self.cnn == "resnet50":
            self.resnet50 = ResNet(cnn_block, cnn_planes, cnn_depth, cnn_norm)
            channels = self.resnet50.channels * cnn_depth
        elif self.cnn == "inception":
            self.inception = Inception(cnn_depth, crop_size // 4)
            channels = Inception.channels * cnn_depth
        if channels:
            self.deform_net = DeformFusion(tokens if deformable else 0, channels, fusion_width, patch_size)
        self.regressor = _Regressor(tokens, channels, head_widths, weighted=pooling == "patches")
        if offsets == "zero" and deformable:
            nn.init.zeros_(self.deform_net.conv_offset.weight)
            nn.init.zeros_(self.deform_net.conv_offset.bias)  # type: ignore[arg-type]

    def score(self, reference: Tensor, distorted: Tensor) -> Tensor:
        """Scores (N,) of `distorted` against `reference`, row by row; both (N, 3, crop_size, crop_size) in [0, 1]."""
        check_pair(reference, distorted, self.crop_size)
        with torch.inference_mode():
            slices = self._slices(2 * len(reference), reference.device)
            halves = [slice(s.start // 2, s.stop // 2) for s in slices]
            return torch.cat([self(reference[s], distorted[s]) for s in halves])

    def embed(self, reference: Tensor) -> Embedding:
        """The embedding of R reference crops (R, 3, crop_size, crop_size) for `score_embedded`, about 5 MB each for 224."""
        self._check("reference", reference)
        parts = []
        with torch.inference_mode(), self._products(reference.device):
            for rows in self._slices(len(reference), reference.device):
                tokens, maps = self._features(reference[rows])
                where = self._places(tokens)
                fused = self._fused(maps, where, torch.arange(len(reference[rows]), device=reference.device))
                parts.append((*(where or ()), self.regressor.reference_term(self.regressor.reduced(tokens, fused))))
            *held, term = (torch.cat(same) for same in zip(*parts, strict=True))
            return Embedding(Places(*held) if held else None, term)

    def score_embedded(self, embedding: Embedding, distorted: Tensor, index: Tensor) -> Tensor:
        """Scores (N,) of `distorted` against the embedded references that `index` (N,) names, one per row."""
        return self.maps_embedded(embedding, distorted, index).score

    def score_maps(self, reference: Tensor, distorted: Tensor) -> Maps:
        """The scores with their maps of local quality and weight, one cell per ViT patch."""
        check_pair(reference, distorted, self.crop_size)
        return self.maps_embedded(self.embed(reference), distorted, torch.arange(len(distorted)))

    def maps_embedded(self, embedding: Embedding, distorted: Tensor, index: Tensor) -> Maps:
        """As `score_maps`, against embedded references."""
        self._check("distorted", distorted)
        index = index.to(distorted.device)
        parts = []
        with torch.inference_mode(), self._products(distorted.device):
            for rows in self._slices(len(distorted), distorted.device):
                tokens, maps = self._features(distorted[rows])
                fused = self._fused(maps, embedding.places, index[rows])
                reduced = self.regressor.reduced(tokens, fused)
                parts.append(self._maps(reduced, embedding.term.index_select(0, index[rows])))
            return Maps(*(torch.cat(same) for same in zip(*parts, strict=True)))

    def forward(self, reference: Tensor, distorted: Tensor, index: Tensor | None = None) -> Tensor:
        """Differentiable scores (N,); row i of `distorted` is compared with row index[i] (default: i) of `reference`."""
        self._check("reference", reference)
        self._check("distorted", distorted)
        count = len(reference)
        own = torch.arange(count, device=reference.device)
        index = own if index is None else index.to(reference.device)
        with self._products(reference.device):
            tokens, maps = self._features(torch.cat([reference, distorted]))
            where = self._places(tokens[:count] if tokens is not None else None)
            fused = self._fused(maps, where, torch.cat([own, index]))
            reduced = self.regressor.reduced(tokens, fused)
            term = self.regressor.reference_term(reduced[:count])
            return self._maps(reduced[count:], term.index_select(0, index)).score

    def _slices(self, count: int, device: torch.device) -> list[slice]:
        """Slices of `count` images of equal size, large enough for full speed and with little memory."""
        step = max(1, (_PIXELS_ON_CPU if device.type == "cpu" else _PIXELS_ON_GPU) // self.crop_size**2 // 2) * 2
        return [slice(i, min(i + step, count)) for i in range(0, count, step)]

    def _features(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """ViT tokens (N, L, C) and CNN maps (N, C', S/4, S/4) of images in [0, 1]; None of a trunk that is left out."""
        x = (x - 0.5) / 0.5
        trunks = [getattr(self, name, None) for name in ("vit", self.cnn)]
        frozen = not any(p.requires_grad for trunk in trunks if trunk is not None for p in trunk.parameters())
        whole = torch.is_grad_enabled() and not frozen
        slices = [slice(None)] if whole else self._slices(len(x), x.device)
        found: list[Tensor | None] = []
        for trunk in trunks:
            parts = [trunk(x[rows]) for rows in slices] if trunk is not None else []
            found.append(None if not parts else parts[0] if len(parts) == 1 else torch.cat(parts))
        return found[0], found[1]

    def _places(self, tokens: Tensor | None) -> Places | None:
        if not self.deformable or tokens is None:
            return None
        return places(upsampled_conv(tokens, self.deform_net.conv_offset, self.grid, self.crop_size // 4))

    def _fused(self, maps: Tensor | None, where: Places | None, index: Tensor) -> Tensor | None:
        """CNN maps deformed at the places of row `index` for each, and reduced to the ViT's grid: (N, L, C')."""
        if maps is None:
            return None
        fused: Tensor = self.deform_net(maps, where and Places(*(part.index_select(0, index) for part in where)))
        return fused

    def _maps(self, reduced: Tensor, term: Tensor) -> Maps:
        quality, weight = self.regressor(reduced, term)
        quality = quality.float()
        weight = torch.ones_like(quality) if weight is None else weight.float()
        return Maps((quality * weight).sum((1, 2)) / weight.sum((1, 2)), quality, weight)

    def _check(self, what: str, x: Tensor) -> None:
        # Values are not checked: on a GPU that would wait for them at every step.
        size = self.crop_size
        if x.ndim != 4 or x.shape[1:] != (3, size, size) or x.dtype != torch.float32:
            got = f"{tuple(x.shape)} {x.dtype}"
            raise UsageError(f"{what}: expected float32 (N, 3, {size}, {size}) in [0, 1], got {got}")

    @contextlib.contextmanager
    def _products(self, device: torch.device) -> Iterator[None]:
        # A recipe's precision may have enabled autocast outside.
        less = self.precision == "bf16" or torch.is_autocast_enabled(device.type)
        with by_onednn(device), torch.autocast(device.type, torch.bfloat16, enabled=less):
            yield

    def kernels(self) -> dict[str, str]:
        """Whether products use oneDNN; the layers have their own choices."""
        return {onednn.NAME: onednn.way_of()}

    def train(self, mode: bool = True) -> AHIQ:
        """Training mode, except for the parts whose parameters are all frozen (`requires_grad` False)."""
        super().train(mode)
        for part in self._held(_PARTS):
            module = getattr(self, part)
            if not any(p.requires_grad for p in module.parameters()):
                module.eval()
        return self

    def _held(self, parts: Sequence[str]) -> tuple[str, ...]:
        return tuple(part for part in parts if hasattr(self, part))

    def load_part(self, part: str, state: Mapping[str, Tensor]) -> None:
        """Fill a trunk (`vit`, `resnet50`, `inception`) from timm's state dict (its unused entries are ignored), or `heads` from
        a released checkpoint.

        A nested checkpoint's keys are joined by dots. Raises UsageError naming every missing, misshapen or foreign entry.
        """
        if part in self._held(_TRUNKS):
            self._fill({f"{part}.{key}": tensor for key, tensor in state.items()}, f"{part} weights", (part,))
        elif part == "heads":
            named = {}
            for key, tensor in state.items():
                head, _, rest = key.partition(".")
                if head in _HEADS:
                    named[f"{_HEADS[head]}.{rest}"] = tensor
                elif not head.startswith(("optimizer", "scheduler")):
                    named[key] = tensor
            self._fill(named, "the released checkpoint", tuple(_HEADS.values()))
        else:
            known = (*self._held(_TRUNKS), "heads")
            raise UsageError(f"this AHIQ has no part {part!r}{near(part, known)} ({', '.join(known)})")

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Fill the model from one file: a released checkpoint (heads only), or all four parts by their prefixes.

        Raises UsageError naming every missing, misshapen or foreign entry; the model is then unchanged.
        """
        if any(key.partition(".")[0] in _HEADS for key in state):
            self.load_part("heads", state)
        else:
            self._fill(state, "the weights", _PARTS)

    def export_released(self) -> dict[str, dict[str, Tensor]]:
        """The heads in the nested form of the released checkpoint; `load_part("heads", ...)` reads them, joined by dots."""
        return {
            name: {k: v.detach().cpu().contiguous().clone() for k, v in getattr(self, part).state_dict().items()}
            for name, part in _HEADS.items()
            if hasattr(self, part)
        }

    def _fill(self, state: Mapping[str, Tensor], what: str, parts: Sequence[str]) -> None:
        own = {k: v for k, v in self.state_dict(keep_vars=True).items() if k.partition(".")[0] in parts}
        # Batch counters of timm's norms are integers and unused.
        own = {k: v for k, v in own.items() if v.is_floating_point()}
        hint = ""
        embed = state.get("vit.patch_embed.proj.weight")
        if embed is not None and embed.ndim == 4 and embed.shape[-1] != self.patch_size:
            hint = f"these are weights for patches of {embed.shape[-1]}, this model's are of {self.patch_size}"
        fill(own, state, what, ignored=tuple(f"{trunk}." for trunk in _TRUNKS), hint=hint)


class _Regressor(nn.Module):
    def __init__(self, tokens: int, channels: int, widths: Sequence[int], *, weighted: bool) -> None:
        super().__init__()
        reduced, wide, narrow, last = widths
        self.tokens, self.width = tokens, reduced
        self.down_channel = nn.Conv2d(tokens + channels, reduced, 1)
        self.feat_smoothing = nn.Sequential(Conv3x3(3 * reduced, wide, parts=3), nn.ReLU(), Conv3x3(wide, narrow))
        self.conv1 = nn.Sequential(Conv3x3(narrow, last), nn.ReLU())
        self.conv = nn.Sequential(nn.Conv2d(last, 1, 1))
        self.conv_attent = nn.Sequential(nn.Conv2d(last, 1, 1), nn.Sigmoid()) if weighted else None

    def reduced(self, tokens: Tensor | None, fused: Tensor | None) -> Tensor:
        """ViT tokens and fused CNN tokens of each image, (N, L, ...) -> (N, head_widths[0], g, g)."""
        weight, bias = self.down_channel.weight.flatten(1), self.down_channel.bias
        if tokens is not None and fused is not None:
            out = F.linear(tokens, weight[:, : self.tokens], bias) + F.linear(fused, weight[:, self.tokens :])
        else:
            only = fused if tokens is None else tokens
            assert only is not None
            out = F.linear(only, weight, bias)
        grid = math.isqrt(out.shape[1])
        return as_map(out, grid, grid)

    # The first convolution's input is [d - r, d, r]. It is linear, so W [d - r, d, r] = (W1 + W2) d + (W3 - W1) r: two
    # thirds of the work for a pair, and one third for another image of the same reference.

    def reference_term(self, reduced: Tensor) -> Tensor:
        """The references' part of the first convolution, its bias included."""
        first = cast(Conv3x3, self.feat_smoothing[0])
        return first.using(reduced, "reference", lambda w: w[:, -self.width :] - w[:, : self.width], first.bias)

    def forward(self, reduced: Tensor, term: Tensor) -> tuple[Tensor, Tensor | None]:
        """Quality and weight maps (N, g, g); no weight where all patches count equally."""
        first = cast(Conv3x3, self.feat_smoothing[0])
        own = first.using(reduced, "distorted", lambda w: w[:, : self.width] + w[:, self.width : -self.width], None)
        x = self.conv1(self.feat_smoothing[2](F.relu(own + term)))
        return self.conv(x).squeeze(1), self.conv_attent(x).squeeze(1) if self.conv_attent is not None else None
