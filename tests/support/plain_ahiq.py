"""A second, literal and slow implementation of AHIQ from timm's and torchvision's parts, with generated weights.

python tests/plain_ahiq.py          # writes ahiq_small.json, the small golden scores, again
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
import torchvision
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

GOLDEN = Path(__file__).with_name("ahiq_small.json")
SMALL: dict[str, dict[str, Any]] = {
    "patch 8": {"crop_size": 48, "patch_size": 8, "vit_width": 24, "vit_depth": 5, "vit_heads": 3, "fusion_width": 12},
    "patch 16": {"crop_size": 64, "patch_size": 16, "vit_width": 24, "vit_depth": 3, "vit_heads": 2, "fusion_width": 12},
}
for _small in SMALL.values():
    _small["head_widths"] = (12, 16, 12, 8)
TINY: dict[str, Any] = {
    "crop_size": 48, "patch_size": 8, "vit_width": 16, "vit_depth": 2, "vit_heads": 2, "cnn_block": "basic", "cnn_planes": 8,
    "cnn_depth": 2, "cnn_norm": "group", "fusion_width": 12, "head_widths": (12, 16, 12, 8),
}  # fmt: skip
_BASE = SMALL["patch 8"]
ABLATIONS: dict[str, dict[str, Any]] = {
    "without deformable convolution": {**_BASE, "deformable": False},
    "CNN alone": {**_BASE, "deformable": False, "trunks": "cnn"},
    "ViT alone": {**_BASE, "deformable": False, "trunks": "vit"},
    "mean pooling": {**_BASE, "pooling": "mean"},
    "Inception-ResNet-v2": {**_BASE, "crop_size": 96, "cnn": "inception", "cnn_depth": 2},
}


class Plain(nn.Module):
    """The released code's forward, over whole backbones, and the paper's ablations; `settings` as AHIQ's, bottleneck trunks."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        width, depth, patch = settings["vit_width"], settings["vit_depth"], settings["patch_size"]
        trunks, self.deformable = settings.get("trunks", "both"), settings.get("deformable", True)
        self.pooling, self.side, self.grid = settings.get("pooling"), settings["crop_size"] // 4, settings["crop_size"] // patch
        self.cnn = "inception" if settings.get("cnn") == "inception" else "resnet50" if trunks != "vit" else ""
        self.cnn_depth = settings.get("cnn_depth", 3)
        channels = {"inception": 320, "resnet50": 256, "": 0}[self.cnn] * self.cnn_depth
        width = 0 if trunks == "cnn" else width
        if width:
            self.vit = VisionTransformer(
                settings["crop_size"], patch, embed_dim=width, depth=depth + 2, num_heads=settings["vit_heads"], num_classes=10
            )
        if self.cnn == "resnet50":
            self.resnet50 = timm.create_model("resnet50", pretrained=False)
        elif self.cnn:
            self.inception = timm.create_model("inception_resnet_v2", pretrained=False)
        reduced, wide, narrow, last = settings["head_widths"]
        hidden = settings["fusion_width"]
        self.depth = depth
        if channels:
            last_stride = 1 if patch == 8 else 2
            shrink = nn.Sequential(
                nn.Conv2d(channels, hidden, 3, 2, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 3, last_stride, 1)
            )
            self.deform_net = nn.ModuleDict({"conv1": shrink})
            if self.deformable:
                self.deform_net["conv_offset"] = nn.Conv2d(width * depth, 18, 3, 1, 1)
                self.deform_net["deform"] = torchvision.ops.DeformConv2d(channels, channels, 3, 1, 1)
        self.regressor = nn.ModuleDict(
            {
                "down_channel": nn.Conv2d(width * depth + channels, reduced, 1),
                "feat_smoothing": nn.Sequential(
                    nn.Conv2d(3 * reduced, wide, 3, 1, 1), nn.ReLU(), nn.Conv2d(wide, narrow, 3, 1, 1)
                ),
                "conv1": nn.Sequential(nn.Conv2d(narrow, last, 3, 1, 1), nn.ReLU()),
                "conv": nn.Sequential(nn.Conv2d(last, 1, 1)),
                "conv_attent": nn.Sequential(nn.Conv2d(last, 1, 1), nn.Sigmoid()),
            }
        )
        self.eval()

    def tokens(self, x: Tensor) -> Tensor | None:
        if not hasattr(self, "vit"):
            return None
        outputs: list[Tensor] = []
        hooks = [block.register_forward_hook(lambda _, __, y: outputs.append(y)) for block in self.vit.blocks]
        self.vit(x)
        for hook in hooks:
            hook.remove()
        joined = torch.cat([t[:, 1:] for t in outputs[: self.depth]], 2).transpose(1, 2)
        side = math.isqrt(joined.shape[2])
        return joined.reshape(len(x), -1, side, side)

    def maps(self, x: Tensor) -> Tensor | None:
        if not self.cnn:
            return None
        outputs: list[Tensor] = []
        if self.cnn == "resnet50":
            blocks, whole = list(self.resnet50.layer1), self.resnet50
        else:
            blocks, whole = [self.inception.mixed_5b, *self.inception.repeat], self.inception
        hooks = [block.register_forward_hook(lambda _, __, y: outputs.append(y)) for block in blocks[: self.cnn_depth]]
        whole(x)
        for hook in hooks:
            hook.remove()
        return F.interpolate(torch.cat(outputs, 1), (self.side, self.side), mode="bilinear", align_corners=False)

    def forward(self, reference: Tensor, distorted: Tensor) -> Tensor:
        still, moved = (reference - 0.5) / 0.5, (distorted - 0.5) / 0.5
        still_tokens, head = self.tokens(still), self.regressor
        reduced = []
        for x in (moved, still):
            parts = [] if still_tokens is None else [self.tokens(x)]
            maps = self.maps(x)
            if maps is not None:
                if self.deformable:
                    offset = self.deform_net["conv_offset"](F.interpolate(still_tokens, size=maps.shape[-2:], mode="nearest"))
                    maps = self.deform_net["deform"](maps, offset)
                parts.append(self.deform_net["conv1"](maps))
            reduced.append(head["down_channel"](torch.cat(parts, 1)))
        d, r = reduced
        x = head["conv1"](head["feat_smoothing"](torch.cat([d - r, d, r], 1)))
        quality = head["conv"](x)
        if self.pooling == "mean":
            return quality.mean((2, 3)).squeeze(1)
        weight = head["conv_attent"](x)
        return ((quality * weight).sum((2, 3)) / weight.sum((2, 3))).squeeze(1)


