"""The MLflow mirror. One database serves the whole module: creating its tables takes seconds."""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import record_factory

from harness.files.lock import held
from harness.results.mlflow_figures import FamilyRun, figures
from harness.results.mlflow_mirror import Tracker, shown
from harness.results.record import Record, read_record
from harness.runtime import logs

pytestmark = pytest.mark.slow  # an MLflow database is made for them

DATASET = {"name": "demo", "hash": "ab" * 32, "split": "cd" * 32, "train": 8, "validation": 2, "test": 3}
EPOCHS = [{"epoch": n, "loss": 1.0 / n, "rate": 1e-3, "srcc": 0.1 * n, "plcc": 0.1 * n, "main": 0.2 * n} for n in (1, 2, 3)]


@functools.cache
def _document() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return record_factory.make(Path(folder), "tiny")[1]


def record(**changes: Any) -> Record:
    figures = {
        "n": 3,
        "references": 2,
        "srcc": 0.8,
        "plcc": 0.7,
        "krcc": None,
        "main": 1.5,
        "ci": {"srcc": [0.6, 0.9], "plcc": None},
    }
    own = {
        "dataset": "demo",
        "protocol": "references",
        "key": "0123456789abcdef",
        "metrics": {"test": figures, "validation": None},
        "controls": {"cell": {"n": None, "srcc": 1.0, "ci": {"srcc": None}}},
        "history": EPOCHS,
        "training": {"steps": 30, "epochs": 3, "best_epoch": 2, "seconds": 1.5},
        "seconds": 2.0,
        "pairs_per_second": 1.5,
        "conditions": {"device": "cpu", "threads": 1, "libraries": {"torch": "2.14"}},
        "note": "a demonstration",
    }
    return record_factory.typed(_document() | own | changes)


