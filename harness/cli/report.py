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


@dataclass(frozen=True)
class ReportOptions:
    """What `harness report` takes."""

    run_folder: Annotated[str, Argument(metavar="RUN", shell_complete=completion.paths("dir"))]
    open: Annotated[bool, Option(help="Show the page in the web browser too.")]


@click.command()
@options(ReportOptions)
def report(chosen: ReportOptions) -> None:
    """Print the path of the report of a finished RUN, its folder; with --open show it in the web browser."""
    from harness.results.report import PAGE

    folder = Path(chosen.run_folder)
    page = folder / PAGE
    if not (folder / "record.json").is_file():
        raise UsageError(f"{folder}: not the folder of a finished run (no record.json); `harness run` prints where it is")
    if not page.is_file():
        raise UsageError(f"{folder}: no {PAGE} is there; the run's own command with --force makes both again")
    echo(str(page))
    if chosen.open and not webbrowser.open(page.absolute().as_uri()):
        raise RunError(f"no web browser was found here ($BROWSER names one); open {page.absolute()} where there is one")
