"""`harness show`: a card on one screen, all of it with --all, and a card that is a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from terminals import ESCAPES, in_terminal

from harness.cards.loading import load_cards
from harness.cards.schema import KINDS
from harness.cli.card_summary import summary
from harness.cli.listing import card_json
from harness.cli.main import cli

CARDS = [card for kind in KINDS for card in load_cards(kind).values()]


def _shown(*words: str) -> str:
    result = CliRunner().invoke(cli, ["show", *words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("width", [80, 120])
def test_every_card_fits_one_screen(width: int):
    for card in CARDS:
        lines = summary(card_json(card), width).split("\n")
        assert len(lines) <= 40, card.name
        assert max(map(len, lines)) <= width or any(len(word) > width - 10 for line in lines for word in line.split()), card.name


def test_ahiq_on_a_terminal_says_what_matters_and_where_the_rest_is():
    status, shown = in_terminal("show", "ahiq", columns=80)
    lines = ESCAPES.sub("", shown).rstrip("\n").split("\n")
    assert status == 0
    assert 24 <= len(lines) <= 40
    assert max(map(len, lines)) <= 80
    for said in (
        "licence: MIT",
        "higher_is_better: True",
        "recipe: epochs=200",
        "heads, only with --weights released",
        "SRCC .8220",
    ):
        assert said in shown, said
    assert lines[-1] == "`harness show ahiq --all` shows every field in full."
    assert "... and 16 more" in shown


def test_all_shows_every_published_figure():
    everything = _shown("ahiq", "--all")
    assert everything.count("published:") == len(json.loads(_shown("ahiq", "--json"))["published"])
    assert "... and" not in everything


@pytest.mark.parametrize("words", [["csiq"], ["csiq", "--all"]])
def test_labels_of_which_lower_is_better_are_said_to_be_so(words: list[str]):
    assert "higher_is_better: False" in _shown(*words)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["psnr", "tid2013", "ntire2022-fr", "classic"])
def test_a_cards_file_is_shown_as_the_card_is(name: str):
    path = next(card.path for card in CARDS if card.name == name)
    assert _shown(path) == _shown(name)
    assert json.loads(_shown(path, "--json"))["name"] == name


@pytest.mark.slow
def test_a_file_that_is_no_card_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "broken.toml").write_text("name = ")
    for name in ("broken.toml", "absent.toml"):
        done = subprocess.run(
            [sys.executable, "-m", "harness", "show", name], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert done.stderr.startswith(f"harness: {name}: ")
        assert done.stderr.count("\n") == 1
