from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from small import write_network, write_table

from harness.cards.overrides import apply_set
from harness.cards.schema import Protocol
from harness.datasets import load_dataset, splits
from harness.engine.scorer import pairs_of
from harness.engine.trainer import LOG, WEIGHTS, Trainer
from harness.models import find_model, load_model
from harness.models.weights import left_out, needed_parts
from harness.models.weights.checkpoint import read_state
from harness.runtime.errors import RunError, UsageError

pytestmark = pytest.mark.slow  # its tests train, or start commands


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("world")
    cards = write_network(folder / "cards")
    return load_dataset(str(write_table(folder / "data"))), cards


def trainer(world, folder: Path, seed: int = 0, model=None, **settings: object) -> Trainer:
    data, cards = world
    card = apply_set(find_model("small", [cards]), {f"recipe.{k}": v for k, v in settings.items()})
    parts = splits.split(data.table, Protocol(split="parts"))
    train, validation = data.table[parts == "train"], data.table[parts == "validation"]
    folder.mkdir(exist_ok=True)
    model = model or load_model("small", cards=[cards], seed=seed).model
    labels = [rows["score"].to_numpy() for rows in (train, validation)]
    assert card.recipe is not None
    return Trainer(
        model,
        card.recipe,
        train,
        labels[0],
        (pairs_of(validation), labels[1]),
        32,
        folder,
        seed=seed,
    )


def weights(folder: Path) -> bytes:
    return (folder / WEIGHTS).read_bytes()


def test_training_lowers_the_loss_and_logs_every_epoch(world, tmp_path: Path):
    result = trainer(world, tmp_path / "a", rate=0.03, selection="last", epochs=12).train()
    entries = [json.loads(line) for line in (tmp_path / "a" / LOG).read_text().splitlines()]
    assert [e["epoch"] for e in entries] == list(range(1, 13))
    assert entries[-1]["loss"] < 0.7 * entries[0]["loss"]
    assert all(-1 <= e["srcc"] <= 1 for e in entries)
    assert result.steps == 120


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(world, tmp_path: Path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(name) + seed * 7)
        trainer(world, tmp_path / name, seed).train()
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert weights(tmp_path / "a") != weights(tmp_path / "c")


def test_global_generators_are_left_as_they_were(world, tmp_path: Path):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    trainer(world, tmp_path / "a").train()
    assert torch.equal(before, torch.random.get_rng_state())


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", [1, 9, 10, 11, 25, 59])
def test_a_run_cut_off_at_any_step_ends_with_the_bits_of_an_undisturbed_one(world, tmp_path: Path, monkeypatch, step: int):
    trainer(world, tmp_path / "whole").train()
    monkeypatch.setattr("harness.engine.trainer._SECONDS_BETWEEN_CHECKPOINTS", 0.02)
    cut = trainer(world, tmp_path / "cut")
    update = cut._step

    def until(optimizer, trainable, number, *batch):
        if number == step:
            raise Killed
        return update(optimizer, trainable, number, *batch)

    monkeypatch.setattr(cut, "_step", until)
    with pytest.raises(Killed):
        cut.train()
    trainer(world, tmp_path / "cut").train()
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert (tmp_path / "cut" / LOG).read_text() == (tmp_path / "whole" / LOG).read_text()


def test_batches_are_the_same_however_many_are_decoded_side_by_side(world, tmp_path: Path):
    plan = trainer(world, tmp_path)

    def every(threads: int) -> list[Any]:
        plan.batches.drawn, plan.batches.decoded.kept = (-1, []), OrderedDict()
        return list(plan.batches.ahead(2, 9, lambda groups: range(len(groups)), threads=threads))

    one, many = every(1), every(4)
    assert [step for step, _ in one] == [step for step, _ in many] == list(range(2, 9))
    for (_, a), (_, b) in zip(one, many, strict=True):
        assert torch.equal(a.reference, b.reference)
        assert torch.equal(a.distorted, b.distorted)
        assert torch.equal(a.target, b.target)


def test_batches_are_pinned_for_a_gpu_alone(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    taken: list[int] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: taken.append(1) or tensor)
    plan = trainer(world, tmp_path)
    for pinned in (False, True):
        taken.clear()
        list(plan.batches.ahead(0, 2, lambda groups: range(len(groups)), pinned=pinned))
        assert len(taken) == (8 if pinned else 0)


def test_every_pair_is_seen_once_in_a_pass_and_batches_mix_references(world, tmp_path: Path):
    plan = trainer(world, tmp_path)
    rows = [row for n in range(plan.batches.per_pass) for group in plan.batches.groups(n) for row in group.rows]
    assert sorted(rows) == list(range(18))
    assert plan.batches.groups(0) != plan.batches.groups(plan.batches.per_pass)


def test_images_of_a_group_share_the_crop_and_flip_of_their_reference(world, tmp_path: Path):
    plan = trainer(world, tmp_path)
    plan.batches.pairs = [(reference, reference) for reference, _ in plan.batches.pairs]
    batch = plan.batches.batch(3, plan.batches.groups(3), lambda groups: range(len(groups)))
    still, moved, index = batch.reference, batch.distorted, batch.index
    assert torch.equal(still[index], moved)
    assert still.shape[-2:] == (32, 32)


