"""`harness report`: where a run's report is, and the page in a browser."""

from __future__ import annotations

import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click

from harness.cli import completion
from harness.cli.options import Argument, Option, echo, options
from harness.runtime.errors import RunError, UsageError

_RUN = {"metavar": "RUN", "shell_complete": completion.paths("dir")}


@dataclass(frozen=True)
class ReportOptions:
    """What `harness report` takes."""

    run_folder: Annotated[str, Argument(**_RUN)]
    open: Annotated[bool, Option(help="Show the page in the web browser too.")]


@click.command()
@options(ReportOptions)
def report(chosen: ReportOptions) -> None:
    """Print the path of the report of a finished RUN, its folder; with --open show it in the web browser."""
    page = page_of(Path(chosen.run_folder))
    echo(str(page))
    if chosen.open and not webbrowser.open(page.absolute().as_uri()):
        raise RunError(f"no web browser was found here ($BROWSER names one); open {page.absolute()} where there is one")


def page_of(folder: Path) -> Path:
    """The report in a run's folder. Raises UsageError where there is no finished run or no report."""
    from harness.results.report import PAGE

    if not (folder / "record.json").is_file():
        raise UsageError(f"{folder}: not the folder of a finished run (no record.json); `harness run` prints where it is")
    if not (folder / PAGE).is_file():
        raise UsageError(f"{folder}: no {PAGE} is there; the run's own command with --force makes both again")
    return folder / PAGE
