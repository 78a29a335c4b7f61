"""`harness leaderboard`: tables from finished runs; `add`, `write` and `check` keep the committed ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from harness.cli.options import echo, options, parse_words
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
@click.option("--suite", metavar="NAME|CARD.toml", help="Models by the datasets of a suite, in one table.")
@click.option("--protocol", metavar="NAME", help="With --suite: of every dataset; default: as the suite's card says.")
@click.option("--intervals", is_flag=True, help="With --suite or --latex: the intervals of all figures.")
@click.option("--columns", metavar="A,B,...", help="With --suite or --latex: which columns; an unknown one lists them all.")
@click.option("--latex", is_flag=True, help="LaTeX tables (booktabs), with caption and label.")
@click.option("--standalone", is_flag=True, help="With --latex: a document that compiles alone.")
@click.option("--csv", "as_csv", is_flag=True, help="With --suite: comma-separated, all digits.")
@click.option("--markdown", "as_markdown", is_flag=True, help="With --suite: a Markdown document.")
@options("runs", "cards", "json", "debug")
def show(
    name: str | None,
    boards: str,
    html: str | None,
    suite: str | None,
    protocol: str | None,
    intervals: bool,
    columns: str | None,
    latex: bool,
    standalone: bool,
    as_csv: bool,
    as_markdown: bool,
    runs: str,
    cards: Sequence[str],
    as_json: bool,
) -> None:
    """Show a dataset's table, or all, or a suite's, or a challenge's published board with your own submissions next to it."""
    from harness import leaderboard
    from harness.challenges import standings
    from harness.datasets import dataset_card, is_table
    from harness.leaderboard.latex import FIGURES, OTHERS, chosen_columns

    forms = {"--latex": latex, "--csv": as_csv, "--markdown": as_markdown, "--json": as_json, "--html": html is not None}
    if sum(forms.values()) > 1:
        raise UsageError(f"{' and '.join(form for form, on in forms.items() if on)}: choose one form")
    lone = {"--csv": as_csv, "--markdown": as_markdown, "--protocol": protocol is not None}
    if suite is None and any(lone.values()):
        raise UsageError(f"{' and '.join(word for word, on in lone.items() if on)} needs --suite")
    if suite is None and not latex and (intervals or columns):
        raise UsageError(f"{'--intervals' if intervals else '--columns'} needs --suite or --latex")
    if standalone and not latex:
        raise UsageError("--standalone needs --latex")
    if suite is not None:
        if name is not None or html is not None:
            raise UsageError(f"--suite shows all datasets of the suite: leave out {name or '--html'}")
        echo(
            _suite(suite, protocol, boards, runs, cards, parse_words(columns), forms, intervals=intervals, standalone=standalone)
        )
        return
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
        chosen = chosen_columns(parse_words(columns), FIGURES | OTHERS)
        how = leaderboard.Latex(chosen, intervals, standalone) if latex else None
        echo(leaderboard.show(name, runs, boards, latex=how))


def _suite(
    suite: str,
    protocol: str | None,
    boards: str,
    runs: str,
    cards: Sequence[str],
    columns: Sequence[str],
    forms: Mapping[str, bool],
    *,
    intervals: bool,
    standalone: bool,
) -> str:
    """A suite's matrix in the form that was asked for."""
    from harness import leaderboard
    from harness.datasets.suites import load_suite
    from harness.leaderboard import latex, matrix_text
    from harness.leaderboard.matrix import FIGURES, facts

    figures = latex.chosen_columns(columns, FIGURES)
    shown, unreadable = leaderboard.suite_matrix(load_suite(suite, cards=cards, protocol=protocol), runs, boards, figures)
    for line in unreadable:
        echo(f"left out: {line}", err=True)
    if forms["--json"]:
        return _json(facts(shown))
    if forms["--csv"]:
        return matrix_text.csv(shown).rstrip("\n")
    if forms["--markdown"]:
        return matrix_text.markdown(shown, intervals=intervals).rstrip("\n")
    if forms["--latex"]:
        table = latex.matrix_table(shown, intervals=intervals)
        return (latex.document([table]) if standalone else table).rstrip("\n")
    return matrix_text.terminal(shown, intervals=intervals)


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
