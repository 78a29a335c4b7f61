"""`harness tune`: real trainings under Ray Tune: reused, logged while they run, stopped by a failure that all would have."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from small import write_network, write_table

from harness.cli.main import main
from harness.engine.distributed.session import kept

pytestmark = pytest.mark.slow  # its tests train, or start commands

TUNABLE = '[tunable]\n"recipe.rate" = { low = 1e-3, high = 1e-1, log = true }\n"recipe.flip" = { choices = ["none", "both"] }\n'


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with kept():
        yield


def call(*line: str, status: int = 0) -> tuple[str, str]:
    """The command line in this process, so that all share one Ray; what it prints on both streams."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()) as err, pytest.raises(SystemExit) as left:
        main(line)
    assert left.value.code == status, err.getvalue()
    return out.getvalue(), err.getvalue()


def prepared(folder: Path, tunable: str = TUNABLE, **changes: str) -> list[str]:
    """A table and a small network with these tunable settings; the command that tunes it."""
    table = write_table(folder / "data", references=6, levels=2)
    card = write_network(folder / "cards") / "small.toml"
    text = card.read_text(encoding="utf-8").replace("epochs = 6", "epochs = 2")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    card.write_text(text + tunable, encoding="utf-8")
    line = ["tune", "small", "--dataset", str(table), "--protocol", "parts", "--trials", "3", "--cards", str(folder / "cards")]
    return [*line, "--out", str(folder / "cards" / "tuned.toml"), "--runs", str(folder / "runs")]


@pytest.fixture(scope="module")
def tuned(ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], dict, str]:
    folder = tmp_path_factory.mktemp("tuned")
    line = prepared(folder)
    out, said = call(*line, "--json")
    return folder, line, json.loads(out), said


def test_the_best_of_real_trainings_is_tested_and_becomes_a_card(tuned: tuple[Path, list[str], dict, str]):
    folder, _, document, _ = tuned
    assert len(document["trials"]) == 3
    assert document["trials"][0]["settings"] == {"recipe.rate": 0.01, "recipe.flip": "both"}
    assert document["best"]["figure"] == max(t["figure"] for t in document["trials"] if not t["stopped"])
    validation = next(r for r in document["results"] if r["part"] == "validation")
    assert validation["main"] == pytest.approx(document["best"]["figure"], abs=1e-6)
    recipe = tomllib.loads((folder / "cards" / "tuned.toml").read_text(encoding="utf-8"))["recipe"]
    assert {f"recipe.{k}": recipe[k] for k in ("rate", "flip")} == document["best"]["settings"]


