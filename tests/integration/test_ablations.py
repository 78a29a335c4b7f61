"""AHIQ's ablations as tiny cards: each trains, is cut off, resumes to the same bits, and scores on a small dataset."""

from __future__ import annotations

from pathlib import Path

import pytest
from small import write_table

from harness.cards.loading import load_cards
from harness.engine.request import Request
from harness.engine.run import run
from harness.engine.trainer import Trainer
from harness.models import find_model

TINY = Path(find_model("ahiq-tiny").path).read_text(encoding="utf-8")
SETTINGS = {
    "ahiq-no-deform": "deformable = false",
    "ahiq-cnn": 'trunks = "cnn"\ndeformable = false',
    "ahiq-vit": 'trunks = "vit"\ndeformable = false',
    "ahiq-mean": 'pooling = "mean"',
    "ahiq-inception": 'cnn = "inception"',
}


class Stopped(BaseException):
    pass


@pytest.mark.parametrize("name", SETTINGS)
def test_each_ablation_trains_resumes_and_scores(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cards = tmp_path / "cards"
    cards.mkdir()
    text = TINY.replace('"ahiq-tiny"', '"tiny"', 1).replace("[protocol]", f"{SETTINGS[name]}\n\n[protocol]", 1)
    if name == "ahiq-inception":  # its stem needs 75 pixels at least
        text = text.replace("crop_size = 48", "crop_size = 96")
    (cards / "tiny.toml").write_text(text, encoding="utf-8")
    table = write_table(tmp_path / "data", levels=1, height=100, width=100)
    values = {"epochs": "2", "steps_per_epoch": "2", "batch_references": "1", "batch_distorted": "2"}

    def asked(runs: str) -> Request:
        settings = {f"recipe.{key}": value for key, value in values.items()}
        places = {"cards": (str(cards),), "runs": str(tmp_path / runs), "mlflow_uri": "off"}
        return Request("tiny", str(table), protocol="parts", settings=settings, **places)

    whole = run(asked("whole"))
    assert whole.record.metrics["test"].n == 4
    update = Trainer._step

    def until(self, optimizer, trainable, step, batch):
        if step == 3:
            raise Stopped
        return update(self, optimizer, trainable, step, batch)

    monkeypatch.setattr(Trainer, "_step", until)
    with pytest.raises(Stopped):
        run(asked("cut"))
    monkeypatch.setattr(Trainer, "_step", update)
    again = run(asked("cut"))
    for file in ("weights.safetensors", "scores.csv"):
        assert (again.folder / file).read_bytes() == (whole.folder / file).read_bytes()


def test_every_ablation_has_a_card_that_names_its_weights():
    known = load_cards("models")
    for name in (*SETTINGS, "ahiq-resnet152", "ahiq-p16"):
        card = known[name]
        assert card.recipe is not None
        assert {w.name for w in card.weights if w.use == "always"} == set(card.recipe.frozen)
        assert all(w.tag and w.sources for w in card.weights)
