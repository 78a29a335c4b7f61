"""AHIQ's scores at full size against golden values, which lie next to the checkout (skipped without them).

By default a few of the fifty crops are scored, to keep the tests short; HARNESS_ALL_CROPS=1 scores every one.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from plain_ahiq import by_rule
from torch import Tensor

from harness.models.ahiq.model import AHIQ

ALL = bool(os.environ.get("HARNESS_ALL_CROPS"))
NAMES = ("I03.bmp", "I04.bmp", "I06.bmp", "I08.bmp", "I19.bmp")
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ahiq-golden")]


@functools.lru_cache(maxsize=1)
def network(patch: int) -> AHIQ:
    model = AHIQ(patch_size=patch).eval()
    # A cache of the weights themselves would hold them twice.
    model.load_state({k: by_rule.__wrapped__(k, tuple(v.shape)) for k, v in model.state_dict().items()})
    return model


@functools.lru_cache(maxsize=1)
def golden(shared: Path, patch: int) -> Any:
    return json.loads((shared / "golden" / f"ahiq_p{patch}.json").read_text(encoding="utf-8"))


def cut(shared: Path, name: str, places: list[list[int]]) -> tuple[Tensor, Tensor]:
    sides = []
    for side in ("reference", "distorted"):
        with Image.open(shared / "data" / "tid2013-pairs" / side / name) as picture:
            pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 255
        sides.append(torch.stack([pixels[:, top : top + 224, left : left + 224] for top, left in places]))
    return sides[0], sides[1]


@pytest.fixture(scope="module", autouse=True)
def freed() -> Iterator[None]:
    yield
    network.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patch", "name"), [(8, n) for n in (NAMES if ALL else NAMES[::2])] + [(16, n) for n in (NAMES if ALL else NAMES[-1:])]
)
def test_crops_score_as_in_the_released_code(shared: Path, patch: int, name: str):
    expected = golden(shared, patch)["pairs"][name]
    number = NAMES.index(name)
    chosen = range(5) if ALL else [number]
    places = [expected["crops_top_left"][i] for i in chosen]
    scores = network(patch).score(*cut(shared, name, places))
    assert scores.tolist() == pytest.approx([expected["scores"][i] for i in chosen], abs=1e-5)
    if ALL:
        assert float(scores.double().mean()) == pytest.approx(expected["mean"], abs=1e-5)


@pytest.mark.slow
def test_the_first_two_losses_of_the_released_training_are_met(shared: Path):
    reported = golden(shared, 16)["train"]
    pairs = [cut(shared, name, [[384 - 224, 512 - 224]]) for name in reported["batch"]]
    reference, distorted = (torch.cat(side) for side in zip(*pairs, strict=True))
    labels = torch.tensor(reported["labels"])
    model = network(16)
    for trunk in (model.vit, model.resnet50):
        trunk.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0)
    model.train()
    scores = model(reference, distorted)
    loss = F.mse_loss(scores, labels)
    assert scores.tolist() == pytest.approx(reported["steps"][0]["pred"], abs=1e-5)
    assert loss.item() == pytest.approx(reported["steps"][0]["loss"], rel=1e-3)
    loss.backward()
    optimizer.step()
    schedule.step()
    assert schedule.get_last_lr()[0] == pytest.approx(reported["steps"][0]["lr_after"], rel=1e-6)
    with torch.no_grad():
        scores = model(reference, distorted)
    assert F.mse_loss(scores, labels).item() == pytest.approx(reported["steps"][1]["loss"], rel=1e-3)
    network.cache_clear()