def test_trials_are_listed_and_plotted_with_the_best_so_far(tuned: tuple[Path, list[str], dict, str]):
    _, _, document, _ = tuned
    folder = Path(document["folder"])
    with open(folder / "trials.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["run"] for row in rows] == [t["folder"] for t in document["trials"]]
    assert [float(row["main"]) for row in rows] == [t["figure"] for t in document["trials"]]
    assert float(rows[-1]["best"]) == document["best"]["figure"]
    assert (folder / "trials.png").stat().st_size > 1000


def test_the_same_command_finds_what_is_trained_and_writes_the_same_card(tuned: tuple[Path, list[str], dict, str]):
    folder, line, document, _ = tuned
    weights = {p: p.stat().st_mtime_ns for p in (folder / "runs").glob("table/small/*/checkpoint.safetensors")}
    text = (folder / "cards" / "tuned.toml").read_bytes()
    assert json.loads(call(*line, "--json")[0]) == document
    # What is finished needs no trial again; without the list of trials, each finds what it trained.
    (Path(document["folder"]) / "trials.json").unlink()
    assert json.loads(call(*line, "--json")[0]) == document
    assert (folder / "cards" / "tuned.toml").read_bytes() == text
    assert weights == {p: p.stat().st_mtime_ns for p in (folder / "runs").glob("table/small/*/checkpoint.safetensors")}
    # The best one's run is finished: it needs no checkpoint, and is reported by its record.
    assert len(weights) == len({t["folder"] for t in document["trials"]}) - 1


def test_mlflow_has_the_tuning_and_its_trials(tuned: tuple[Path, list[str], dict, str]):
    folder, _, document, _ = tuned
    with contextlib.closing(sqlite3.connect(folder / "runs" / "mlflow.db")) as store:
        parents = dict(store.execute("select r.run_uuid, t.value from runs r join tags t on t.run_uuid = r.run_uuid "
                                     "where t.key = 'mlflow.runName'"))  # fmt: skip
        (parent,) = [run for run, name in parents.items() if name == "tune tuned"]
        children = [row[0] for row in store.execute("select run_uuid from tags where key = 'mlflow.parentRunId'")]
        figures = dict(store.execute("select key, value from metrics where run_uuid = ?", (parent,)))
        rates = {
            float(value) for run, key, value in store.execute("select run_uuid, key, value from params")
            if run in children and key == "recipe.rate"
        }  # fmt: skip
    assert figures["validation.main"] == pytest.approx(document["best"]["figure"], abs=1e-6)
    assert rates == {t["settings"]["recipe.rate"] for t in document["trials"]}
    assert sorted(p.name for p in (folder / "runs" / "mlartifacts").rglob("trials.*")) == ["trials.csv", "trials.png"]


def test_tables_fit_a_terminal_of_80_columns(tuned: tuple[Path, list[str], dict, str]):
    _, line, _, _ = tuned
    tables, notes = call(*line)[0].split("\n\nmain is of")
    assert max(map(len, tables.splitlines())) <= 80
    assert "trials.csv" in notes


@pytest.mark.parametrize(
    ("tunable", "message"),
    [
        ("[tunable]\n", r"no \[tunable\] table"),
        ('[tunable]\n"recipe.rat" = { low = 1, high = 2 }\n', "did you mean 'recipe.rate'"),
        ('[tunable]\n"recipe.rate" = { low = 1 }\n', "either low and high, or choices"),
        ('[tunable]\n"recipe.rate" = { low = 0, high = 1, log = true }\n', "above 0"),
        ('[tunable]\n"recipe.flip" = { choices = ["both", "sideways"] }\n', "'sideways' cannot be set"),
    ],
)
def test_settings_that_cannot_be_tuned_are_refused_before_ray(tmp_path: Path, tunable: str, message: str):
    line = prepared(tmp_path, tunable)
    assert re.search(message, call(*line, status=2)[1])
    assert not (tmp_path / "runs").exists()


def test_a_request_for_more_than_there_is_is_one_line(tmp_path: Path):
    line = prepared(tmp_path)
    reported = call(*line, "--workers", "100000", status=2)[1]
    assert len(reported.splitlines()) == 1
    assert "--workers 100000: this machine has" in reported


def test_a_killed_tuning_ends_with_the_undisturbed_card_and_leaves_nothing(ray: None, tmp_path: Path):
    line = prepared(tmp_path, TUNABLE, **{"epochs = 2": "epochs = 40"})
    line = [*line, "--mlflow-uri", "off", "--trials", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while not list((tmp_path / "runs").glob("table/small/*/checkpoint.safetensors")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    (left,) = (tmp_path / "runs").glob("table/tuning/*/processes.json")
    place = Path(json.loads(left.read_text(encoding="utf-8"))["place"])
    assert place.is_dir()
    assert not (tmp_path / "cards" / "tuned.toml").exists()

    resumed = json.loads(call(*line, "--json")[0])
    card = (tmp_path / "cards" / "tuned.toml").read_bytes()
    assert not place.exists()
    undisturbed = json.loads(call(*line, "--runs", str(tmp_path / "undisturbed"), "--json")[0])
    assert (tmp_path / "cards" / "tuned.toml").read_bytes() == card
    assert [(t["settings"], t["figure"]) for t in resumed["trials"]] == [
        (t["settings"], t["figure"]) for t in undisturbed["trials"]
    ]


def test_what_all_trials_would_meet_ends_the_first_in_one_line(ray: None, tmp_path: Path):
    line = prepared(tmp_path)
    for victim in (tmp_path / "data").glob("r*_*_1.png"):
        victim.write_bytes(victim.read_bytes()[:60])
    reported = call(*line, "--mlflow-uri", "off", status=2)[1]
    assert "Traceback" not in reported
    (fault,) = [text for text in reported.splitlines() if text.startswith("harness: ")]
    assert "_1.png" in fault
    assert "no further trial was started" in fault
    with open(next((tmp_path / "runs").rglob("trials.csv")), newline="", encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream))) == 1


def test_a_trial_that_diverges_fails_alone(ray: None, tmp_path: Path):
    line = prepared(tmp_path, '[tunable]\n"recipe.rate" = { choices = [0.01, 1e30] }\n')
    out, said = call(*line, "--set", "recipe.clip=0", "--trials", "5", "--mlflow-uri", "off", "--json")
    assert "Traceback" not in said
    trials = json.loads(out)["trials"]
    failed = [t for t in trials if t["settings"]["recipe.rate"] == 1e30]
    assert failed
    assert all("try a lower learning rate" in t["problem"] and t["figure"] is None for t in failed)
    assert json.loads(out)["best"]["settings"]["recipe.rate"] == 0.01
