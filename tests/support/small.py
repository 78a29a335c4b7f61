"""Small test data: images with structure, tables, cards and classes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

REFERENCES = 6
KINDS = ("noise", "fade")
LEVELS = 3


def picture(seed: int, height: int = 64, width: int = 80) -> np.ndarray:
    """A smooth coloured image with edges, (height, width, 3) uint8."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 16
    waves = [np.sin(x * draw.uniform(0.5, 2) + draw.uniform(0, 6)) + np.cos(y * draw.uniform(0.5, 2) * (c + 1)) for c in range(3)]
    image = np.stack(waves, axis=-1) * 50 + 128
    image[height // 4 : height // 2, width // 4 : width // 2] += draw.uniform(-60, 60, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


def distorted(image: np.ndarray, kind: str, level: int, seed: int) -> np.ndarray:
    if kind == "noise":
        noise = np.random.default_rng([seed, level]).normal(0, 6 * level**1.5, image.shape)
        return np.clip(image + noise, 0, 255).astype(np.uint8)
    return np.clip(image * (1 - 0.2 * level) + 128 * 0.2 * level, 0, 255).astype(np.uint8)


def write_table(
    folder: Path,
    references: int = REFERENCES,
    levels: int = LEVELS,
    height: int = 64,
    width: int = 80,
    order: list[int] | None = None,
) -> Path:
    """`folder/table.csv` over images in `folder`: references x kinds x levels, labels falling with the level."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for r in range(references):
        image = picture(r, height, width)
        Image.fromarray(image).save(folder / f"r{r}.png")
        for kind in KINDS:
            for level in range(1, levels + 1):
                name = f"r{r}_{kind}_{level}.png"
                Image.fromarray(distorted(image, kind, level, r)).save(folder / name)
                label = 5 - level - (0.3 if kind == "noise" else 0) + 0.05 * r
                part = "train" if r < references // 2 else "validation" if r < references // 2 + 1 else "test"
                rows.append([name, f"r{r}.png", label, f"r{r}", kind, level, part])
    rows = [rows[i] for i in order] if order else rows
    path = folder / "table.csv"
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["distorted", "reference", "score", "reference_id", "distortion", "level", "part"], *rows])
    return path


NETWORK = '''
import torch
from harness.models.base import Model, check_pair


class Small(Model, torch.nn.Module):
    """A few weights that can be trained in a second; counts its scores in nothing, remembers nothing."""

    def __init__(self, width=4):
        super().__init__()
        self.crop_size = 32
        self.filter = torch.nn.Conv2d(3, width, 5, stride=2)
        self.norm = torch.nn.BatchNorm2d(width)
        self.head = torch.nn.Linear(width, 1)
        self.drop = torch.nn.Dropout(0.1)

    def forward(self, reference, distorted):
        features = self.norm(self.filter(torch.cat([reference, distorted])))
        still, moved = features.chunk(2)
        return self.head(self.drop((still - moved).abs().mean((2, 3)))).flatten()

    def score(self, reference, distorted):
        check_pair(reference, distorted, self.crop_size)
        return self(reference, distorted)

    def load_state(self, state):
        self.load_state_dict(state)
'''

NETWORK_CARD = """
name = "small"
title = "A small network of the tests"
class = "small_network:Small"
higher_is_better = true

[model]
width = 4

[protocol]
crops = "five"

[recipe]
epochs = 6
steps_per_epoch = 10
optimizer = "adamw"
rate = 0.01
schedule = "cosine"
warmup = 0.1
clip = 1.0
batch_references = 2
batch_distorted = 3
flip = "both"
selection = "srcc-or-plcc"
"""


def write_network(folder: Path) -> Path:
    """A folder of cards with a trainable model of its own, its class next to its card."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small_network.py").write_text(NETWORK, encoding="utf-8")
    (folder / "small.toml").write_text(NETWORK_CARD, encoding="utf-8")
    return folder


def write_scores(folder: Path, seed: int = 0, *, shuffled: bool = False) -> Path:
    """Two members with independent errors on unlike scales, `slow` lower-is-better; 30 references of 8, half for validation.

    `shuffled`: the test part's labels are shuffled, and nothing else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    references = [f"r{i:02d}" for i in range(30) for _ in range(8)]
    names = [f"{r}_{i % 8}.png" for i, r in enumerate(references)]
    truth = draw.normal(size=len(names))
    labels = truth + draw.normal(0, 0.2, len(names))
    quick, slow = truth + draw.normal(0, 0.5, len(names)), np.exp(-truth + draw.normal(0, 0.5, len(names)))
    parts = ["validation" if int(r[1:]) < 15 else "test" for r in references]
    if shuffled:
        test = [i for i, part in enumerate(parts) if part == "test"]
        labels[test] = labels[np.random.default_rng(1).permutation(test)]
    rows = [("name", "score", "reference_id", "part"), *zip(names, map(repr, labels.tolist()), references, parts, strict=True)]
    for file, content in (
        ("people.csv", rows),
        ("quick.csv", [("name", "score"), *zip(names, map(repr, quick.tolist()), strict=True)]),
        ("slow.csv", [("name", "score"), *zip(names, map(repr, slow.tolist()), strict=True)]),
    ):
        with open(folder / file, "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows(content)
    return folder
