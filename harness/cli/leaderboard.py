"""`harness leaderboard`: tables of finished runs; `add`, `write` and `check` maintain the committed ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import click

from harness.cli import completion
from harness.cli import options as o
from harness.cli.options import WORDS, Argument, Option, echo, options
from harness.runtime.errors import UsageError

_BEFORE = {"--add": "add RUN ...", "--write": "write", "--check": "check", "--measure-again": "write --measure-again"}
_BOARDS = {"default": "leaderboards", "show_default": True, "metavar": "DIR"}
_HTML = {"metavar": "[DIR]", "is_flag": False, "flag_value": ""}
_COLUMNS = "With --suite or --latex: show these columns; an unknown one lists them all."

Boards = Annotated[str, Option(help="Keep committed tables and their records in this folder.", **_BOARDS)]
_COMMANDS = {"add": "Add finished runs to the committed records.", "write": "Write the tables.", "check": "Check the tables."}
Name = Annotated[str | None, Argument(shell_complete=completion.cards("datasets", "challenges", files=False))]
Shown = Annotated[str | None, Argument(shell_complete=completion.cards("datasets", "challenges", also=_COMMANDS, files=False))]


@dataclass(frozen=True)
class ShowOptions:
    """Options of `harness leaderboard show`."""

    name: Shown
    boards: Boards
    html: Annotated[str | None, Option(help="Write the page index.html to this folder; default: next to the records.", **_HTML)]
    suite: Annotated[str | None, Option(help="Show models by the datasets of a suite, in one table.", **o.SUITE)]
    protocol: Annotated[str | None, Option(help="With --suite: use this protocol for every dataset.", **o.PROTOCOL)]
    intervals: Annotated[bool, Option(help="With --suite or --latex: show the intervals of all figures.")]
    columns: Annotated[tuple[str, ...], Option(help=_COLUMNS, **WORDS)]
    latex: Annotated[bool, Option(help="Print LaTeX tables (booktabs), with caption and label.")]
    standalone: Annotated[bool, Option(help="With --latex: print a document that compiles alone.")]
    as_csv: Annotated[bool, Option("--csv", help="With --suite: print comma-separated values with all digits.")]
    as_markdown: Annotated[bool, Option("--markdown", help="With --suite: print a Markdown document.")]
    runs: o.Runs
    cards: o.Cards
    wide: o.Wide
    as_json: o.Json

    @property
    def forms(self) -> dict[str, bool]:
        """The formats of a table other than text, and whether each is chosen."""
        forms = {"--latex": self.latex, "--csv": self.as_csv, "--markdown": self.as_markdown, "--json": self.as_json}
        return {**forms, "--html": self.html is not None}


@dataclass(frozen=True)
class AddOptions:
    """Options of `harness leaderboard add`."""

    folders: Annotated[tuple[str, ...], Argument(required=True, metavar="RUN...", shell_complete=completion.paths("dir"))]
    boards: Boards


@dataclass(frozen=True)
class WriteOptions:
    """Options of `harness leaderboard write`."""

    name: Name
    boards: Boards
    measure_again: Annotated[bool, Option(help="First recompute the records' figures from their scores.")]
    cards: o.Cards


@dataclass(frozen=True)
class CheckOptions:
    """Options of `harness leaderboard check`."""

    boards: Boards


class _ShowsByDefault(click.Group):
    """A group whose `show` may be left out: `leaderboard`, `leaderboard demo --html`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `show` in front of anything that is not a subcommand."""
        if (not args or args[0] not in self.commands) and not {"-h", "--help"} & set(args):
            if old := next((word for word in args if word in _BEFORE), None):
                raise UsageError(f"{old} is a subcommand now: harness leaderboard {_BEFORE[old]}")
            args = ["show", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The two forms of the command."""
        formatter.write_usage("harness leaderboard", "[NAME] [OPTIONS]  |  show|add|write|check ...")


@click.group("leaderboard", cls=_ShowsByDefault)
def leaderboard_() -> None:
    """Rank finished runs. Without a subcommand the tables are shown; `show --help` lists its options."""


