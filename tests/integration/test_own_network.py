"""A user's own network and loss: selection by validation, kills, and resuming to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import miniatures
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import write_network, write_table

from harness.cards.loading import find_dataset
from harness.cards.overrides import apply_set
from harness.engine.request import Request, make_plan
from harness.engine.run import run
from harness.models import find_model
from harness.models.identity import code_of
from harness.runtime.errors import UsageError

LOSS = '''
import torch


def ranked(predicted, target):
    """Squares, and the order of each pair."""
    order = torch.relu(0.1 - (predicted[:, None] - predicted) * torch.sign(target[:, None] - target)).mean()
    return torch.nn.functional.mse_loss(predicted, target) + 0.5 * order
'''

STEP = """

class Stepping(Small):
    def training_step(self, reference, distorted, index, target):
        return (self(reference[index], distorted) - target).abs().mean()
"""


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    folder = write_network(tmp_path / "cards")
    (folder / "ranking_loss.py").write_text(LOSS, encoding="utf-8")
    shipped = (folder / "small.toml").read_text(encoding="utf-8")
    own = shipped.replace('"small"', '"ranked"', 1).replace("[recipe]\n", '[recipe]\nloss = "ranking_loss:ranked"\n')
    (folder / "ranked.toml").write_text(own, encoding="utf-8")
    source = (folder / "small_network.py").read_text(encoding="utf-8")
    (folder / "small_network.py").write_text(source + STEP, encoding="utf-8")
    stepping = shipped.replace('"small"', '"stepping"', 1).replace(":Small", ":Stepping")
    (folder / "stepping.toml").write_text(stepping, encoding="utf-8")
    return folder


def words(model: str, table: Path, cards: Path, runs: Path) -> list[str]:
    command = [sys.executable, "-m", "harness", "run", model, "--dataset", str(table), "--protocol", "parts", "--json", "--quiet"]
    return [*command, "--cards", str(cards), "--runs", str(runs), "--mlflow-uri", "off"]


@pytest.mark.parametrize("model", ["ranked", "stepping"])
def test_a_killed_training_with_an_own_loss_ends_with_the_same_bits(cards: Path, tmp_path: Path, model: str):
    table = write_table(tmp_path / "data")
    environment = {**os.environ, "HARNESS_CACHE": str(tmp_path / "cache")}

    def start(runs: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(words(model, table, cards, runs), stdout=subprocess.PIPE, text=True, env=environment)

    whole = start(tmp_path / "whole")
    out, _ = whole.communicate(timeout=120)
    assert whole.returncode == 0
    cut = start(tmp_path / "cut")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "cut").rglob("checkpoint.safetensors")) and time.monotonic() < deadline and cut.poll() is None:
        time.sleep(0.01)
    cut.send_signal(signal.SIGKILL)
    cut.wait()
    again = start(tmp_path / "cut")
    resumed, _ = again.communicate(timeout=120)
    assert again.returncode == 0
    files = [next((tmp_path / place).rglob("weights.safetensors")).read_bytes() for place in ("whole", "cut")]
    assert files[0] == files[1]
    assert json.loads(out)[0]["srcc"] == json.loads(resumed)[0]["srcc"]


def test_an_own_loss_is_part_of_the_identity_of_what_is_trained(cards: Path):
    card = find_model("ranked", [str(cards)])
    before = code_of(card, trained=True)
    assert before["loss"]["class"] == "ranking_loss:ranked"
    assert "loss" not in code_of(card)
    (cards / "ranking_loss.py").write_text(LOSS.replace("0.5 * order", "0.4 * order"), encoding="utf-8")
    assert code_of(card, trained=True)["loss"] != before["loss"]


def test_no_setting_may_name_a_loss_that_is_code(cards: Path):
    with pytest.raises(UsageError, match=r"recipe\.loss: names code"):
        apply_set(find_model("small", [str(cards)]), {"recipe.loss": "os:system"})
    with pytest.raises(UsageError, match=r"loss = 'mes' is not one of mse, l1"):
        apply_set(find_model("small", [str(cards)]), {"recipe.loss": "mes"})


def test_a_selection_without_validation_is_refused_with_the_ways_out(cards: Path, tmp_path: Path):
    table = write_table(tmp_path / "data")
    text = table.read_text(encoding="utf-8").replace(",validation", ",test")
    table.write_text(text, encoding="utf-8")
    request = Request("small", str(table), protocol="parts", cards=(str(cards),), runs=str(tmp_path / "runs"), mlflow_uri="off")
    with pytest.raises(UsageError, match=r"no validation part.*recipe\.selection=last"):
        make_plan(request)
    done = run(Request(**{**request.__dict__, "settings": {"recipe.selection": "last", "recipe.epochs": "1"}}))
    assert done.record.training.best_epoch is None


def test_pipals_released_protocol_selects_by_the_challenges_validation_set(cards: Path, tmp_path: Path):
    root = tmp_path / "pipal"
    for place, reference in enumerate(miniatures.pipal_train_ids()[:4]):
        pixels = miniatures.still(reference, 36, 36)
        miniatures.write(root / "Train_Ref" / f"{reference}.bmp", pixels)
        names = [f"{reference}_0{kind}_00.bmp" for kind in range(3)]
        for step, name in enumerate(names):
            miniatures.write(root / f"Distortion_{1 + place}" / name, miniatures.noisy(pixels, 8 * (step + 1), name))
        miniatures.text(root / f"Train_Label/{reference}.txt", "".join(f"{n},{1600 - 150 * i}\n" for i, n in enumerate(names)))
    labels = []
    for dataset, part, place in (("pipal", "ntire2021-validation", "Val"), ("pipal-ntire2022", "test", "NTIRE2022_FR_Testing")):
        about = find_dataset(dataset).layout["parts"][part]
        for reference in about["references"]:
            pixels = miniatures.still(reference, 36, 36)
            miniatures.write(root / f"{place}_Ref" / f"{reference}.bmp", pixels)
            for kind in about["types"]:
                name = f"{reference}_10_{kind}.bmp"
                miniatures.write(root / f"{place}_Dis" / name, miniatures.noisy(pixels, 5 + int(kind) / 4, name))
                labels += [f"{name},{1500 - 5 * int(kind)}"] if place == "Val" else []
    settings = {"recipe.epochs": "2", "recipe.validation_crops": "random1"}
    request = Request(
        "small", "pipal", root=str(root), protocol="released", settings=settings, limit=20,
        cards=(str(cards),), runs=str(tmp_path / "runs"), mlflow_uri="off",
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"labels of the validation part of pipal \(released\) are missing.*Val_Label\.txt"):
        make_plan(request)
    (root / "Val_Label.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    done = run(request).record
    assert [entry["epoch"] for entry in done.history if "srcc" in entry] == [1, 2]
    assert done.training.best_epoch in (1, 2)
    assert done.metrics["test"] is None
    with pytest.raises(UsageError, match=r"no validation part: choose .*released"):
        make_plan(Request(**{**request.__dict__, "protocol": "val"}))


PART = """

