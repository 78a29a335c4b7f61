"""`harness leaderboard`: tables from finished runs; `add`, `write` and `check` keep the committed ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from harness.cli.options import echo, options
from harness.runtime.errors import UsageError

_BEFORE = {"--add": "add RUN ...", "--write": "write", "--check": "check", "--measure-again": "write --measure-again"}
_boards = click.option(
    "--boards", default="leaderboards", show_default=True, metavar="DIR", help="The folder of committed tables and their records."
)


class _ShowsByDefault(click.Group):
    """A group whose `show` may be left out: `leaderboard`, `leaderboard demo --html`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `show` in front of anything that is not a subcommand."""
        if (not args or args[0] not in self.commands) and not {"-h", "--help"} & set(args):
            if old := next((word for word in args if word in _BEFORE), None):
                raise UsageError(f"{old} is a command of its own now: harness leaderboard {_BEFORE[old]}")
            args = ["show", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The two forms."""
        formatter.write_usage("harness leaderboard", "[NAME] [OPTIONS]  |  show|add|write|check ...")


@click.group("leaderboard", cls=_ShowsByDefault)
def leaderboard_() -> None:
    """Rank finished runs. Without a subcommand the tables are shown; `show --help` lists the options of that."""


@leaderboard_.command("show")
@click.argument("name", required=False)
@_boards
@click.option(
    "--html", metavar="[DIR]", is_flag=False, flag_value="", help="Write the page index.html there; default: beside the records."
)
@click.option("--latex", is_flag=True, help="LaTeX tables.")
@options("runs", "cards", "json", "debug")
def show(name: str | None, boards: str, html: str | None, latex: bool, runs: str, cards: Sequence[str], as_json: bool) -> None:
    """Show a dataset's table, or all of them, or a challenge's published board with your own submissions next to it."""
    from harness import leaderboard
    from harness.challenges import standings
    from harness.datasets import dataset_card, is_table

    if name is not None and (is_table(name) or name.endswith(".toml")):
        name = dataset_card(name, cards).name
    if name is not None and not latex and html is None and standings.is_challenge(name, cards):
        rows = standings.numbers(name, runs, cards) if as_json else None
        echo(_json(rows) if as_json else standings.show(name, runs, cards))
    elif html is not None:
        echo(str(leaderboard.write_page(html or None, runs, boards, name)))
    elif as_json:
        echo(_json(leaderboard.numbers(name, runs, boards)))
    else:
        echo(leaderboard.show(name, runs, boards, latex=latex))


@leaderboard_.command("add")
@click.argument("folders", nargs=-1, required=True, metavar="RUN...")
@_boards
@options("debug")
def add(folders: Sequence[str], boards: str) -> None:
    """Put finished runs among the committed records, and write the tables."""
    from harness import leaderboard

    leaderboard.add(folders, boards)
    _written(leaderboard.write(boards))


@leaderboard_.command("write")
@click.argument("name", required=False)
@_boards
@click.option("--measure-again", is_flag=True, help="First compute the records' figures from their scores again.")
@options("cards", "debug")
def write(name: str | None, boards: str, measure_again: bool, cards: Sequence[str]) -> None:
    """Write the committed tables from their records."""
    from harness import leaderboard

    if measure_again:
        from harness.engine import verify

        for folder, changed in verify.measure_all_again(leaderboard.committed(name, boards), cards=cards):
            echo("\n".join(f"{folder}: {line}" for line in changed or ["figures as before"]), err=True)
    _written(leaderboard.write(boards))


@leaderboard_.command("check")
@_boards
@options("debug")
def check(boards: str) -> None:
    """End with status 1 where committed tables differ from what their records give."""
    from harness import leaderboard

    differences = leaderboard.check(boards)
    echo("\n".join(differences) or f"{boards}: every table is what its records give")
    raise SystemExit(1 if differences else 0)


def _written(paths: Sequence[Any]) -> None:
    for path in paths:
        echo(str(path), err=True)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
