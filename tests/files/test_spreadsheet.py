"""Spreadsheets as programs write them: phonetic guides, formulas, numbers shown with zeros, wrong dimensions."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import openpyxl
import pytest
from miniatures import spreadsheet

from harness.datasets import load_dataset
from harness.files.score_table import read_scores
from harness.files.spreadsheet import is_spreadsheet, read_sheet
from harness.runtime.errors import UsageError


def book(path: Path, rows: list[list[object]]) -> Path:
    made = openpyxl.Workbook()
    for row in rows:
        made.active.append(row)
    made.save(path)
    return path


def test_a_spreadsheet_is_a_table_and_its_rows_are_counted_as_shown(tmp_path: Path):
    """A spreadsheet is a table wherever one is read and its rows are counted as shown."""
    path = book(tmp_path / "scores.xlsx", [["Name", "Score"], ["a", 1.5], [], ["b", 0.1]])
    found = read_scores(path)
    assert list(found["name"]) == ["a", "b"]
    assert list(found["score"]) == [1.5, 0.1]
    book(tmp_path / "bad.xlsx", [["Name", "Score"], ["a", 1.5], [], ["b", "x"]])
    with pytest.raises(UsageError, match=r"row 4 \('x'\)"):
        read_scores(tmp_path / "bad.xlsx")
    assert load_dataset(str(path)).name == "scores"


@pytest.mark.parametrize("complete", [True, False], ids=["Excel's", "without the list of its parts"])
def test_phonetic_guides_are_no_part_of_a_text(tmp_path: Path, complete: bool):
    path, guided = tmp_path / "a.xlsx", tmp_path / "b.xlsx"
    if complete:
        book(path, [["name", "score"], ["絵.png", 1], ["b", 2]])
    else:
        spreadsheet(path, {"first": [["name", "score"], ["絵.png", 1], ["b", 2]]})
    changed = 0
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(guided, "w") as target:
        for part in source.namelist():
            guide = '</t><rPh sb="0" eb="1"><t>エ</t></rPh><phoneticPr fontId="1"/>'.encode()
            before = source.read(part)
            after = before.replace(b"</t></si>", guide + b"</si>").replace(b"</t></is>", guide + b"</is>")
            target.writestr(part, after)
            changed += before != after
    assert changed == 1
    assert read_sheet(guided) == read_sheet(path) == [(1, ["name", "score"]), (2, ["絵.png", "1"]), (3, ["b", "2"])]


def test_a_number_that_is_shown_with_zeros_is_the_name_that_is_shown(tmp_path: Path):
    made = openpyxl.Workbook()
    made.active.append(["name", "score"])
    made.active.append([7, 0.25])
    made.active["A2"].number_format = "000"
    made.save(tmp_path / "t.xlsx")
    assert read_sheet(tmp_path / "t.xlsx")[1] == (2, ["007", "0.25"])


def test_a_spreadsheet_is_known_by_its_bytes_and_an_old_one_is_refused(tmp_path: Path):
    path = book(tmp_path / "t.xlsx", [["name", "score"], ["a", 1], ["b", 2]])
    shutil.copy(path, tmp_path / "labels.csv")
    assert is_spreadsheet(tmp_path / "labels.csv")
    assert list(read_scores(tmp_path / "labels.csv")["name"]) == ["a", "b"]
    (tmp_path / "old.xls").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100))
    with pytest.raises(UsageError, match="an old Excel file"):
        read_scores(tmp_path / "old.xls")


@pytest.mark.slow
def test_a_cell_far_away_does_not_make_a_sheet_large(tmp_path: Path):
    made = openpyxl.Workbook()
    made.active["A1"], made.active["B1"], made.active["A2"], made.active["B2"] = "name", "score", "a", 1
    made.active["XFD20000"] = "far"
    made.save(tmp_path / "t.xlsx")
    assert read_sheet(tmp_path / "t.xlsx") == [(1, ["name", "score"]), (2, ["a", "1"])]
