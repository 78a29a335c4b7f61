"""Claims of docs/reliability.md that need no soak: no secrets in records, changed versions, repeated bits."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from small import write_network, write_table

from harness.cards.schema import Cropping
from harness.datasets.archives import unpack
from harness.engine import verify
from harness.engine.request import Plan, Request
from harness.engine.run import run
from harness.engine.run_all import run_all
from harness.engine.scorer import Pair, Scorer
from harness.files.download import DownloadFailed, download
from harness.runtime.errors import RunError, Unwritable, UsageError


def test_no_secret_of_the_environment_or_of_an_address_gets_into_what_a_run_leaves(tmp_path: Path):
    table = write_table(tmp_path / "däta mit Leerzeichen", references=2, levels=2)
    secret = "planted-4f1c9e"
    environment = {**os.environ, "HF_TOKEN": secret, "MLFLOW_TRACKING_TOKEN": secret, "AWS_SECRET_ACCESS_KEY": secret}
    words = ["run", "psnr", "--dataset", str(table), "--runs", "läufe hier", "--debug"]
    words += ["--mlflow-uri", f"sqlite:///{tmp_path / 'mlflow ü.db'}?token={secret}"]
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert secret not in done.stdout + done.stderr
    left = [path for path in tmp_path.rglob("*") if path.is_file() and "report.html" not in path.name]
    assert {"record.json", "scores.csv", "state.json"} <= {path.name for path in left}
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_stops_the_record_and_names_its_images(tmp_path: Path, value: float):
    write_table(tmp_path, references=1, levels=2)

    class Broken:
        higher_is_better = True

        def score_uint8(self, reference: np.ndarray, distorted: np.ndarray) -> float:
            return value if distorted.std() < reference.std() else 1.0

    pairs = [Pair(f"r0_{k}_1.png", str(tmp_path / f"r0_{k}_1.png"), str(tmp_path / "r0.png"), "r0") for k in ("noise", "fade")]
    scorer = Scorer(Broken(), Cropping())
    with pytest.raises(RunError, match=r"r0_fade_1\.png"):
        list(scorer.score(scorer.chunks(pairs)))


def test_scores_do_not_depend_on_threads_and_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Scores are the same whatever the threads and batches and a changed library is shown."""
    import torch

    monkeypatch.setenv("HARNESS_CARDS", str(write_network(tmp_path / "cards")))
    table = write_table(tmp_path / "data")
    base = Request("small", str(table), protocol="parts", runs=str(tmp_path / "trained"), mlflow_uri="off")
    (trained,), _ = run_all([base])
    weights = str(trained.folder / "weights.safetensors")
    found, threads = {}, torch.get_num_threads()
    for label, batch, workers, count in (("a", 8, 1, 1), ("b", 8, 0, 1), ("c", 1, 0, 1), ("d", 8, 0, 2), ("e", 8, 1, 1)):
        torch.set_num_threads(count)
        for model, given in (("psnr", None), ("ssim", None), ("small", weights)):
            request = Request(
                model, str(table), protocol="parts", runs=str(tmp_path / label), mlflow_uri="off",
                weights=given, batch=batch, workers=workers,
            )  # fmt: skip
            (outcome,), faults = run_all([request])
            assert not faults
            lines = (outcome.folder / "scores.csv").read_text(encoding="utf-8").splitlines()[1:]
            found[label, model] = {line.split(",")[0]: float(line.split(",")[1]) for line in lines}
    torch.set_num_threads(threads)
    for label in "bcde":
        assert found[label, "psnr"] == found["a", "psnr"]
        assert found[label, "ssim"] == found["a", "ssim"]
        assert found[label, "small"] == pytest.approx(found["a", "small"], abs=1e-5)
    # Decoding threads and a second run change no bit of a network either.
    assert found["b", "small"] == found["e", "small"] == found["a", "small"]

    record = json.loads((trained.folder / "record.json").read_text(encoding="utf-8"))
    record["conditions"]["libraries"]["torch"] = "0.0.1"
    (trained.folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    verdict = verify.verify(trained.folder)
    assert verdict.ok
    assert "libraries.torch was 0.0.1" in verify.text(verdict)


def test_nothing_is_fetched_but_over_https(tmp_path: Path):
    with pytest.raises(DownloadFailed, match="only https"):
        download("http://127.0.0.1:9/x", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_an_archive_with_a_link_leaves_nothing_behind(tmp_path: Path):
    import tarfile

    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        entry = tarfile.TarInfo("way-out")
        entry.type, entry.linkname = tarfile.SYMTYPE, "../.."
        archive.addfile(entry)
    (tmp_path / "in").mkdir()
    with pytest.raises(RunError, match="link"):
        unpack(tmp_path / "x.tar", tmp_path / "in")
    assert not list((tmp_path / "in").iterdir())


def test_a_name_of_an_archive_that_is_no_text_or_steers_a_terminal_is_shown_escaped(tmp_path: Path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("\udcffx")
        link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
        archive.addfile(link)
    with pytest.raises(RunError) as refused:
        unpack(path, tmp_path / "inside")
    assert str(refused.value) == f"{path}: \\udcffx is a link or not an ordinary file; not unpacked"
    assert str(UsageError("a\x1b[31m\udc80 café\nnext")) == "a\\x1b[31m\\udc80 café\nnext"


def asked(tmp_path: Path, model: str = "psnr") -> Request:
    table = write_table(tmp_path / "data", references=2, levels=2)
    return Request(model, dataset=str(table), runs=str(tmp_path / "runs"), mlflow_uri="off")


@pytest.mark.parametrize("name", ["scores.csv", "pictures.csv"])
def test_a_record_whose_scores_are_gone_is_no_finished_run_and_is_made_again(tmp_path: Path, name: str, logged: list[str]):
    request = asked(tmp_path)
    first = run(request)
    before = {n: (first.folder / n).read_bytes() for n in ("scores.csv", "pictures.csv")}
    (first.folder / name).unlink()
    again = run(request)
    assert not again.found
    assert any("it has a record but no scores" in line for line in logged)
    assert {n: (first.folder / n).read_bytes() for n in before} == before
    assert again.record.metrics == first.record.metrics
    assert run(request).found


def test_a_file_that_is_taken_away_while_a_run_works_is_a_fault_and_no_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def taken_away(plan: Plan, *_: object) -> None:
        (plan.folder / "weights.safetensors").read_bytes()

    monkeypatch.setattr("harness.engine.run._record", taken_away)
    with pytest.raises(RunError, match=r"weights\.safetensors was removed during the run"):
        run(asked(tmp_path))


def test_a_report_that_finds_no_space_ends_the_run_and_the_next_one_finishes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise Unwritable("report.html: no space left")

    request = asked(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("harness.results.report.write", full)
        with pytest.raises(Unwritable, match="no space left"):
            run(request)
    outcome = run(request)
    assert not outcome.found
    assert (outcome.folder / "report.html").is_file()


def test_a_score_file_that_is_refused_leaves_no_folder_and_no_run_in_mlflow(tmp_path: Path):
    table = write_table(tmp_path / "data", references=2, levels=2)
    (tmp_path / "scores.csv").write_text("name,score\nnobody.png,1\n")
    for changes in ({}, {"inner": True}):
        wanted = Request("mine", str(table), runs=str(tmp_path / "runs"), scores=str(tmp_path / "scores.csv"), **changes)
        with pytest.raises(UsageError, match=r"scores\.csv"):
            run(wanted)
    assert not (tmp_path / "runs").exists()
