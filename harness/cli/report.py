"""`harness report`: prints the path of a run's report, and opens it in a browser."""

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
    """Options of `harness report`."""

    run_folder: Annotated[str, Argument(metavar="RUN", shell_complete=completion.paths("dir"))]
    open: Annotated[bool, Option(help="Show the page in the web browser too.")]


@click.command()
@options(ReportOptions)
def report(chosen: ReportOptions) -> None:
    """Print the path of the report in the folder of a finished RUN; with --open show it in the web browser."""
    from harness.results.report import PAGE

    folder = Path(chosen.run_folder)
    page = folder / PAGE
    if not (folder / "record.json").is_file():
        raise UsageError(f"{folder}: not the folder of a finished run (no record.json); `harness run` prints the folder")
    if not page.is_file():
        raise UsageError(f"{folder}: no {PAGE} in it; the run's own command with --force makes it again")
    echo(str(page))
    if chosen.open and not webbrowser.open(page.absolute().as_uri()):
        raise RunError(f"no web browser was found ($BROWSER names one); open {page.absolute()} in a browser")
