"""What the command line prints on a terminal: tables fit it, colours are for terminals only, pipes get everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from record_factory import make
from terminals import ESCAPES, in_terminal

from harness.runtime.terminal_columns import text_table


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the records of two models."""
    folder = tmp_path_factory.mktemp("place")
    for name, noise in (("net", 0.5), ("a-network-whose-name-is-longer-than-thirty-characters", 2.0)):
        make(folder / "runs", name, references=8, noise=noise)
    return folder


def _piped(place: Path, *words: str, **environment: str) -> str:
    command = [sys.executable, "-m", "harness", *words]
    done = subprocess.run(command, cwd=place, env=os.environ | environment, capture_output=True, text=True, check=True)
    return done.stdout


def _table(text: str) -> list[str]:
    """The lines of the first table."""
    lines = ESCAPES.sub("", text).split("\n")
    rule = next(n for n, line in enumerate(lines) if set(line) == {"-", " "} and n)
    return lines[rule - 1 : next(n for n in range(rule, len(lines)) if not lines[n].strip() or lines[n].startswith("*"))]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80, 100])
def test_the_tables_of_list_fit_the_terminal(columns: int):
    status, shown = in_terminal("list", columns=columns)
    assert status == 0
    assert max(map(len, ESCAPES.sub("", shown).split("\n"))) <= columns
    assert "ssim-rgb" in shown


@pytest.mark.slow
def test_a_leaderboard_drops_columns_and_says_which(place: Path):
    _, narrow = in_terminal("leaderboard", columns=80, cwd=place)
    table = _table(narrow)
    assert max(map(len, table)) <= 80
    assert "SRCC [95%]" in table[0]
    assert "record" not in table[0]
    said = " ".join(table[table.index(next(line for line in table if line.startswith("("))) :])
    assert said.startswith("(no room for: record, pairs/s")
    assert said.endswith("--wide shows all columns)")


@pytest.mark.slow
def test_wide_and_pipes_show_all_columns(place: Path):
    everything = _piped(place, "leaderboard", COLUMNS="40")
    assert "no room" not in everything
    assert "\x1b" not in everything
    assert "a-network-whose-name-is-longer-than-thirty-characters" in everything
    _, wide = in_terminal("leaderboard", "--wide", columns=40, cwd=place)
    assert ESCAPES.sub("", wide) == everything


@pytest.mark.slow
@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_are_for_terminals_that_want_them(place: Path, environment: dict[str, str], coloured: bool):
    _, shown = in_terminal("leaderboard", cwd=place, environment=environment)
    assert ("\x1b[" in shown) is coloured
    _, refused = in_terminal("show", "no-such-card", environment=environment)
    assert ("\x1b[31m" in refused) is coloured
    assert "no card called 'no-such-card'" in refused


HEADERS = ["model", "SRCC", "n", "marks"]
ROWS = [["a model with quite a long name", ".853", "10", "seen"], ["ssim", ".8", "1000", ""]]


def test_columns_drop_in_the_stated_order_and_no_sooner_than_needed():
    seen = {}
    for width in range(60, 20, -1):
        table = text_table(HEADERS, ROWS, width=width, drops=["n", "marks"])
        assert max(map(len, table.text.split("\n")[:-1])) <= width
        seen.setdefault(table.dropped, width)
    assert list(seen) == [(), ("n",), ("n", "marks")]
    assert seen[("n",)] == 30 + 2 + 4 + 2 + 4 + 2 + 5 - 1


def test_long_text_is_cut_before_a_column_is_dropped():
    table = text_table(HEADERS, ROWS, width=43, drops=["n", "marks"], shortens=["model"])
    assert table.dropped == ()
    assert table.text.split("\n")[2] == "a model with quite a lo…  .853  10    seen"


def test_columns_without_text_go_first_and_are_not_named():
    table = text_table(["a", "p", "b"], [["x" * 10, "", "y" * 10]], width=22, drops=["b", "p"])
    assert table.text == "a           b\n----------  ----------\nxxxxxxxxxx  yyyyyyyyyy"


def test_characters_of_two_columns_count_twice():
    table = text_table(["name", "n"], [["図書館図書館図書館図書館", "1"], ["x", "2"]], width=20, shortens=["name"])
    assert table.text.split("\n")[2] == "図書館図書館図書…  1"


def test_a_table_without_rows_fits_too():
    assert text_table(["a" * 30, "b" * 30], [], width=40, drops=["b" * 30]).dropped == ("b" * 30,)