def test_cosine_restarts_follow_torchs_scheduler(world, tmp_path: Path):
    plan = trainer(world, tmp_path, schedule="cosine-restarts", period=50, warmup=0.0, epochs=12)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=plan.recipe.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0)
    for step in range(120):
        assert plan.rate(step) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()


def test_warmup_rises_and_cosine_ends_near_nothing(world, tmp_path: Path):
    plan = trainer(world, tmp_path)
    rates = [plan.rate(s) for s in range(plan.steps)]
    assert rates[:6] == pytest.approx([0.01 * (i + 1) / 6 for i in range(6)])
    assert rates[6] == pytest.approx(0.01)
    assert rates[-1] < 1e-4


def test_frozen_parts_keep_their_bits_and_an_unknown_part_is_named(world, tmp_path: Path):
    plan = trainer(world, tmp_path / "a", frozen="filter,norm")
    before = {k: v.clone() for k, v in plan.model.state_dict().items() if not k.startswith("head")}
    plan.train()
    assert all(torch.equal(v, plan.model.state_dict()[k]) for k, v in before.items())
    with pytest.raises(UsageError, match="trunk"):
        trainer(world, tmp_path / "b", frozen="trunk").train()
    with pytest.raises(UsageError, match="freezes every parameter"):
        trainer(world, tmp_path / "c", frozen="filter,norm,head").train()


def test_a_loss_that_is_no_number_stops_the_run_with_advice(world, tmp_path: Path):
    with pytest.raises(RunError, match=r"step \d+; try a lower learning rate"):
        trainer(world, tmp_path, rate=1e30, optimizer="sgd", clip=0.0).train()


def test_selection_keeps_the_epoch_that_was_best_on_validation_alone(world, tmp_path: Path, monkeypatch):
    plan = trainer(world, tmp_path, selection="srcc")
    figures = iter([0.1, 0.6, 0.3, 0.5, 0.2, 0.4])
    monkeypatch.setattr(plan, "_validate", lambda *a: (lambda v: {"srcc": v, "plcc": v, "main": 2 * v})(next(figures)))
    assert plan.train().best_epoch == 2


def test_patience_ends_training_and_a_resumed_run_ends_alike(world, tmp_path: Path, monkeypatch):
    seen: list[int] = []
    plan = trainer(world, tmp_path, selection="srcc", patience=2)
    figures = iter([0.1, 0.6, 0.3, 0.5, 0.2, 0.4])

    def validate(*_):
        seen.append(1)
        value = next(figures)
        return {"srcc": value, "plcc": value, "main": 2 * value}

    monkeypatch.setattr(plan, "_validate", validate)
    result = plan.train()
    assert (result.best_epoch, result.epochs, result.steps) == (2, 4, 40)
    assert len(seen) == 4
    before = weights(tmp_path)
    # Taken up again, it is finished: no step is added.
    again = trainer(world, tmp_path, selection="srcc", patience=2)
    monkeypatch.setattr(again, "_step", lambda *a: pytest.fail("a step after the end"))
    assert again.train().steps == 40
    assert weights(tmp_path) == before


def test_several_crops_of_an_image_are_one_batch(world, tmp_path: Path):
    one, two = trainer(world, tmp_path, crops=1), trainer(world, tmp_path, crops=2)
    first, both = (t.batches.batch(3, t.batches.groups(3), lambda groups: range(len(groups))) for t in (one, two))
    assert len(both.reference) == 2 * len(first.reference)
    assert len(both.target) == 2 * len(first.target) == two.batches.rows(3)
    assert sorted(both.target.tolist()) == sorted(first.target.tolist() * 2)
    # The first draws are those of a batch with one crop.
    assert torch.equal(both.reference[0], first.reference[0])
    assert trainer(world, tmp_path / "two", crops=2, epochs=1).train().steps == 10


def test_bf16_training_differs_from_fp32_and_repeats(world, tmp_path: Path):
    for name, precision in (("a", "bf16"), ("b", "bf16"), ("c", "fp32")):
        trainer(world, tmp_path / name, precision=precision, epochs=1, selection="last").train()
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


def test_the_estimate_counts_validation_and_names_the_shorter_ways(world, tmp_path: Path, monkeypatch, logged):
    plan = trainer(world, tmp_path)
    monkeypatch.setattr(plan, "_seconds_to_validate", lambda: 4000.0)
    plan._estimate(10.0, 8)
    # 52 steps of 10 s and six validations of 4,000 s.
    assert "about 6 h 48 min" in logged[0]
    assert "6 validations of 1 h 06 min" in logged[0]
    for way in ("recipe.epochs=N", "recipe.validate_every", "recipe.patience", "recipe.precision=bf16"):
        assert way in logged[0]
    monkeypatch.setattr(plan, "_seconds_to_validate", lambda: 0.0)
    plan._estimate(0.001, 8)
    assert "about 1 s" in logged[1]


def test_frozen_parts_from_files_are_left_out_of_the_weights(world, tmp_path: Path):
    plan = trainer(world, tmp_path, frozen="filter,norm", epochs=1)
    plan.from_files = {"filter": "0" * 64}
    plan.train()
    held = read_state(tmp_path / WEIGHTS)
    assert {key.partition(".")[0] for key in held} == {"norm", "head"}
    assert left_out(tmp_path / WEIGHTS) == {"filter": "0" * 64}
    assert needed_parts(tmp_path / WEIGHTS, ["filter", "vit"]) == ("filter",)
