from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small import write_network, write_table

from harness.engine.request import Request
from harness.engine.run import run
from harness.engine.verify import verify
from harness.runtime.errors import UsageError

pytestmark = pytest.mark.slow  # its tests train, or start commands


class World:
    def __init__(self, folder: Path, model: str) -> None:
        self.folder, self.data = folder, folder / "data"
        self.table = write_table(self.data, references=4)
        self.cards = write_network(folder / "cards")
        request = Request(
            model,
            str(self.table),
            protocol="parts",
            cards=(str(self.cards),),
            runs=str(folder / "runs"),
            mlflow_uri="off",
        )
        self.record = run(request).folder

    def verify(self, **options):
        return verify(self.record, cards=[str(self.cards)], **options)

    def kinds(self, **options) -> list[str]:
        return [finding.what for finding in self.verify(**options).findings]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    return {model: World(tmp_path_factory.mktemp(model), model).folder for model in ("psnr", "small")}


@pytest.fixture(params=["psnr", "small"])
def world(request, made, tmp_path: Path) -> World:
    """A world of one's own to damage; the table's path is in the record, so the copy takes the original's place."""
    original = made[request.param]
    shutil.copytree(original, tmp_path / "kept")
    world = World.__new__(World)
    world.folder, world.data, world.table, world.cards = (
        original,
        original / "data",
        original / "data" / "table.csv",
        original / "cards",
    )
    (world.record,) = (p.parent for p in (original / "runs").rglob("record.json"))
    yield world
    shutil.rmtree(original)
    shutil.copytree(tmp_path / "kept", original)


def test_an_untouched_record_repeats_bit_for_bit(world: World):
    verdict = world.verify()
    assert verdict.findings == ()
    assert verdict.checked > 0
    assert verdict.remarks == ()


def test_a_sample_scores_whole_chunks_and_fewer_images(world: World):
    assert world.verify(sample=1).ok


def test_a_changed_image_is_named(world: World):
    path = world.data / "r3_fade_2.png"
    pixels = np.array(Image.open(path))
    pixels[5, 5, 0] ^= 1
    Image.fromarray(pixels).save(path)
    verdict = world.verify()
    assert "pictures" in [f.what for f in verdict.findings]
    assert "r3_fade_2.png" in verdict.findings[0].text
    (world.record / "pictures.csv").unlink()
    assert any("r3" in f.text for f in world.verify().findings if f.what == "pictures")


def test_a_changed_label_is_named(world: World):
    rows = list(csv.reader(world.table.open(encoding="utf-8")))
    rows[-1][2] = str(float(rows[-1][2]) + 0.125)
    with world.table.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    assert world.kinds() == ["labels"]


def test_a_changed_score_or_figure_is_named(world: World):
    scores = world.record / "scores.csv"
    text = scores.read_text()
    scores.write_text(text.replace("1", "2", 1) if "1" in text.splitlines()[1] else text.replace("5", "6", 1))
    assert "scores" in world.kinds()
    scores.write_text(text)
    record = json.loads((world.record / "record.json").read_text())
    record["metrics"]["test"]["srcc"] += 0.01
    (world.record / "record.json").write_text(json.dumps(record))
    assert world.kinds() == ["metrics"]


def test_a_changed_card_is_named(tmp_path: Path):
    world = World(tmp_path, "small")
    card = world.cards / "small.toml"
    card.write_text(card.read_text().replace("rate = 0.01", "rate = 0.02"))
    verdict = world.verify()
    assert [f.what for f in verdict.findings] == ["card"]
    assert "recipe.rate was 0.01, is 0.02" in verdict.findings[0].text


def test_a_changed_weight_is_named_and_lost_weights_are_trained_again(tmp_path: Path):
    world = World(tmp_path, "small")
    weights = world.record / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    weights.unlink()
    assert world.verify().ok
    data[-1] ^= 1
    weights.write_bytes(data)
    assert "weights" in world.kinds()


def test_lost_weights_leave_only_the_scores_unchecked(tmp_path: Path):
    """Without training lost weights leave the scores unchecked and all else checked."""
    world = World(tmp_path, "small")
    (world.record / "weights.safetensors").unlink()
    verdict = world.verify(train=False)
    assert (verdict.ok, verdict.checked) == (True, 0)
    assert "not checked" in verdict.remarks[0]
    path = world.data / "r3_fade_2.png"
    pixels = np.array(Image.open(path))
    pixels[5, 5, 0] ^= 1
    Image.fromarray(pixels).save(path)
    assert "pictures" in world.kinds(train=False)


def test_a_changed_image_that_was_trained_on_is_named(tmp_path: Path):
    world = World(tmp_path, "small")
    path = world.data / "r0_fade_2.png"
    pixels = np.array(Image.open(path))
    pixels[5, 5, 0] ^= 1
    Image.fromarray(pixels).save(path)
    verdict = world.verify()
    assert [f.what for f in verdict.findings] == ["pictures"]
    assert "training images of 1 references have changed: r0" in verdict.findings[0].text


def test_a_new_training_under_other_conditions_is_judged_by_its_figures(tmp_path: Path):
    world = World(tmp_path, "small")
    (world.record / "weights.safetensors").unlink()
    record = json.loads((world.record / "record.json").read_text())
    record["conditions"]["libraries"]["numpy"] = "1.0"
    (world.record / "record.json").write_text(json.dumps(record))
    verdict = world.verify()
    assert verdict.findings == ()
    assert "where bits are not expected to repeat: scores differ by up to 0;" in verdict.remarks[0]
    record["metrics"]["test"] |= {"ci": {"srcc": [0.9999, 1.0], "plcc": None}}
    figures = record["metrics"]["test"]
    (world.record / "record.json").write_text(json.dumps(record))
    assert figures["srcc"] < 0.9999
    assert world.kinds() == ["scores"]


def test_other_conditions_are_remarked_and_judged_within_the_tolerance(world: World):
    record = json.loads((world.record / "record.json").read_text())
    record["conditions"]["libraries"]["numpy"] = "1.0"
    (world.record / "record.json").write_text(json.dumps(record))
    verdict = world.verify()
    assert verdict.ok
    assert "numpy was 1.0" in verdict.remarks[0]


def test_a_folder_without_a_record_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match=r"no record\.json"):
        verify(tmp_path)
