"""Folders as users have them, through the command line: tables and names of other systems, and a table's path as a dataset."""

from __future__ import annotations

import codecs
import json
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from miniatures import replace, spreadsheet, tree
from PIL import Image
from small import picture, write_table

from harness.cards.loading import find_dataset, load_cards
from harness.datasets import load_dataset
from harness.datasets.check import check
from harness.datasets.table import table_hash

Said = Callable[..., str]


RUN = ("--runs", "r", "--mlflow-uri", "off", "--quiet")


def test_a_tables_path_works_wherever_a_datasets_name_does(tmp_path: Path, said: Said):
    write_table(tmp_path / "data")
    table = "data/table.csv"
    refused = said("compare", "psnr", "ssim", "--dataset", table, "--runs", "r", "--root", "data", status=2)
    (line,) = [part for part in refused.splitlines() if "first: " in part]
    command = line.partition("first: harness ")[2].split()
    assert command == ["run", "psnr", "--dataset", table, "--protocol", "full", "--root", "data", "--runs", "r"]
    said("run", "psnr", "ssim", "--dataset", table, *RUN)
    assert json.loads(said("compare", "psnr", "ssim", "--dataset", table, "--runs", "r", "--json"))["n"] == 36
    assert said("leaderboard", table, "--runs", "r") == said("leaderboard", "table", "--runs", "r")
    report = json.loads(said("data", "check", table, "--full", "--json", "--quiet"))
    assert (report["ok"], report["pairs"], report["references"]) == (True, 36, 6)
    blend = said("ensemble", "psnr", "ssim", "--dataset", table, "--out", "e.toml", "--trials", "3", "--json", *RUN)
    assert {row["dataset"] for row in json.loads(blend)["results"]} == {"table"}
    assert "table has no public address to download from." in said("data", "get", table, status=1)


def test_a_broken_dataset_names_the_command_that_shows_more_with_all_its_options(tmp_path: Path, said: Said):
    (tmp_path / "cards").mkdir()
    card = find_dataset("mdid").path
    (tmp_path / "cards/own.toml").write_text(Path(card).read_text().replace('name = "mdid"', 'name = "own"'))
    (tmp_path / "MD ID").mkdir()
    words = said("run", "psnr", "--dataset", "own", "--cards", "cards", "--root", "MD ID", *RUN, status=2)
    assert "`harness data check own --root 'MD ID' --cards cards` shows more" in words


def test_data_check_names_the_missing_images_of_a_table(tmp_path: Path, said: Said):
    table = write_table(tmp_path)
    (tmp_path / "r1_fade_2.png").rename(tmp_path / "R1_fade_2.PNG")
    words = said("data", "check", str(table), status=1)
    assert "1 of 42 images are missing" in words
    assert "there is R1_fade_2.PNG: the letter case differs" in words


CARD = """
name = "mine"
title = "x"
reader = "harness.datasets:read_table"
higher_is_better = true
label = "MOS"
default_protocol = "full"
[layout]
table = "table.csv"
[protocols.full]
split = "full"
"""


@pytest.mark.parametrize("place", ["root", "card", "here"])
def test_a_cards_table_is_found_below_the_root_the_card_or_the_current_folder(tmp_path: Path, said: Said, place: str):
    """The table of a card is found below the root next to the card or the current folder."""
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards/mine.toml").write_text(CARD)
    write_table(tmp_path / {"root": "pictures", "card": "cards", "here": "."}[place])
    words = ["--cards", "cards", *(["--root", "pictures"] if place == "root" else [])]
    assert "mine: ok" in said("data", "check", "mine", *words)
    assert json.loads(said("run", "psnr", "--dataset", "mine", "--json", *words, *RUN))[0]["n"] == 36
    (tmp_path / {"root": "pictures", "card": "cards", "here": "."}[place] / "table.csv").unlink()
    refused = said("run", "psnr", "--dataset", "mine", *words, *RUN, status=2)
    assert "layout.table = 'table.csv' does not exist (looked for " in refused


