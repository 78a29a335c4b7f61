"""Paths in tables of other systems are found, or the message names the file that is there instead."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pandas as pd
import pytest

from harness.datasets.table import complete, read_csv, require_files
from harness.files.leftovers import is_leftover, without_leftovers
from harness.files.score_table import join, read_scores
from harness.files.table_paths import TablePaths, explained, file_name, require_utf8
from harness.runtime.errors import UsageError

COMPOSED, DECOMPOSED = unicodedata.normalize("NFC", "café.png"), unicodedata.normalize("NFD", "café.png")


def touched(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def table(folder: Path, *rows: str) -> Path:
    path = folder / "pairs.csv"
    path.write_text("".join(f"{row}\n" for row in ("distorted,reference,score", *rows)), encoding="utf-8")
    return path


def test_backslashes_of_windows_lead_to_the_file(tmp_path: Path):
    touched(tmp_path / "dist/a/d0.png")
    assert TablePaths(tmp_path).find("dist\\a\\d0.png") == str(tmp_path / "dist/a/d0.png")
    assert TablePaths(tmp_path).find(".\\dist\\a\\d0.png") == str(tmp_path / "dist/a/d0.png")


def test_a_backslash_that_is_a_files_own_is_kept(tmp_path: Path):
    touched(tmp_path / "a\\b.png")
    touched(tmp_path / "a/b.png")
    assert TablePaths(tmp_path).find("a\\b.png") == str(tmp_path / "a\\b.png")


@pytest.mark.parametrize(("written", "lies"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_names_that_print_the_same_are_one_file_in_any_folder(tmp_path: Path, written: str, lies: str):
    touched(tmp_path / lies / lies)
    assert TablePaths(tmp_path).find(f"{written}\\{written}") == str(tmp_path / lies / lies)


def test_of_two_unicode_forms_in_one_folder_the_one_that_is_written_is_taken(tmp_path: Path):
    for name in (COMPOSED, DECOMPOSED):
        touched(tmp_path / name)
        assert TablePaths(tmp_path).find(name) == str(tmp_path / name)
    twice = pd.DataFrame({"name": [COMPOSED, DECOMPOSED], "score": [1.0, 2.0]})
    with pytest.raises(UsageError, match="two Unicode forms that print the same"):
        complete(twice, "t")


@pytest.mark.parametrize(
    ("written", "lies", "words"),
    [
        ("d0.png", "D0.PNG", "there is D0.PNG: the letter case differs"),
        ("dist\\d0.png", "dist/x.png", "its backslashes were taken as slashes too"),
        ("C:\\data\\d0.png", "d0.png", "a path of a Windows machine"),
        ("é.png", os.fsdecode(b"\xe9.png"), "a name that is not UTF-8"),
    ],
)
def test_what_lies_there_instead_is_reported(tmp_path: Path, written: str, lies: str, words: str):
    touched(tmp_path / "r.png")
    touched(tmp_path / lies)
    frame = read_csv(table(tmp_path, f"{written},r.png,1"))
    with pytest.raises(UsageError, match=words):
        require_files(frame, "t")


def test_two_spellings_of_which_none_is_written_are_both_named(tmp_path: Path):
    for name in ("A.png", "a.PNG"):
        touched(tmp_path / name)
    assert "'A.png' and 'a.PNG'" in explained(str(tmp_path / "a.png"))


def test_names_and_references_of_a_windows_table_have_no_folders(tmp_path: Path):
    frame = read_csv(table(tmp_path, "dist\\NA.png,.\\ref.png,1", "dist\\nan,.\\ref.png,2", "dist\\001,.\\ref.png,3"))
    assert list(frame["name"]) == ["NA.png", "nan", "001"]
    assert set(frame["reference_id"]) == {"ref"}
    assert file_name("a\\b/c.png") == "c.png"


def test_a_folder_whose_name_is_not_text_is_refused_in_one_line():
    with pytest.raises(UsageError, match=r"la\\udce9t/p\.csv: the name is not UTF-8"):
        require_utf8(os.fsdecode(b"la\xe9t/p.csv"))


def test_score_files_whose_names_differ_in_spelling_alone_are_reported_in_what(tmp_path: Path):
    files = {"nfd": DECOMPOSED, "case": "CAFÉ.png", "folder": "x\\café.png", "extension": "café.bmp", "nfc": COMPOSED}
    for stem, name in files.items():
        (tmp_path / f"{stem}.csv").write_text(f"name,score\n{name},1\n", encoding="utf-8")
    for stem, words in (("nfd", "Unicode"), ("case", "letter case"), ("folder", "folders"), ("extension", "extensions")):
        sides = read_scores(tmp_path / f"{stem}.csv"), read_scores(tmp_path / "nfc.csv")
        with pytest.raises(UsageError, match=f"1 names in both differ only in .*{words}"):
            join(*sides, ("a", "b"), inner=False)


def test_leftovers_of_operating_systems_are_known_by_their_names():
    assert all(
        map(is_leftover, ["._a.csv", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX", "~$labels.xlsx", ".~lock.a.ods#"])
    )
    assert not any(map(is_leftover, ["a.csv", ".a.csv", "_a.csv", "thumbs.png"]))
    assert without_leftovers([Path("x/._a.csv"), Path("x/a.csv")]) == [Path("x/a.csv")]
