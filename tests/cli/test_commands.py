"""The table of commands: each is imported when it is asked for, and all are known by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import harness.cli
from harness.cli.main import cli

NO_COMMANDS = {"", "card_summary", "completion", "main", "options"}
"""Modules of `harness.cli` without a command."""


def _imported(*words: str) -> set[str]:
    """The modules of `harness.cli` that `harness WORDS` imports."""
    code = (
        "import sys; from harness.cli.main import main\n"
        "try: main()\n"
        "finally: print(*[name for name in sys.modules if name.startswith('harness.cli.')])"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    return {name.removeprefix("harness.cli.") for name in done.stdout.splitlines()[-1].split()}


def test_every_command_of_the_modules_is_in_the_table():
    files = {path.stem for path in Path(harness.cli.__path__[0]).glob("*.py")}
    commands = dict(cli.commands.items())
    assert {name: command.name for name, command in commands.items()} == {name: name for name in commands}
    modules = {getattr(command.callback, "__module__", None) for command in commands.values()}
    assert modules == {f"harness.cli.{name}" for name in files - NO_COMMANDS - {"__init__"}}


@pytest.mark.parametrize(
    ("words", "module"),
    [(("list", "suites"), "listing"), (("--version",), None), (("lsit",), None), (("report", "absent"), "report")],
    ids=str,
)
def test_only_the_module_of_the_command_is_imported(words: tuple[str, ...], module: str | None):
    assert _imported(*words) - NO_COMMANDS == ({module} if module else set())


def test_help_lists_every_command_with_its_help():
    shown = CliRunner().invoke(cli, ["--help"]).output.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in shown] == sorted(cli.commands)
    assert all(cli.commands[line.split()[0]].get_short_help_str()[:30] in line for line in shown)


@pytest.mark.parametrize(("word", "meant"), [("lst", "list"), ("compar", "compare"), ("submision", "submission")])
def test_a_misspelt_command_is_refused(word: str, meant: str, said: Callable[..., str]):
    shown = said(word, status=2)
    assert f"No such command '{word}'" in shown
    # click before 8.4 does not suggest a name.
    assert "Did you mean" not in shown or f"'{meant}'" in shown
