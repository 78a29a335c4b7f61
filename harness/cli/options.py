"""Options of the commands: each is declared once, as a field's type; the options of a command are a dataclass."""

from __future__ import annotations

import functools
import inspect
import json
import logging
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import click

from harness.cli import completion
from harness.runtime import logs
from harness.runtime.errors import UsageError
from harness.runtime.text import visible_document

if TYPE_CHECKING:
    from harness.engine.request import Request

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Option:
    """The command line's option for a field: `Annotated[int, Option(default=8, help="Images at once.")]`.

    The field's name gives the option's (`keep_shared` is `--keep-shared`) unless `flag` does. A `bool` is a flag, a tuple is
    repeatable.

    Args:
        flag: The option's name where it differs from the field's, such as `--format` of the field `form`.
        attributes: Further arguments of click.option.
    """

    def __init__(self, flag: str = "", **attributes: Any) -> None:
        self.flag, self.attributes = flag, attributes

    def decorator(self, name: str, kind: Any) -> Callable[[F], F]:
        """The click decorator of the field `name`, of type `kind`."""
        implied = {"is_flag": True} if kind is bool else {"multiple": True} if get_origin(kind) is tuple else {}
        completer = completion.for_metavar(self.attributes.get("metavar") or "")
        attributes = {"shell_complete": completer, **implied, **self.attributes}
        return click.option(self.flag or f"--{name.replace('_', '-')}", name, **attributes)


class Argument(Option):
    """The same for a positional argument; a tuple takes all remaining arguments."""

    def decorator(self, name: str, kind: Any) -> Callable[[F], F]:
        """The click decorator of the field `name`, of type `kind`."""
        implied = {"nargs": -1} if get_origin(kind) is tuple else {"required": type(None) not in get_args(kind)}
        return click.argument(name, **{**implied, **self.attributes})


