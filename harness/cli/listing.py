"""`harness list` and `harness show`: cards as tables and as text, without importing the models' code."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import click

from harness.cards.challenge import ChallengeCard
from harness.cards.loading import find_challenge, find_dataset, find_suite, kind_of_file, load_cards
from harness.cards.schema import KINDS, Card, DatasetCard, ModelCard
from harness.cards.suite import SuiteCard
from harness.cli import completion
from harness.cli import options as o
from harness.cli.card_summary import ALWAYS, summary
from harness.cli.options import Argument, Option, echo, options
from harness.models import find_model
from harness.runtime.errors import UsageError, near
from harness.runtime.terminal_columns import text_table

_PIPED = 120
"""Characters in a line of a card's summary where standard output is not a terminal."""
Row = dict[str, str | bool | int | list[str] | list[int] | None]
"""A line of a listing."""
_ALL = "List the metrics of installed libraries too (cvvdp, frame-analytics, piq, pyiqa), with version and licence."


@dataclass(frozen=True)
class ListOptions:
    """Options of `harness list`."""

    kind: Annotated[str | None, Argument(type=click.Choice(["models", "datasets", "challenges", "suites"]))]
    everything: Annotated[bool, Option("--all", help=_ALL)]
    cards: o.Cards
    wide: o.Wide
    as_json: o.Json


@dataclass(frozen=True)
class ShowOptions:
    """Options of `harness show`."""

    name: Annotated[str, Argument(metavar="NAME|CARD.toml", shell_complete=completion.cards(*KINDS))]
    everything: Annotated[bool, Option("--all", help="Show every field in full.")]
    cards: o.Cards
    as_json: o.Json


@click.command("list")
@options(ListOptions)
def list_(chosen: ListOptions) -> None:
    """List the models, datasets, challenges and suites."""
    rows = listing(chosen.kind, chosen.cards, everything=chosen.everything)
    echo(o.json_text(rows) if chosen.as_json else as_text(rows, o.table_width(chosen.wide)))


@click.command()
@options(ShowOptions)
def show(chosen: ShowOptions) -> None:
    """Show the card of a model, a dataset, a challenge or a suite: description, settings, published figures, and its file."""
    found = card(chosen.name, chosen.cards)
    if chosen.as_json:
        echo(o.json_text(card_json(found)))
    elif chosen.everything:
        echo(card_text(found))
    else:
        echo(summary(card_json(found), o.table_width(wide=False) or _PIPED))


def listing(kind: str | None, cards: Sequence[str] = (), *, everything: bool = False) -> list[Row]:
    """One row a card: kind, name, title and key properties; `everything`: also the metrics of installed libraries."""
    rows: list[Row] = []
    for each in [kind] if kind else list(KINDS):
        for card in load_cards(each, cards).values():
            row: Row = {"kind": each.removesuffix("s"), "name": card.name, "title": card.title}
            if isinstance(card, ModelCard):
                needs = [f"extra {card.extra}"] if card.extra else []
                needs += [f"program {card.program.command[0]}"] if card.program else []
                always = [one.sources for one in card.weights if one.use == "always"]
                carried = [any(source.startswith("wheel:harness/") for source in sources) for sources in always]
                needs += [] if all(carried) else ["weights"]
                row |= {"trained": card.recipe is not None, "needs": ", ".join(needs)}
                row |= {"library": "", "licence": card.licence} if everything else {}
            elif isinstance(card, DatasetCard):
                row |= {"pairs": card.pairs or None, "references": card.references or None, "protocols": list(card.protocols)}
            elif isinstance(card, ChallengeCard):
                row |= {"phases": list(card.phases), "images": [phase.images for phase in card.phases.values()]}
            elif isinstance(card, SuiteCard):
                row |= {"datasets": list(card.datasets), "protocol": card.protocol or None}
            rows.append(row)
    if everything and kind in (None, "models"):
        from importlib import metadata

        from harness.models import adapters

        for library in adapters.LIBRARIES:
            for metric in adapters.available(library):
                row = {"kind": "model", "name": f"{library}:{metric}", "title": f"{metric} of {library}", "trained": False}
                version, licence = metadata.version(library), adapters.licence_of(library)
                rows.append({**row, "needs": f"extra {library}", "library": f"{library} {version}", "licence": licence})
    return rows


_DROPS = tuple("licence library needs trained images protocol protocols references pairs phases datasets".split())
"""Columns that are left out of a narrow terminal, the first one first."""
_SHORTENS = ("title", "needs", "licence", "protocols", "phases", "images", "datasets")


def as_text(rows: Sequence[Row], width: int | None = None) -> str:
    """Tables of a listing, one a kind; `width`: characters in a line of the terminal, None: all columns."""
    tables = []
    columns: dict[str, tuple[str, ...]] = {
        "model": ("name", "title", "trained", "needs"),
        "dataset": ("name", "title", "pairs", "references", "protocols"),
        "challenge": ("name", "title", "phases", "images"),
        "suite": ("name", "title", "datasets", "protocol"),
    }
    for kind, headers in columns.items():
        if kind == "model" and any("library" in row for row in rows):
            headers = (*headers, "library", "licence")
        shown = [[_cell(row.get(h)) for h in headers] for row in rows if row["kind"] == kind]
        if shown:
            tables.append(f"{kind}s\n\n" + text_table(headers, shown, width=width, drops=_DROPS, shortens=_SHORTENS).text)
    return "\n\n".join(tables) or "none"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def card(name: str, cards: Sequence[str] = ()) -> Card:
    """The model's, dataset's, challenge's or suite's card of that name, or in that file."""
    finders: dict[str, Callable[..., Card]] = {"models": find_model, "datasets": find_dataset}
    finders |= {"challenges": find_challenge, "suites": find_suite}
    if name.endswith(".toml"):
        return finders[kind_of_file(name)](name, cards)
    known: list[str] = []
    for kind, find in finders.items():
        names = list(load_cards(kind, cards))
        known += names
        if name in names or (kind == "models" and ":" in name):
            return find(name, cards)
    raise UsageError(f"no card called {name!r}{near(name, known)} (`harness list` shows all)")


def card_json(card: Card) -> Mapping[str, Any]:
    """The card as plain values."""
    return {key.rstrip("_"): value for key, value in dataclasses.asdict(card).items()}


def card_text(card: Card) -> str:
    """The card as text: its filled fields, tables indented."""
    lines = [f"{card.name}: {card.title}"]
    for key, value in card_json(card).items():
        if key not in ("name", "title") and (key in ALWAYS or value not in ("", (), {}, None, 0, False)):
            lines += _lines(key, value, 0)
    return "\n".join(lines)


def _lines(key: str, value: Any, depth: int) -> list[str]:
    indent = "  " * depth
    if isinstance(value, Mapping):
        inner = [line for k, v in value.items() if v not in ("", (), {}, None) for line in _lines(k.rstrip("_"), v, depth + 1)]
        return [f"{indent}{key}:", *inner]
    if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        return [line for entry in value for line in _lines(key, entry, depth)]
    if isinstance(value, list | tuple):
        value = shlex.join(value) if key in ("command", "version") else ", ".join(map(str, value))
    return [f"{indent}{key}: {value}"]
