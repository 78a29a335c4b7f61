"""Several runs of one command over the same pairs: images are decoded once, records equal those of separate runs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from small import write_table

from harness.engine.request import Request, make_plan
from harness.engine.run import Outcome, execute
from harness.engine.run_all import run_all
from harness.engine.scoring import Together
from harness.files.lock import held
from harness.imaging import decode
from harness.results.run_scores import ScoreFile
from harness.runtime.errors import HarnessError

MODELS = ("psnr", "ssim", "ssim-rgb")


@pytest.fixture
def table(tmp_path: Path) -> str:
    return str(write_table(tmp_path / "data", references=3, levels=3))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each image is decoded to be scored; not for the time that a warm model takes."""
    counts: Counter[str] = Counter()
    read = decode.read_hashed

    def counted(path: str) -> decode.Decoded:
        counts[Path(path).name] += 1
        return read(path)

    monkeypatch.setattr(decode, "read_hashed", counted)
    monkeypatch.setattr("harness.engine.scorer.Scorer.seconds_per_image", lambda self, chunks: 1.0)
    return counts


def request(model: str, table: str, runs: Path, **more: object) -> Request:
    return Request(model, table, protocol="full", runs=str(runs), mlflow_uri="off", batch=2, **more)


def run(models: tuple[str, ...], table: str, runs: Path, **more: object) -> tuple[list[Outcome], list[HarnessError]]:
    return run_all([request(model, table, runs, **more) for model in models])


def files(outcome: Outcome) -> list[bytes]:
    return [(outcome.folder / name).read_bytes() for name in ("scores.csv", "pictures.csv", "state.json")]


@pytest.mark.slow
def test_every_image_is_decoded_once_for_all_metrics_of_a_command(table: str, tmp_path: Path, decoded: Counter[str]):
    outcomes, faults = run(MODELS, table, tmp_path / "runs")
    assert [outcome.record.model for outcome in outcomes] == list(MODELS)
    assert not faults
    assert set(decoded.values()) == {1}
    assert {f"r{n}.png" for n in range(3)} < set(decoded)


@pytest.mark.slow
def test_records_are_those_of_runs_of_their_own(table: str, tmp_path: Path):
    own_times = {"created", "seconds", "pairs_per_second", "runtime_per_image"}
    together, _ = run(MODELS, table, tmp_path / "together")
    for outcome in together:
        (alone,), _ = run((outcome.record.model,), table, tmp_path / "alone")
        assert files(outcome) == files(alone)
        one, other = (json.loads((o.folder / "record.json").read_text(encoding="utf-8")) for o in (outcome, alone))
        assert {k: v for k, v in one.items() if k not in own_times} == {k: v for k, v in other.items() if k not in own_times}
        assert all(one[k] > 0 for k in own_times - {"created"})


@pytest.mark.slow
def test_identical_pairs_are_counted_in_every_record(tmp_path: Path):
    table = write_table(tmp_path / "data", references=2, levels=2)
    for path in table.parent.glob("r0_noise_*"):
        path.write_bytes((table.parent / "r0.png").read_bytes())
    outcomes, _ = run(("ssim", "psnr"), str(table), tmp_path / "runs")
    assert [outcome.record.identical_pairs for outcome in outcomes] == [0, 2]


@pytest.mark.slow
def test_a_command_cut_off_goes_on_for_every_metric(
    table: str, tmp_path: Path, decoded: Counter[str], monkeypatch: pytest.MonkeyPatch
):
    append, calls = ScoreFile.append, 0

    def cut_off(self: ScoreFile, *words: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 9:  # three chunks of three runs
            raise KeyboardInterrupt
        append(self, *words)

    with monkeypatch.context() as patch:
        patch.setattr(ScoreFile, "append", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(MODELS, table, tmp_path / "runs")
    kept = [path.read_text(encoding="utf-8").split() for path in sorted((tmp_path / "runs").glob("*/*/*/scores.csv"))]
    assert [len(lines) for lines in kept] == [1 + 6] * 3
    decoded.clear()
    outcomes, _ = run(MODELS, table, tmp_path / "runs")
    done = {line.split(",")[0] for line in kept[0][1:]}
    assert not done & set(decoded)
    assert set(decoded.values()) == {1}
    assert [files(o) for o in outcomes] == [files(o) for o in run(MODELS, table, tmp_path / "undisturbed")[0]]


@pytest.mark.slow
def test_a_metric_that_fails_is_reported_in_its_own_turn_and_stops_no_other(table: str, tmp_path: Path):
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "fails.py").write_text(
        "class Fails:\n"
        "    higher_is_better = True\n"
        "    def score(self, reference, distorted): raise NotImplementedError\n"
        "    def score_uint8(self, reference, distorted):\n"
        "        return float('nan') if distorted.std() < 40 else 1.0\n"
    )
    card = 'name = "fails"\ntitle = "Fails"\nclass = "fails:Fails"\nhigher_is_better = true\n'
    (tmp_path / "cards" / "fails.toml").write_text(card)
    outcomes, faults = run(("psnr", "fails", "ssim"), table, tmp_path / "runs", cards=(str(tmp_path / "cards"),))
    assert [outcome.record.model for outcome in outcomes] == ["psnr", "ssim"]
    assert [str(fault)[:5] for fault in faults] == ["fails"]


@pytest.mark.slow
def test_a_run_that_another_process_holds_is_left_to_its_own_turn(table: str, tmp_path: Path):
    together = Together()
    together.coming = [held_elsewhere, free] = [
        make_plan(request(model, table, tmp_path / "runs")) for model in ("ssim", "ssim-rgb")
    ]
    held_elsewhere.folder.mkdir(parents=True)
    with held(held_elsewhere.folder / "lock"):
        execute(make_plan(request("psnr", table, tmp_path / "runs")), together)
    assert not (held_elsewhere.folder / "scores.csv").exists()
    assert (free.folder / "scores.csv").exists()
