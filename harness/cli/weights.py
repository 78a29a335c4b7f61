"""`harness weights`: download and check files of weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import click

from harness.cli import completion
from harness.cli import options as o
from harness.cli.options import Option, echo, options

if TYPE_CHECKING:
    from harness.models.weights.provide import CheckedFile

_log = logging.getLogger(__package__)
_USE: Mapping[str, Any] = {"metavar": "WORD", "shell_complete": completion.words("released")}


@dataclass(frozen=True)
class GetOptions:
    """Options of `harness weights get`."""

    name: o.Model
    use: Annotated[str | None, Option(help="Get these weights too, such as released.", **_USE)]
    cards: o.Cards
    offline: o.Offline
    quiet: o.Quiet


@dataclass(frozen=True)
class CheckOptions:
    """Options of `harness weights check`."""

    name: o.Model
    cards: o.Cards
    as_json: o.Json


@click.group("weights")
def weights_() -> None:
    """Download files of weights before they are needed, and show where they are."""


@weights_.command("get")
@options(GetOptions)
def weights_get(chosen: GetOptions) -> None:
    """Download the weights that `run` needs for model NAME; with --use WORD also those that `--weights WORD` tests."""
    from harness.models import find_model, weights
    from harness.runtime.progress import downloads

    with downloads() as step:
        paths = weights.get(find_model(chosen.name, chosen.cards), chosen.use, step, offline=chosen.offline)
    for path in paths:
        echo(str(path))
    if not paths:
        wanted = f" for {chosen.use}" if chosen.use else ""
        _log.info(f"{chosen.name} needs no weights{wanted}; `harness weights check {chosen.name}` lists what it may use")


@weights_.command("check")
@options(CheckOptions)
def weights_check(chosen: CheckOptions) -> None:
    """Show where the weights of model NAME are, and whether they are the right ones."""
    from harness.models import find_model, weights

    rows = weights.check(find_model(chosen.name, chosen.cards))
    echo(o.json_text(_json(rows)) if chosen.as_json else _text(rows))
    if any(row.stops for row in rows):
        raise SystemExit(1)


def _json(rows: Sequence[CheckedFile]) -> list[object]:
    """One row a file of weights of a model: part, use, file, where it is, sha256, status, and whether it is ready."""
    from harness.models import weights

    return [
        {
            "part": row.entry.name,
            "use": row.entry.use,
            "file": weights.file_name(row.entry),
            "tag": row.entry.tag,
            "path": str(row.path) if row.path else None,
            "sha256": row.sha256,
            "status": row.status,
            "ok": row.path is not None,
            "stops": row.stops,
            "bytes": row.entry.bytes or None,
            "licence": row.entry.licence or None,
            "revision": row.entry.revision or None,
            "sources": weights.ordered(row.entry.sources),
            "looked": list(row.looked),
        }
        for row in rows
    ]


def _text(rows: Sequence[CheckedFile]) -> str:
    """The files of weights as text."""
    from harness.models import weights

    lines: list[str] = []
    for row in rows:
        entry = row.entry
        size = f"{entry.bytes / 1e6:,.1f} MB" if entry.bytes else "size not known"
        optional = "" if entry.use == "always" or row.path else f" (optional: only --weights {entry.use} needs it)"
        lines += [
            f"{entry.name} ({entry.use}): {row.status}{optional}",
            f"  file: {row.path or weights.file_name(entry)}, {size}, licence {entry.licence or 'not known'}",
            *(f"  source: {source}" for source in weights.ordered(entry.sources)),
            *(f"  looked for: {place}" for place in row.looked),
        ]
    return "\n".join(lines) or "this model needs no weights"
