"""The `harness` command: its subcommands, error messages and exit statuses."""

from __future__ import annotations

import gc
import importlib
import io
import signal
import sys
from collections import UserDict
from collections.abc import Sequence
from typing import Any

import click

from harness.cli.options import echo, show_message
from harness.runtime import logs, signals, streams
from harness.runtime.errors import HarnessError


class _Commands(UserDict[str, Any]):
    """The commands by name, from `MODULE:COMMAND` by name; a command's module is imported when the command is asked for."""

    def __getitem__(self, name: str) -> Any:
        module, command = self.data[name].split(":")
        return getattr(importlib.import_module(f"harness.cli.{module}"), command)


# click lists and suggests the names of this table without importing the commands; `--help` imports them all.
_COMMANDS = _Commands(
    {
        "agreement": "compare:agreement_",
        "challenge": "challenge:challenge_",
        "codecs": "codecs:codecs_",
        "compare": "compare:compare",
        "data": "data:data_",
        "doctor": "doctor:doctor",
        "ensemble": "ensemble:ensemble",
        "leaderboard": "leaderboard:leaderboard_",
        "list": "listing:list_",
        "report": "report:report",
        "run": "run:run",
        "score": "score:score",
        "show": "listing:show",
        "submission": "submission:submission_",
        "submit": "submission:submit",
        "tune": "tune:tune",
        "verify": "verify:verify",
        "weights": "weights:weights_",
    }
)


@click.group(commands=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="iqa-harness", prog_name="harness")
def cli() -> None:
    """Benchmark full-reference image quality models: train, score, measure agreement, rank.

    Start with:  harness run psnr ssim ahiq-tiny --dataset demo
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 done, 1 failed, 2 a wrong request, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Most objects of a command live until its end, and looking through them for garbage takes time.
    gc.set_threshold(100_000)
    with streams.guarded() as out:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a name that is not text is shown as escaped bytes
                stream.reconfigure(errors="backslashreplace")
        try:
            with signals.handled(), logs.handled(show_message):
                done = cli.main(words, prog_name="harness", standalone_mode=False)
                status = done if isinstance(done, int) else 0
        except BaseException as error:
            # A library may have turned a stop into an error of its own.
            stopped = signals.received() or (signal.SIGINT if isinstance(error, KeyboardInterrupt | click.Abort) else None)
            if ("--debug" in words and not isinstance(error, click.ClickException)) or (
                stopped is None and isinstance(error, SystemExit)
            ):
                raise
            if stopped:
                echo("harness: stopped; the same command continues from here", err=True)
            status = 128 + stopped if stopped else _failed(error)
        if out is not None and (refused := out.refusal()) is not None:
            status = status or 1
            # A reader that ended early (`| head`) needs no message.
            if not isinstance(refused, BrokenPipeError):
                click.echo(f"harness: standard output cannot be written: {refused.strerror}", err=True)
    sys.exit(status)


def _failed(error: BaseException) -> int:
    """Print the error; returns the exit status."""
    match error:
        case click.ClickException():
            error.show()
            return 2
        case HarnessError():
            echo(f"harness: {error}", err=True)
            return error.exit_status
        case OSError() if getattr(sys.stdout, "refused", None) is error:
            return 1  # `main` reports it
        case _:
            echo(f"harness: {type(error).__name__}: {error} (this is a bug of the harness; --debug shows where)", err=True)
            return 1
