"""The options that several commands share, and the reading of their values."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from harness.runtime import logs
from harness.runtime.errors import UsageError
from harness.runtime.text import visible_document

F = TypeVar("F", bound=Callable[..., Any])


def _set_quiet(context: click.Context, option: click.Parameter, value: bool) -> None:
    logs.set_level(quiet=value)


OPTIONS: dict[str, Callable[[F], F]] = {
    "runs": click.option("--runs", default="runs", show_default=True, metavar="DIR", help="Where runs are kept."),
    "cards": click.option("--cards", multiple=True, metavar="DIR", help="A folder of your own cards; repeatable."),
    "device": click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1, ...; a GPU if there is one."),
    "seed": click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seeds all choices."),
    "offline": click.option("--offline", is_flag=True, help="Never touch the network."),
    "limit": click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N pairs of each scored part (marked)."),
    "workers": click.option(
        "--workers",
        default=0,
        type=click.IntRange(0),
        metavar="N",
        help="Processes that share the work; 0 or 1: this one, a thread per core.",
    ),
    "threads": click.option("--workers", default=0, type=click.IntRange(0), metavar="N", help="Threads; 0: one per core."),
    "ray": click.option("--ray", metavar="ADDRESS", help="Work on a running Ray cluster: host:port, or auto."),
    "batch": click.option("--batch", default=8, show_default=True, type=click.IntRange(1), help="Images at once."),
    "rehash": click.option("--rehash", is_flag=True, help="Read every image again, whatever the index of file hashes says."),
    "mlflow": click.option("--mlflow-uri", metavar="URI", help="MLflow server; default: sqlite beside the runs; off: none."),
    "quiet": click.option(
        "--quiet",
        is_flag=True,
        callback=_set_quiet,
        expose_value=False,
        help="Show warnings and errors only: no progress, no remarks.",
    ),
    "json": click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output, nothing else."),
    "debug": click.option("--debug", is_flag=True, expose_value=False, help="Tracebacks for errors."),
    "set": click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a card's setting."),
    "weights": click.option("--weights", metavar="FILE|released", help="Weights to test; nothing is trained."),
    "root": click.option("--root", metavar="DIR", help="The dataset's folder; default: $HARNESS_DATA/<name>, data/<name>."),
}


def options(*names: str) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for name in reversed(names):
            function = OPTIONS[name](function)
        return function

    return decorate


def parse_settings(pairs: Sequence[str]) -> dict[str, str]:
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {pair}: expected KEY=VALUE, such as protocol.crops=five")
        settings[key.strip()] = value.strip()
    return settings


def parse_seeds(text: str, seed: int) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if seed or not all(word.isdecimal() for word in words):
        raise UsageError(f"--seeds {text}: expected whole numbers with commas, such as 0,1,2, and no --seed beside it")
    return [int(word) for word in words]


def parse_words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def echo(text: str, *, err: bool = False) -> None:
    """Print text that may quote records, cards and archives of others: nothing in it steers the terminal."""
    click.echo(visible_document(text), err=err)


def show_message(level: int, text: str) -> None:
    """Show a message of the package's loggers on standard error."""
    echo(f"{'warning: ' if level >= logging.WARNING else ''}{text}", err=True)