def test_a_root_of_one_dot_is_the_folder_in_which_one_stands(tmp_path: Path, said: Said):
    write_table(tmp_path)
    (tmp_path / "mine.toml").write_text(CARD)
    for root in (".", "./", str(tmp_path)):
        assert "labelled images in .: 36" in said("data", "check", "mine", "--cards", ".", "--root", root)
        assert "mine: ok" in said("data", "check", "mine", "--cards", ".", "--root", root, "--full", "--quiet")


def windows(text: str) -> bytes:
    """The same table as Excel in German or French writes it, its images in a folder."""
    rows = [line.split(",") for line in text.splitlines()]
    columns = [f"pictures\\{d};pictures\\{r};{s.replace('.', ',')};;" for d, r, s, *_ in rows[1:]]
    return codecs.BOM_UTF16_LE + "\r\n".join(["sep=;", "Distorted;Reference;SCORE;;", *columns, ";;;;", ""]).encode("utf-16-le")


def test_a_windows_table_gives_the_scores_of_the_plain_one(tmp_path: Path, said: Said):
    plain = write_table(tmp_path / "pictures")
    (tmp_path / "w.csv").write_bytes(windows(plain.read_text()))
    assert load_dataset("w.csv").table["score"].tolist() == load_dataset(str(plain)).table["score"].tolist()
    results = [json.loads(said("run", "psnr", "--dataset", t, "--json", *RUN))[0] for t in ("w.csv", str(plain))]
    assert results[0]["srcc"] == results[1]["srcc"]
    scores = [said("score", "psnr", "--pairs", t, "--quiet") for t in ("w.csv", str(plain))]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_a_table_and_its_images_may_differ_in_how_accents_are_composed(tmp_path: Path, said: Said, written: str):
    other = {"NFC": "NFD", "NFD": "NFC"}[written]
    place = tmp_path / unicodedata.normalize(other, "Übung")
    write_table(place)
    for path in place.glob("*.png"):
        path.rename(place / unicodedata.normalize(other, f"é{path.name}"))
    rows = [line.split(",") for line in (place / "table.csv").read_text().splitlines()]
    lines = ["distorted,reference,score", *(f"Übung/é{d},Übung/é{r},{s}" for d, r, s, *_ in rows[1:])]
    (tmp_path / "t.csv").write_text(unicodedata.normalize(written, "\n".join(lines)), encoding="utf-8")
    assert json.loads(said("run", "psnr", "--dataset", "t.csv", "--json", *RUN))[0]["n"] == 36
    assert "t: ok" in said("data", "check", "t.csv")


def test_a_folder_whose_name_is_not_text_is_named_and_single_pairs_in_it_are_scored(tmp_path: Path, said: Said):
    place = tmp_path / os.fsdecode(b"la\xe9t")
    table = write_table(place)
    assert "la\\udce9t/table.csv: the name is not UTF-8 text" in said("run", "psnr", "--dataset", str(table), *RUN, status=2)
    assert "the name is not UTF-8 text" in said("data", "check", str(table), status=2)
    assert "the name is not UTF-8 text" in said("data", "check", "tid2013", "--root", str(place), status=2)
    (found,) = json.loads(said("score", "psnr", str(place / "r0.png"), str(place / "r0_fade_1.png"), "--json", "--quiet"))
    assert found["name"] == "r0_fade_1.png"


# Datasets as users have them on disk


@pytest.fixture
def tid(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tree("tid2013"), tmp_path / "tid"))


def test_a_list_with_decimal_commas_and_in_utf_16_is_the_same_list(tid: Path):
    (path,) = tid.rglob("mos_with_names.txt")
    lines = [line.split() for line in path.read_text().splitlines()]
    path.write_bytes("".join(f"{score.replace('.', ',')} {name}\r\n" for score, name in lines).encode("utf-16"))
    assert table_hash(load_dataset("tid2013", tid).table) == table_hash(load_dataset("tid2013", tree("tid2013")).table)


def test_a_spreadsheet_of_a_japanese_excel_is_the_same_spreadsheet(tmp_path: Path):
    import zipfile

    root = Path(shutil.copytree(tree("csiq"), tmp_path / "csiq"))
    (path,) = root.rglob("*.xlsx")
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    guide = '</t><rPh sb="0" eb="2"><t>エ</t></rPh></si>'.encode()
    parts["xl/sharedStrings.xml"] = parts["xl/sharedStrings.xml"].replace(b"</t></si>", guide)
    with zipfile.ZipFile(path, "w") as target:
        for name, data in parts.items():
            target.writestr(name, data)
    assert table_hash(load_dataset("csiq", root).table) == table_hash(load_dataset("csiq", tree("csiq")).table)


