"""A record's figures from its scores and labels alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from small import write_table

from harness import leaderboard
from harness.engine.request import Request
from harness.engine.run import run
from harness.engine.verify import measure_again, measure_all_again
from harness.runtime.errors import RunError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    table = write_table(tmp_path / "data", references=4)
    made = run(Request("psnr", str(table), runs=str(tmp_path / "runs"), mlflow_uri="off"))
    (kept,) = leaderboard.add([made.folder], tmp_path / "boards")
    return kept


def read(place: Path) -> dict:
    return json.loads((place / "record.json").read_text())


@pytest.mark.slow
def test_an_older_record_gets_what_it_lacks_and_keeps_all_else(place: Path) -> None:
    whole = read(place)
    old = {k: v for k, v in whole.items() if k != "without_each_reference"}
    old["metrics"] = {"validation": None, "test": {k: v for k, v in whole["metrics"]["test"].items() if k != "discrimination"}}
    (place / "record.json").write_text(json.dumps(old))
    assert measure_again(place) == []
    now = read(place)
    assert now.pop("measured_again")["libraries"] == whole["conditions"]["libraries"]
    assert now == whole
    assert list(now) == list(whole)


@pytest.mark.slow
def test_a_number_that_changes_is_named(place: Path) -> None:
    record = read(place)
    right = record["metrics"]["test"]["srcc"]
    record["metrics"]["test"]["srcc"] = 0.25
    (place / "record.json").write_text(json.dumps(record))
    assert measure_again(place) == [f"test.srcc was 0.25, is {right!r}"]
    assert read(place)["metrics"]["test"]["srcc"] == right


@pytest.mark.slow
def test_other_labels_or_scores_change_nothing_and_every_record_is_named(place: Path, tmp_path: Path) -> None:
    before = (place / "record.json").read_bytes()
    table = tmp_path / "data" / "table.csv"
    rows = list(csv.reader(table.open(encoding="utf-8")))
    rows[-1][2] = "0.5"
    with table.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    with pytest.raises(RunError, match="labels: names, pairing or labels"):
        measure_again(place)
    scores = place / "scores.csv"
    scores.write_text(scores.read_text().replace("1", "2", 1))
    with pytest.raises(RunError) as error:
        list(measure_all_again([place, tmp_path / "nowhere"]))
    assert "scores.csv has changed since it was measured" in str(error.value)
    assert "no record.json in it" in str(error.value)
    assert (place / "record.json").read_bytes() == before