class Parted(Small):
    def load_part(self, part, state):
        getattr(self, part).load_state_dict(state)
"""


def test_trained_weights_without_their_frozen_part_score_as_the_run_did(cards: Path, tmp_path: Path):
    source = (cards / "small_network.py").read_text(encoding="utf-8")
    (cards / "small_network.py").write_text(source + PART, encoding="utf-8")
    part = tmp_path / "filter.safetensors"
    draw = torch.Generator().manual_seed(1)
    save_file({"weight": torch.randn(4, 3, 5, 5, generator=draw), "bias": torch.zeros(4)}, part)
    text = (cards / "small.toml").read_text(encoding="utf-8").replace('"small"', '"parted"', 1).replace(":Small", ":Parted")
    text = text.replace("[recipe]\n", '[recipe]\nfrozen = ["filter"]\n')
    text += f'\n[[weights]]\nname = "filter"\nfile = "filter.safetensors"\nsources = ["{part.as_uri()}"]\n'
    (cards / "parted.toml").write_text(text, encoding="utf-8")
    table = write_table(tmp_path / "data")
    places = {"cards": (str(cards),), "runs": str(tmp_path / "runs"), "mlflow_uri": "off"}
    trained = run(Request("parted", str(table), protocol="parts", settings={"recipe.epochs": "1"}, **places))
    own = trained.folder / "weights.safetensors"
    assert {key.partition(".")[0] for key in load_file(own)} == {"norm", "head"}
    tested = run(Request("parted", str(table), protocol="parts", weights=str(own), **places))
    rows = [line for line in (trained.folder / "scores.csv").read_text().splitlines() if line.endswith(",test")]
    assert rows
    assert [line for line in (tested.folder / "scores.csv").read_text().splitlines() if line.endswith(",test")] == rows
    # Over another part the same heads would give other scores without a word.
    save_file({"weight": torch.randn(4, 3, 5, 5, generator=draw), "bias": torch.zeros(4)}, part)
    (cards / "parted.toml").write_text(text.replace("filter.safetensors", "other.safetensors", 1), encoding="utf-8")
    with pytest.raises(UsageError, match=r"was trained with other weights of filter"):
        make_plan(Request("parted", str(table), protocol="parts", weights=str(own), **places))
