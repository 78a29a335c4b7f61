"""AHIQ written down a second time, literally and slowly, from timm's and torchvision's parts; and weights filled by rule.

python tests/plain_ahiq.py          # writes ahiq_small.json, the small golden scores, anew
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


class Plain(nn.Module):
    """The released code's forward, over whole backbones; `settings` as AHIQ's, with its ResNet-50 trunk."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        width, depth, patch = settings["vit_width"], settings["vit_depth"], settings["patch_size"]
        self.vit = VisionTransformer(
            settings["crop_size"], patch, embed_dim=width, depth=depth + 2, num_heads=settings["vit_heads"], num_classes=10
        )
        self.resnet50 = timm.create_model("resnet50", pretrained=False)
        reduced, wide, narrow, last = settings["head_widths"]
        hidden = settings["fusion_width"]
        self.depth = depth
        self.deform_net = nn.ModuleDict(
            {
                "conv_offset": nn.Conv2d(width * depth, 18, 3, 1, 1),
                "deform": torchvision.ops.DeformConv2d(768, 768, 3, 1, 1),
                "conv1": nn.Sequential(
                    nn.Conv2d(768, hidden, 3, 2, 1), nn.ReLU(), nn.Conv2d(hidden, 768, 3, 1 if patch == 8 else 2, 1)
                ),
            }
        )
        self.regressor = nn.ModuleDict(
            {
                "down_channel": nn.Conv2d(width * depth + 768, reduced, 1),
                "feat_smoothing": nn.Sequential(
                    nn.Conv2d(3 * reduced, wide, 3, 1, 1), nn.ReLU(), nn.Conv2d(wide, narrow, 3, 1, 1)
                ),
                "conv1": nn.Sequential(nn.Conv2d(narrow, last, 3, 1, 1), nn.ReLU()),
                "conv": nn.Sequential(nn.Conv2d(last, 1, 1)),
                "conv_attent": nn.Sequential(nn.Conv2d(last, 1, 1), nn.Sigmoid()),
            }
        )
        self.eval()

    def trunks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = (x - 0.5) / 0.5
        tokens: list[Tensor] = []
        maps: list[Tensor] = []
        hooks = [block.register_forward_hook(lambda _, __, y: tokens.append(y)) for block in self.vit.blocks]
        hooks += [block.register_forward_hook(lambda _, __, y: maps.append(y)) for block in self.resnet50.layer1]
        self.vit(x)
        self.resnet50(x)
        for hook in hooks:
            hook.remove()
        joined = torch.cat([t[:, 1:] for t in tokens[: self.depth]], 2).transpose(1, 2)
        side = math.isqrt(joined.shape[2])
        return joined.reshape(len(x), -1, side, side), torch.cat(maps, 1)

    def forward(self, reference: Tensor, distorted: Tensor) -> Tensor:
        still, still_maps = self.trunks(reference)
        moved, moved_maps = self.trunks(distorted)
        net, head = self.deform_net, self.regressor
        reduced = []
        for tokens, maps in ((moved, moved_maps), (still, still_maps)):
            offset = net["conv_offset"](F.interpolate(still, size=maps.shape[-2:], mode="nearest"))
            reduced.append(head["down_channel"](torch.cat([tokens, net["conv1"](net["deform"](maps, offset))], 1)))
        d, r = reduced
        x = head["conv1"](head["feat_smoothing"](torch.cat([d - r, d, r], 1)))
        quality, weight = head["conv"](x), head["conv_attent"](x)
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
    used = [k for k in model.state_dict() if not k.startswith(("resnet50.layer2", "resnet50.layer3", "resnet50.layer4"))]
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
        for name, settings in SMALL.items():
            scores[name] = plain(settings)(*crops(settings["crop_size"], 4)).tolist()
        tiny = AHIQ(**TINY)
        tiny.load_state(rule_state(tiny))
        scores["tiny"] = tiny.score(*crops(TINY["crop_size"], 4)).tolist()
    GOLDEN.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write()