def test_two_spellings_of_a_name_in_one_folder_are_reported_unless_one_is_the_lists(tid: Path):
    card = find_dataset("tid2013")
    (picture_,) = tid.rglob("I01_01_1.bmp")
    shutil.copy(picture_, picture_.with_name("I01_01_1.BMP"))
    assert Path(load_dataset("tid2013", tid).table.set_index("name").loc["I01_01_1.bmp"]["distorted"]) == picture_
    picture_.rename(picture_.with_name("i01_01_1.bmp"))
    problems = "\n".join(map(str, check(card, tid, workers=1).problems))
    assert "names match several files of one folder that differ in letter case or Unicode form only: I01_01_1.bmp (" in problems


def test_files_whose_names_are_not_text_are_left_out_and_reported(tid: Path, said: Said):
    Image.fromarray(picture(1)).save(tid / os.fsdecode(b"caf\xe9.png"))
    words = said("data", "check", "tid2013", "--root", str(tid), "--allow-incomplete")
    assert "WARNING" in words
    assert "files whose names are not UTF-8 are left out: 'caf\\udce9.png'" in words


def leave(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")


def test_leftovers_of_operating_systems_are_ignored_in_every_folder(tmp_path: Path, tid: Path, said: Said):
    """Leftovers of operating systems may lie next to cards, tables, records and images."""
    for folder in {path.parent for path in tid.rglob("*")}:
        leave(folder, ".DS_Store", "Thumbs.db", "._mos_with_names.txt", "._I01_01_1.bmp")
    assert table_hash(load_dataset("tid2013", tid).table) == table_hash(load_dataset("tid2013", tree("tid2013")).table)
    cards = tmp_path / "cards"
    cards.mkdir()
    (cards / "mine.toml").write_text(CARD)
    leave(cards, "._mine.toml", ".DS_Store")
    assert "mine" in load_cards("datasets", [cards])
    table = write_table(tmp_path / "data")
    said("run", "psnr", "ssim", "--dataset", str(table), *RUN)
    for folder in [tmp_path / "r", *(path for path in (tmp_path / "r").rglob("*") if path.is_dir())]:
        leave(folder, ".DS_Store", "._psnr", "._record.json", "Thumbs.db", "._table.md")
    assert json.loads(said("compare", "psnr", "ssim", "--dataset", str(table), "--runs", "r", "--json"))["n"] == 36
    assert len(json.loads(said("leaderboard", "table", "--runs", "r", "--json"))) == 2
    board = tmp_path / "boards"
    (runs,) = {path.parent for path in (tmp_path / "r").rglob("record.json") if "psnr" in str(path)}
    said("leaderboard", "add", "--boards", str(board), str(runs))
    leave(board, "._table.md", ".DS_Store")
    leave(board / "records", ".DS_Store")
    assert "every table matches" in said("leaderboard", "check", "--boards", str(board))


def test_labels_of_a_challenge_are_read_from_a_folder_with_leftovers(tmp_path: Path):
    from harness.challenges.labels import read_truth

    (tmp_path / "labels.csv").write_text("name,score\nA0000_10_00.bmp,2007.419\nA0000_10_01.bmp,1971.443\n")
    leave(tmp_path, "._labels.csv", ".DS_Store", "Thumbs.db", "~$labels.xlsx")
    plain: dict[str, Any] = dict(read_truth(tmp_path)[0].scores)
    assert plain == {"A0000_10_00.bmp": 2007.419, "A0000_10_01.bmp": 1971.443}
    replace(tmp_path / "labels.csv", "A0000_10_00.bmp 2007,419\nA0000_10_01.bmp 1971,443\n".encode("utf-16"))
    assert read_truth(tmp_path, set(plain))[0].scores == plain
    (tmp_path / "labels.csv").unlink()
    spreadsheet(tmp_path / "labels.xlsx", {"a": [["name", "score"], *map(list, plain.items())]})
    assert read_truth(tmp_path)[0].scores == plain