class Mirror:
    def __init__(self, runs: Path, logged: list[str] | None = None) -> None:
        from mlflow.tracking import MlflowClient

        self.runs = runs
        self.said = [] if logged is None else logged
        self.client = MlflowClient(tracking_uri=f"sqlite:///{runs / 'mlflow.db'}")

    def tracker(self, folder: Path) -> Tracker:
        return Tracker(None, str(self.runs), folder)

    def run(self, folder: Path) -> Any:
        return self.client.get_run(json.loads((folder / "mlflow.json").read_text())["run_id"])

    def history(self, folder: Path, key: str) -> list[tuple[int, float]]:
        entries = self.client.get_metric_history(self.run(folder).info.run_id, key)
        return sorted((m.step, m.value) for m in entries)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder that does not exist yet, in a folder with a space."""
    return tmp_path_factory.mktemp("my store") / "runs"


@pytest.fixture
def mirror(runs: Path, logged: list[str]) -> Mirror:
    return Mirror(runs, logged)


@pytest.fixture
def folder(runs: Path, request: pytest.FixtureRequest) -> Path:
    place: Path = runs / "demo" / "tiny" / request.node.name
    place.mkdir(parents=True)
    return place


def finish(mirror: Mirror, folder: Path, parameters: dict[str, Any] | None = None) -> None:
    for name in ("record.json", "scores.csv", "log.jsonl", "scatter.png", "weights.safetensors"):
        (folder / name).write_text(name)
    with mirror.tracker(folder) as tracker:
        tracker.begin("tiny on demo", parameters or {"seed": 0}, DATASET)
        for entry in EPOCHS:
            tracker.epoch(entry)
        tracker.end(record())


@pytest.mark.slow
def test_a_run_is_mirrored_with_parameters_figures_intervals_dataset_and_files(mirror: Mirror, folder: Path) -> None:
    finish(mirror, folder, {"recipe.rate": 1e-3, "model.widths": (1, 2)})
    run = mirror.run(folder)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "tiny on demo"
    assert run.data.params == {"recipe.rate": "0.001", "model.widths": "(1, 2)"}
    shown = {
        k: run.data.metrics[k] for k in ("test.srcc", "test.srcc_low", "test.srcc_high", "control.cell.srcc", "training.steps")
    }
    assert shown == {
        "test.srcc": 0.8,
        "test.srcc_low": 0.6,
        "test.srcc_high": 0.9,
        "control.cell.srcc": 1.0,
        "training.steps": 30,
    }
    assert "test.krcc" not in run.data.metrics
    assert mirror.history(folder, "epoch.loss") == [(e["epoch"], e["loss"]) for e in EPOCHS]
    assert run.data.tags["harness.key"] == "0123456789abcdef"
    assert run.data.tags["harness.conditions.device"] == "cpu"
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("demo", DATASET["hash"][:36])
    assert json.loads(data.dataset.source)["split_sha256"] == DATASET["split"]
    sent = {f.path for f in mirror.client.list_artifacts(run.info.run_id)}
    assert sent == {"record.json", "scores.csv", "log.jsonl", "scatter.png"}
    assert mirror.said == []


def test_artifacts_are_next_to_the_runs_wherever_one_stands(
    mirror: Mirror, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finish(mirror, folder)
    assert list(mirror.runs.glob("mlartifacts/*/artifacts/record.json"))
    assert list(tmp_path.iterdir()) == []


def test_artifacts_are_next_to_the_runs_for_a_database_of_ones_own_too(mirror: Mirror, folder: Path) -> None:
    (folder / "record.json").write_text("{}")
    with Tracker(f"sqlite:///{mirror.runs / 'mlflow.db'}", folder / "elsewhere", folder) as tracker:
        tracker.begin("tiny on owned", {}, DATASET | {"name": "owned"})
        tracker.end(record())
    assert list(folder.glob("elsewhere/mlartifacts/*/artifacts/record.json"))


def test_a_killed_run_goes_on_in_its_mlflow_run_without_duplicates(mirror: Mirror, folder: Path) -> None:
    killed = mirror.tracker(folder)
    killed.begin("tiny on demo", {"seed": 0}, DATASET)
    killed.epoch(EPOCHS[0])
    killed._attempt(killed._flush)
    killed.epoch(EPOCHS[1])  # never sent: the process dies here
    before = mirror.run(folder)
    assert before.info.status == "RUNNING"
    with mirror.tracker(folder) as tracker:
        tracker.begin("tiny on demo", {"seed": 0, "late": 1}, DATASET)
        for entry in EPOCHS[1:]:
            tracker.epoch(entry)
        tracker.end(record())
    after = mirror.run(folder)
    assert after.info.run_id == before.info.run_id
    assert after.info.status == "FINISHED"
    assert after.data.params == {"seed": "0", "late": "1"}
    for key in ("loss", "srcc"):
        assert mirror.history(folder, f"epoch.{key}") == [(e["epoch"], e[key]) for e in EPOCHS]
    assert len(mirror.history(folder, "test.srcc")) == 1
    assert len(after.inputs.dataset_inputs) == 1


def test_epochs_lost_in_a_kill_are_taken_from_the_records_history(mirror: Mirror, folder: Path) -> None:
    killed = mirror.tracker(folder)
    killed.begin("tiny on demo", {}, DATASET)
    killed.epoch(EPOCHS[0])
    with mirror.tracker(folder) as tracker:
        tracker.begin("tiny on demo", {}, DATASET)
        tracker.epoch(EPOCHS[2])  # the checkpoint was behind epoch 2
        tracker.end(record())
    assert mirror.history(folder, "epoch.loss") == [(e["epoch"], e["loss"]) for e in EPOCHS]


def test_a_run_started_again_closes_the_one_that_was_abandoned(mirror: Mirror, folder: Path) -> None:
    mirror.tracker(folder).begin("tiny on demo", {}, DATASET)
    abandoned = mirror.run(folder).info.run_id
    (folder / "mlflow.json").unlink()
    finish(mirror, folder)
    assert mirror.run(folder).info.run_id != abandoned
    assert mirror.client.get_run(abandoned).info.status == "KILLED"


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_an_exception_marks_the_run(mirror: Mirror, folder: Path, error: type[BaseException], status: str) -> None:
    def interrupted() -> None:
        with mirror.tracker(folder) as tracker:
            tracker.begin("tiny on demo", {}, DATASET)
            tracker.epoch(EPOCHS[0])
            raise error

    with pytest.raises(error):
        interrupted()
    assert mirror.run(folder).info.status == status
    assert mirror.history(folder, "epoch.loss") == [(1, 1.0)]


def test_a_record_whose_process_died_before_the_mirror_was_done_is_caught_up(mirror: Mirror, folder: Path) -> None:
    mirror.tracker(folder).begin("tiny on demo", {}, DATASET)
    mirror.tracker(folder).catch_up(record())
    assert mirror.run(folder).info.status == "FINISHED"
    assert mirror.run(folder).data.metrics["test.srcc"] == 0.8
    again = mirror.tracker(folder)
    again.catch_up(record())
    assert again._client is None


def with_record(folder: Path) -> Record:
    """A real record in `folder`, as `read_record` takes it."""
    made = record_factory.make(folder.parent / "made", "tiny")[0]
    for name in ("record.json", "scores.csv"):
        shutil.copyfile(made / name, folder / name)
    found = read_record(folder)
    assert found is not None
    return found


@pytest.mark.slow
def test_a_record_that_could_not_be_mirrored_is_added_by_the_next_command(tmp_path: Path, logged: list[str]) -> None:
    """A finished record that its own command could not mirror is added by the next command."""
    database = tmp_path / "mlflow.db"
    database.write_text("this is not a database " * 50)
    first, second, without = (tmp_path / "demo" / "tiny" / name for name in ("first", "second", "without"))
    for folder in (first, second, without):
        folder.mkdir(parents=True)
        given = with_record(folder)
        uri = "off" if folder == without else None
        with Tracker(uri, tmp_path, folder) as tracker:
            tracker.begin("tiny on demo", {"seed": 0}, DATASET)
            tracker.end(given)
        if folder == first:
            assert len(logged) == 1
            database.unlink()
    mirror = Mirror(tmp_path)
    for folder in (first, second):
        assert mirror.run(folder).info.status == "FINISHED"
        assert mirror.run(folder).data.params == {"seed": "0"}
    assert logged[1:] == ["MLflow: 1 finished run added that earlier commands could not add"]
    assert not (without / "mlflow.json").exists()

    with Tracker(None, tmp_path, without) as tracker:
        tracker.catch_up(given)
        assert not (without / "mlflow.json").exists()
        tracker.catch_up(given, ("tiny on demo", {"seed": 0}, DATASET))
    assert mirror.run(without).info.status == "FINISHED"


@pytest.mark.slow
def test_a_half_made_database_is_replaced_by_one_of_every_finished_record(tmp_path: Path, logged: list[str]) -> None:
    """A half made database is set aside and a new one shows every finished record."""
    folder, other = (tmp_path / "demo" / "tiny" / name for name in ("one", "other"))
    for place in (folder, other):
        place.mkdir(parents=True)
    given = with_record(folder)
    write = {"name": "tiny on demo", "parameters": {"seed": "0"}, "dataset": DATASET}
    shown_before = {"uri": f"sqlite:///{tmp_path / 'mlflow.db'}", "run_id": "gone", "finished": True, "begun": write}
    (folder / "mlflow.json").write_text(json.dumps(shown_before))
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("create table experiments (experiment_id integer)")
    (tmp_path / "mlflow.db.making").write_text("left by a kill")
    with Tracker(None, tmp_path, other) as tracker:
        tracker.begin("tiny on demo", {}, DATASET)
        tracker.end(given)
    assert [path.name for path in sorted(tmp_path.glob("mlflow.db*"))] == ["mlflow.db", "mlflow.db.half-made-1", "mlflow.db.lock"]
    assert "renamed to mlflow.db.half-made-1" in logged[0]
    mirror = Mirror(tmp_path)
    assert {mirror.run(place).info.status for place in (folder, other)} == {"FINISHED"}
    assert len(logged) == 2


def test_a_record_in_a_folder_that_another_process_holds_is_left_to_it(mirror: Mirror, folder: Path) -> None:
    with held(folder / "lock"):
        mirror.tracker(folder).catch_up(record(), ("tiny on demo", {}, DATASET))
    assert not (folder / "mlflow.json").exists()


def test_a_run_deleted_in_mlflow_is_made_again(mirror: Mirror, folder: Path) -> None:
    finish(mirror, folder)
    deleted = mirror.run(folder).info.run_id
    mirror.client.delete_run(deleted)
    finish(mirror, folder)
    assert mirror.run(folder).info.run_id != deleted
    assert mirror.said == []


def test_long_odd_and_secret_parameters_are_made_fit(mirror: Mirror, folder: Path) -> None:
    parameters = {f"p{n}": n for n in range(250)} | {"odd|key?": "x" * 9000, "weights": "https://me:secret@host/w.pth"}
    finish(mirror, folder, parameters)
    kept = mirror.run(folder).data.params
    assert len(kept) == 252
    assert kept["odd-key-"].startswith("xxx")
    assert kept["weights"] == "https://host/w.pth"
    assert mirror.said == []


def test_no_process_wide_setting_is_left_changed(mirror: Mirror, folder: Path) -> None:
    import mlflow

    before = (dict(os.environ), mlflow.get_tracking_uri(), logging.getLogger("mlflow").level, logging.getLogger("alembic").level)
    finish(mirror, folder)
    after = (dict(os.environ), mlflow.get_tracking_uri(), logging.getLogger("mlflow").level, logging.getLogger("alembic").level)
    assert after == before


def test_mlflow_starts_while_the_run_works_and_nothing_of_the_run_is_lost(
    mirror: Mirror, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, begin, go_on = dict(os.environ), Tracker._begin, threading.Event()
    monkeypatch.setattr(Tracker, "_begin", lambda self, *words: (go_on.wait(60), begin(self, *words)))
    with mirror.tracker(folder) as tracker:
        tracker.begin("tiny on demo", {"seed": 0}, DATASET, meanwhile=True)
        tracker.epoch(EPOCHS[0])
        assert json.loads((folder / "mlflow.json").read_text())["run_id"] is None
        go_on.set()
        tracker.begun()
        assert mirror.run(folder).info.status == "RUNNING"
        for entry in EPOCHS[1:]:
            tracker.epoch(entry)
        tracker.end(record())
    assert mirror.run(folder).info.status == "FINISHED"
    assert mirror.run(folder).data.params["seed"] == "0"
    assert mirror.history(folder, "epoch.loss") == [(entry["epoch"], entry["loss"]) for entry in EPOCHS]
    assert dict(os.environ) == before
    assert mirror.said == []


def test_a_run_that_fails_while_mlflow_starts_is_marked(mirror: Mirror, folder: Path) -> None:
    def interrupted() -> None:
        with mirror.tracker(folder) as tracker:
            tracker.begin("tiny on demo", {}, DATASET, meanwhile=True)
            tracker.epoch(EPOCHS[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert mirror.run(folder).info.status == "KILLED"
    assert mirror.history(folder, "epoch.loss") == [(1, 1.0)]


def dead(tmp_path: Path, uri: str | None) -> list[str]:
    said: list[str] = []
    with logs.handled(lambda level, text: said.append(text)), Tracker(uri, str(tmp_path), tmp_path) as tracker:
        tracker.begin("tiny on demo", {}, DATASET)
        tracker.epoch(EPOCHS[0])
        tracker.end(record())
    return said


def test_a_server_that_refuses_costs_one_warning_without_its_password(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    begun = time.monotonic()
    (warning,) = dead(tmp_path, f"http://me:secret@127.0.0.1:{port}")
    assert time.monotonic() - begun < 20
    assert f"127.0.0.1:{port}" in warning
    assert "secret" not in warning
    assert "\n" not in warning


def test_a_server_that_never_answers_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        assert len(dead(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")) == 1
    assert time.monotonic() - begun < 10


def test_a_file_that_is_no_database_costs_one_warning_and_no_retries(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, whatever it is called " * 50)
    begun = time.monotonic()
    (warning,) = dead(tmp_path, None)
    assert "not a database" in warning
    assert time.monotonic() - begun < 5
    kept = json.loads((tmp_path / "mlflow.json").read_text())
    assert (kept["run_id"], kept["finished"]) == (None, False)


def test_files_that_cannot_be_sent_cost_one_warning_and_the_run_is_still_finished(
    mirror: Mirror, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tracker, "_send_files", lambda self: 1 / 0)
    finish(mirror, folder)
    assert mirror.run(folder).info.status == "FINISHED"
    assert len(mirror.said) == 1
    assert "its files: division by zero" in mirror.said[0]


def test_a_server_that_dies_at_the_end_costs_one_warning(mirror: Mirror, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("_send_files", "_finish"):
        monkeypatch.setattr(Tracker, method, lambda *arguments: 1 / 0)
    finish(mirror, folder)
    assert len(mirror.said) == 1


def test_a_driver_that_blocks_is_given_up(mirror: Mirror, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.results.mlflow_mirror._PATIENCE_WITH_FILES", 0.05)
    tracker = mirror.tracker(folder)
    tracker._attempt(lambda: time.sleep(1))
    assert not tracker.working
    assert "no answer in 0.05 s" in mirror.said[0]


def test_off_neither_imports_mlflow_nor_writes_anything(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from harness.results.mlflow_mirror import Tracker\n"
        "with Tracker('off', 'runs', Path('.')) as t:\n"
        "    t.begin('x', {}, {}); t.epoch({'epoch': 1, 'loss': 1.0}); t.end(None); t.catch_up(None)\n"
        "assert 'mlflow' not in sys.modules and not list(Path('.').iterdir())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_nothing_is_printed_while_the_database_is_made(tmp_path: Path) -> None:
    made, _ = record_factory.make(tmp_path.parent / "made next to", "tiny")
    code = (
        "from pathlib import Path; from harness.results.mlflow_mirror import Tracker\n"
        "from harness.results.record import read_record\n"
        "with Tracker(None, 'runs', Path('runs')) as t:\n"
        f"    t.begin('x', {{}}, {DATASET}); t.end(read_record(Path({str(made)!r})))"
    )
    (tmp_path / "runs").mkdir()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads((tmp_path / "runs" / "mlflow.json").read_text())["finished"] is True
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


def test_figures_leave_out_what_does_not_exist() -> None:
    found = figures(record())
    assert "test.krcc" not in found
    assert "test.plcc_low" not in found
    assert found["test.main"] == 1.5


def test_what_was_tested_comes_first() -> None:
    values = {"n": 3, "srcc": 0.5}
    assert next(iter(figures(record(metrics={"validation": values, "test": values})))).startswith("test.")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://u:p@h:5000", "http://h:5000"),
        ("postgresql://u:p@h/db?password=x", "postgresql://h/db"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_secrets_are_not_shown(uri: str, expected: str) -> None:
    assert shown(uri) == expected


def test_a_submission_is_attached_to_the_run_of_its_record_or_to_one_of_its_own(mirror: Mirror, folder: Path) -> None:
    finish(mirror, folder)
    zipped = folder / "team.zip"
    zipped.write_bytes(b"a zip")
    with mirror.tracker(folder) as tracker:
        tracker.attach("tiny on demo", "demo", [zipped], {"submission.ntire2022-fr.test": "ab" * 32})
    run = mirror.run(folder)
    assert run.data.tags["harness.submission.ntire2022-fr.test"] == "ab" * 32
    assert [f.path for f in mirror.client.list_artifacts(run.info.run_id, "submissions")] == ["submissions/team.zip"]
    assert run.info.status == "FINISHED"

    (folder / "mlflow.json").unlink()
    with mirror.tracker(folder) as tracker:
        tracker.attach("mirrored late", "demo", [zipped], {"submission.ntire2022-fr.test": "cd" * 32})
    experiment = mirror.client.get_experiment_by_name("harness/demo").experiment_id
    (late,) = [run for run in mirror.client.search_runs([experiment]) if run.info.run_name == "mirrored late"]
    assert late.info.status == "FINISHED"
    assert late.data.tags["harness.submission.ntire2022-fr.test"] == "cd" * 32
    assert mirror.said == []


def test_an_ensemble_is_a_run_with_one_below_it_for_each_blend_and_is_shown_once(mirror: Mirror, folder: Path) -> None:
    (folder / "trace.csv").write_text("chain,step\n")
    children = [FamilyRun(name, {}, {"test": {"srcc": 0.5 + i / 10}}) for i, name in enumerate(("mean", "searched"))]
    parent_run = FamilyRun("ensemble best", {"trials": 1000}, {"test": {"srcc": 0.6}})
    for _ in range(2):
        with mirror.tracker(folder) as tracker:
            tracker.family("demo", parent_run, children, [folder / "trace.csv"], "this ensemble")
    parent = mirror.run(folder)
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"trials": "1000"}
    assert [f.path for f in mirror.client.list_artifacts(parent.info.run_id)] == ["trace.csv"]
    below = mirror.client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {r.info.run_name: r.data.metrics["test.srcc"] for r in below} == {
        "ensemble best: mean": 0.5,
        "ensemble best: searched": 0.6,
    }
    assert {r.info.status for r in below} == {"FINISHED"}
    assert mirror.said == []
