"""The table of commands: each is imported when it is asked for, and all are known by name."""

from __future__ import annotations

import os
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


def test_numpy_is_first_imported_where_compare_chooses_its_threads(tmp_path: Path):
    """numpy's BLAS reads the number of threads when it is first imported; afterwards the choice would mean nothing."""
    for name in ("a.csv", "b.csv", "labels.csv"):
        rows = [f"{i},{(i * len(name) * 7) % 11},r{i % 5}" for i in range(40)]
        (tmp_path / name).write_text("\n".join(["name,score,reference_id", *rows]), encoding="utf-8")
    code = (
        "import os, sys; from harness.cli.main import main\n"
        "assert 'numpy' not in sys.modules\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'numpy': print('numpy with', os.environ.get('OPENBLAS_NUM_THREADS'), file=sys.stderr)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "try: main()\n"
        "finally: print('after', os.environ.get('OPENBLAS_NUM_THREADS'), file=sys.stderr)"
    )
    words = ["compare", "a.csv", "b.csv", "--labels", "labels.csv"]
    for own, seen, after in ((None, "1", "None"), ("2", "2", "2")):
        environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
        environment |= {"OPENBLAS_NUM_THREADS": own} if own else {}
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines()[0] == f"numpy with {seen}"
        assert done.stderr.splitlines()[-1] == f"after {after}"


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