@functools.cache
def by_rule(name: str, shape: tuple[int, ...]) -> Tensor:
    """The made-up weight of that name: equal on every machine, and the larger goldens' rule."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    z = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    last = name.rpartition(".")[2]
    if last == "running_var":
        z = 1 + np.float32(0.1) * np.abs(z)
    elif last == "running_mean":
        z = np.float32(0.1) * z
    elif last == "weight" and len(shape) == 1:
        z = 1 + np.float32(0.1) * z
    elif last in ("bias", "cls_token", "pos_embed"):
        z = np.float32(0.02) * z
    else:
        z = (z / np.sqrt(np.float32(math.prod(shape[1:])))).astype(np.float32)
    return torch.from_numpy(z)


def plain(settings: dict[str, Any]) -> Plain:
    """The literal network with the weights that `rule_state` gives to an AHIQ of the same settings."""
    model = Plain(settings)
    # What AHIQ does not use may stay as timm draws it, and must not matter.
    unused = (
        "resnet50.layer2",
        "resnet50.layer3",
        "resnet50.layer4",
        "inception.repeat_",
        "inception.mixed_6a",
        "inception.mixed_7a",
    )
    used = [k for k in model.state_dict() if not k.startswith(unused)]
    state = {k: by_rule(k, tuple(v.shape)) for k, v in model.state_dict().items() if k in used and v.is_floating_point()}
    model.load_state_dict(state, strict=False)
    return model


def rule_state(model: nn.Module) -> dict[str, Tensor]:
    """A state dict for the model, filled by rule."""
    return {k: by_rule(k, tuple(v.shape)) for k, v in model.state_dict().items() if v.is_floating_point()}


def crops(size: int, count: int, salt: str = "") -> tuple[Tensor, Tensor]:
    """`count` pairs of crops with structure, float32 in [0, 1], made by rule."""
    y, x = np.mgrid[0:size, 0:size] / 9.0
    still, moved = [], []
    for number in range(count):
        draw = np.random.RandomState(int.from_bytes(hashlib.sha256(f"{salt}{number}".encode()).digest()[:4], "little"))
        waves = [np.sin(x * draw.uniform(0.3, 2)) + np.cos(y * draw.uniform(0.3, 2) + c) for c in range(3)]
        image = np.stack(waves) * 50 + 128 + draw.uniform(-40, 40, (3, 1, 1))
        still.append(np.clip(np.round(image), 0, 255))
        moved.append(np.clip(np.round(image + draw.normal(0, 4 + 10 * number, image.shape)), 0, 255))
    return tuple(torch.from_numpy(np.stack(side).astype(np.float32)) / 255 for side in (still, moved))  # type: ignore[return-value]


def _write() -> None:
    from harness.models.ahiq.model import AHIQ

    scores = {}
    with torch.no_grad():
        for name, settings in {**SMALL, **ABLATIONS}.items():
            scores[name] = plain(settings)(*crops(settings["crop_size"], 4)).tolist()
        tiny = AHIQ(**TINY)
        tiny.load_state(rule_state(tiny))
        scores["tiny"] = tiny.score(*crops(TINY["crop_size"], 4)).tolist()
    GOLDEN.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write()
