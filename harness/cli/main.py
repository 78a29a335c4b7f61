"""The `harness` command: its subcommands, error messages and exit statuses."""

from __future__ import annotations

import gc
import io
import signal
import sys
from collections.abc import Sequence

import click

from harness.cli.challenge import challenge_
from harness.cli.codecs import codecs_
from harness.cli.compare import agreement_, compare
from harness.cli.data import data_
from harness.cli.doctor import doctor
from harness.cli.ensemble import ensemble
from harness.cli.leaderboard import leaderboard_
from harness.cli.listing import list_, show
from harness.cli.options import echo, show_message
from harness.cli.report import report
from harness.cli.run import run
from harness.cli.score import score
from harness.cli.submission import submission_, submit
from harness.cli.tune import tune
from harness.cli.verify import verify
from harness.cli.weights import weights_
from harness.runtime import logs, signals, streams
from harness.runtime.errors import HarnessError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="iqa-harness", prog_name="harness")
def cli() -> None:
    """Benchmark full-reference image quality models: train, score, measure agreement, rank.

    Start with:  harness run psnr ssim ahiq-tiny --dataset demo
    """


for _command in (
    list_, show, run, score, agreement_, compare, codecs_, ensemble, tune, verify, report, leaderboard_, data_, submit,
    submission_, challenge_, weights_, doctor,
):  # fmt: skip
    cli.add_command(_command)


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