def _set_quiet(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    logs.set_level(quiet=value)
    return value


def _words(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (value or "").split(",") if word.strip())


def _settings(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    settings = {}
    for pair in value:
        key, equals, given = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {pair}: expected KEY=VALUE, such as protocol.crops=five")
        settings[key.strip()] = given.strip()
    return settings


WORDS: Mapping[str, Any] = {"multiple": False, "metavar": "A,B,...", "callback": _words}
"""Attributes of an option whose value is a list of words with commas between them."""
SETTINGS: Mapping[str, Any] = {"multiple": True, "metavar": "KEY=VALUE", "callback": _settings}


_MODELS = completion.cards("models")
_DEVICE: Mapping[str, Any] = {"metavar": "NAME", "shell_complete": completion.words("cpu", "cuda", "cuda:0")}
_RELEASED = completion.cards(also={"released": "the weights that the authors released"})
_WEIGHTS: Mapping[str, Any] = {"metavar": "FILE|released", "shell_complete": _RELEASED}
_AT_LEAST_0, _AT_LEAST_1 = click.IntRange(0), click.IntRange(1)
_WORKERS = "Share the work among N processes; 0 or 1: one process, with a thread per core."
_QUIET = "Show warnings and errors only: no progress, no information."
_CARDS = "Search this folder for cards too; repeatable."
_ROOT = "Read the dataset from this folder; default: $HARNESS_DATA/<name>, data/<name>."

DATASET: Mapping[str, Any] = {"metavar": "NAME|TABLE.csv", "shell_complete": completion.cards("datasets")}
PROTOCOL: Mapping[str, Any] = {"metavar": "NAME", "shell_complete": completion.keys_of("datasets", "protocols", "dataset")}
CHALLENGE: Mapping[str, Any] = {"metavar": "NAME", "shell_complete": completion.cards("challenges", files=False)}
PHASE: Mapping[str, Any] = {"metavar": "NAME", "shell_complete": completion.keys_of("challenges", "phases", "challenge")}
SUITE: Mapping[str, Any] = {"metavar": "NAME|CARD.toml", "shell_complete": completion.cards("suites")}
DATASETS: Mapping[str, Any] = {**WORDS, "shell_complete": completion.listed_cards("datasets")}
METRICS: Mapping[str, Any] = {**WORDS, "shell_complete": completion.listed_cards("models")}

Runs = Annotated[str, Option(default="runs", show_default=True, metavar="DIR", help="Keep runs in this folder.")]
Model = Annotated[str, Argument(metavar="NAME", shell_complete=_MODELS)]
Models = Annotated[tuple[str, ...], Argument(shell_complete=_MODELS)]
DatasetName = Annotated[str, Argument(metavar="NAME", shell_complete=completion.cards("datasets"))]
Cards = Annotated[tuple[str, ...], Option(metavar="DIR", help=_CARDS)]
Device = Annotated[str | None, Option(help="Compute on cpu, cuda, cuda:1, ...; default: a GPU if there is one.", **_DEVICE)]
Seed = Annotated[int, Option(default=0, show_default=True, type=_AT_LEAST_0, help="Seed all random choices with this number.")]
Offline = Annotated[bool, Option(help="Never use the network.")]
Limit = Annotated[
    int | None, Option(type=_AT_LEAST_1, metavar="N", help="Score at most N pairs of each part; the result is marked.")
]
Workers = Annotated[int, Option(default=0, type=_AT_LEAST_0, metavar="N", help=_WORKERS)]
Threads = Annotated[int, Option("--workers", default=0, type=_AT_LEAST_0, metavar="N", help="Use N threads; 0: one per core.")]
Ray = Annotated[str | None, Option(metavar="ADDRESS", help="Use a running Ray cluster: host:port, or auto.")]
Batch = Annotated[int, Option(default=8, show_default=True, type=_AT_LEAST_1, help="Score this many images at once.")]
Rehash = Annotated[bool, Option(help="Read every image again, without the index of file hashes.")]
Mlflow = Annotated[str | None, Option(metavar="URI", help="Log to this MLflow too; default: sqlite next to the runs; off: none.")]
Quiet = Annotated[bool, Option(callback=_set_quiet, help=_QUIET)]
Json = Annotated[bool, Option("--json", help="Print one JSON document and nothing else.")]
Wide = Annotated[bool, Option(help="Show all columns of tables, also if they are wider than the terminal.")]
Settings = Annotated[Mapping[str, str], Option("--set", help="Override a setting of the card; repeatable.", **SETTINGS)]
Weights = Annotated[str | None, Option(help="Test these weights without training.", **_WEIGHTS)]
Root = Annotated[str | None, Option(metavar="DIR", help=_ROOT)]
Dataset = Annotated[str | None, Option(help="Use this dataset, or this table of pairs.", **DATASET)]
Protocol = Annotated[str | None, Option(help="Train, validate and test on the images that this protocol selects.", **PROTOCOL)]

_DEBUG = click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks of errors.")


@dataclass(frozen=True)
class Output:
    """Options of commands with JSON output."""

    quiet: Quiet
    as_json: Json


@dataclass(frozen=True)
class CardsOutput(Output):
    """Options of commands with JSON output that look up cards."""

    cards: Cards


@dataclass(frozen=True)
class TableOutput:
    """Options of commands that print tables."""

    quiet: Quiet
    wide: Wide
    as_json: Json


@dataclass(frozen=True)
class Scoring:
    """Options for loading models, and for the devices and processes that score."""

    cards: Cards
    device: Device
    seed: Seed
    offline: Offline
    workers: Workers
    ray: Ray
    batch: Batch


@dataclass(frozen=True)
class Mirror:
    """Options for MLflow."""

    mlflow_uri: Mlflow


@dataclass(frozen=True)
class Work(Scoring, Mirror, Output):
    """Options of commands that make runs."""

    runs: Runs


def options(group: type[T]) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Add the options that a dataclass declares to a command, and `--debug`; the command is called with one instance of it.

    Args:
        group: A dataclass whose fields are annotated with Option or Argument. Their order is that of `--help`; those of its bases
            follow its own.
    """

    def decorate(function: Callable[[T], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**values: Any) -> None:
            function(group(**values))

        hints = get_type_hints(group, include_extras=True)
        command = _DEBUG(command)
        for name in reversed(dict.fromkeys(name for one in group.__mro__ for name in inspect.get_annotations(one))):
            kind, *declared = get_args(hints[name])
            command = declared[-1].decorator(name, kind)(command)
        return command

    return decorate


def filled(kind: type[T], chosen: object, **others: Any) -> T:
    """The dataclass `kind`, from the options with the names of its fields, and `others`."""
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    return kind(**({name: value for name, value in vars(chosen).items() if name in names} | others))


def request_of(chosen: object, **others: Any) -> Request:
    """The engine's request, filled by `filled`."""
    from harness.engine.request import Request

    return filled(Request, chosen, **others)


def own_command() -> str:
    """The running command as a command line; empty where another program called the harness."""
    return shlex.join(["harness", *sys.argv[1:]]) if Path(sys.argv[0]).name in ("harness", "__main__.py") else ""


def json_text(document: object) -> str:
    """The text that `--json` prints."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def table_width(wide: bool) -> int | None:
    """The width of tables: the terminal's width; None where standard output is not a terminal, or with `--wide`."""
    return None if wide or not sys.stdout.isatty() else shutil.get_terminal_size().columns


def echo(text: str, *, err: bool = False) -> None:
    """Print text that may quote untrusted records, cards and archives: control characters are escaped.

    On a terminal the headers of tables, marked figures, warnings and errors are highlighted, unless NO_COLOR is set
    (https://no-color.org) or the terminal is a dumb one.
    """
    text = visible_document(text)
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if not plain and (sys.stderr if err else sys.stdout).isatty():
        lines = text.split("\n")
        for rule in [n for n, line in enumerate(lines) if re.fullmatch(r"-+(?:  -+)+", line)]:
            lines[rule] = click.style(lines[rule], dim=True)
            above = rule - 1
            while above >= 0 and lines[above].strip():
                lines[above] = click.style(lines[above], bold=True)
                above -= 1
        best, prefix = r"(?<![\w.])-?\d*\.\d+\*", r"\A(?:harness|warning):"
        text = re.sub(best, lambda found: click.style(found[0], bold=True), "\n".join(lines))
        text = re.sub(prefix, lambda it: click.style(it[0], fg="red" if it[0] == "harness:" else "yellow", bold=True), text)
    click.echo(text, err=err)


def show_message(level: int, text: str) -> None:
    """Show a message of the package's loggers on standard error."""
    echo(f"{'warning: ' if level >= logging.WARNING else ''}{text}", err=True)