@leaderboard_.command("show")
@options(ShowOptions)
def show(chosen: ShowOptions) -> None:
    """Show the table of a dataset, of all datasets or of a suite, or a challenge's published board with your own submissions."""
    from harness import leaderboard
    from harness.challenges import standings
    from harness.datasets import dataset_card, is_table
    from harness.leaderboard.latex import FIGURES, OTHERS, chosen_columns

    name, suite, width = chosen.name, chosen.suite, o.table_width(chosen.wide)

    if sum(chosen.forms.values()) > 1:
        raise UsageError(f"{' and '.join(form for form, on in chosen.forms.items() if on)}: choose one format")
    lone = {"--csv": chosen.as_csv, "--markdown": chosen.as_markdown, "--protocol": chosen.protocol is not None}
    if suite is None and any(lone.values()):
        raise UsageError(f"{' and '.join(word for word, on in lone.items() if on)} needs --suite")
    if suite is None and not chosen.latex and (chosen.intervals or chosen.columns):
        raise UsageError(f"{'--intervals' if chosen.intervals else '--columns'} needs --suite or --latex")
    if chosen.standalone and not chosen.latex:
        raise UsageError("--standalone needs --latex")
    if suite is not None:
        if name is not None or chosen.html is not None:
            raise UsageError(f"--suite shows all datasets of the suite: leave out {name or '--html'}")
        echo(_suite(suite, chosen))
        return
    if name is not None and (is_table(name) or name.endswith(".toml")):
        name = dataset_card(name, chosen.cards).name
    if name is not None and not chosen.latex and chosen.html is None and standings.is_challenge(name, chosen.cards):
        rows = standings.numbers(name, chosen.runs, chosen.cards) if chosen.as_json else None
        echo(o.json_text(rows) if chosen.as_json else standings.show(name, chosen.runs, chosen.cards, width))
    elif chosen.html is not None:
        echo(str(leaderboard.write_page(chosen.html or None, chosen.runs, chosen.boards, name)))
    elif chosen.as_json:
        echo(o.json_text(leaderboard.numbers(name, chosen.runs, chosen.boards)))
    else:
        columns = chosen_columns(chosen.columns, FIGURES | OTHERS)
        how = leaderboard.Latex(columns, chosen.intervals, chosen.standalone) if chosen.latex else None
        echo(leaderboard.show(name, chosen.runs, chosen.boards, latex=how, width=width))


def _suite(suite: str, chosen: ShowOptions) -> str:
    """A suite's matrix in the chosen format."""
    from harness import leaderboard
    from harness.datasets.suites import load_suite
    from harness.leaderboard import latex, matrix_text
    from harness.leaderboard.matrix import FIGURES, facts

    figures = latex.chosen_columns(chosen.columns, FIGURES)
    wanted = load_suite(suite, cards=chosen.cards, protocol=chosen.protocol)
    shown, unreadable = leaderboard.suite_matrix(wanted, chosen.runs, chosen.boards, figures)
    for line in unreadable:
        echo(f"left out: {line}", err=True)
    if chosen.as_json:
        return o.json_text(facts(shown))
    if chosen.as_csv:
        return matrix_text.csv(shown).rstrip("\n")
    if chosen.as_markdown:
        return matrix_text.markdown(shown, intervals=chosen.intervals).rstrip("\n")
    if chosen.latex:
        table = latex.matrix_table(shown, intervals=chosen.intervals)
        return (latex.document([table]) if chosen.standalone else table).rstrip("\n")
    return matrix_text.terminal(shown, intervals=chosen.intervals, width=o.table_width(chosen.wide))


@leaderboard_.command("add")
@options(AddOptions)
def add(chosen: AddOptions) -> None:
    """Add finished runs to the committed records, and write the tables."""
    from harness import leaderboard

    leaderboard.add(chosen.folders, chosen.boards)
    for path in leaderboard.write(chosen.boards):
        echo(str(path), err=True)


@leaderboard_.command("write")
@options(WriteOptions)
def write(chosen: WriteOptions) -> None:
    """Write the committed tables from their records."""
    from harness import leaderboard

    if chosen.measure_again:
        from harness.engine import verify

        folders = leaderboard.committed(chosen.name, chosen.boards)
        for folder, changed in verify.measure_all_again(folders, cards=chosen.cards):
            echo("\n".join(f"{folder}: {line}" for line in changed or ["figures unchanged"]), err=True)
    for path in leaderboard.write(chosen.boards):
        echo(str(path), err=True)


@leaderboard_.command("check")
@options(CheckOptions)
def check(chosen: CheckOptions) -> None:
    """Exit with status 1 where committed tables differ from their records."""
    from harness import leaderboard

    differences = leaderboard.check(chosen.boards)
    echo("\n".join(differences) or f"{chosen.boards}: every table matches its records")
    raise SystemExit(1 if differences else 0)
