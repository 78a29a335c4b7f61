"""Finding and reading cards: TOML files into the frozen dataclasses of `harness.cards.schema`.

Cards live in the project's `models/` and `datasets/` (inside the wheel: `harness/cards/...`), in folders that
the user names (`--cards DIR`, `$HARNESS_CARDS`) and in folders that installed packages announce (entry point
group `harness.cards`, each naming a module whose folder holds `models/` and `datasets/`). Nothing here imports
torch, pandas or any model's code.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from harness.cards.challenge import ChallengeCard
from harness.cards.schema import KINDS, C, Card, DatasetCard, parse_card
from harness.cards.suite import SuiteCard
from harness.files.leftovers import without_leftovers
from harness.files.regular import require_regular
from harness.runtime.errors import UsageError, near


class UnknownCard(UsageError):
    """No card has the name."""


FOLDERS = {"models": "models", "datasets": "datasets", "challenges": "datasets", "suites": "datasets/suites"}
"""The folder of the cards of each kind."""
_OWN_NAMES = ("challenges", "suites")
"""Kinds whose cards may have the name of a dataset's card, and lie with datasets in one flat folder."""


def card_folders(kind: str, extra: Sequence[str | Path] = ()) -> list[Path]:
    """Folders searched for cards of `kind`, the project's own first.

    A user's folder may hold `models/` and `datasets/` or be one flat folder of cards.
    """
    place = FOLDERS[kind]
    folders = [shipped(place)]
    for module in _announced(tuple(sys.path)):
        spec = importlib.util.find_spec(module)
        folders += [Path(found) / place for found in (spec.submodule_search_locations or [] if spec else [])]
    named = [*extra, *filter(None, os.environ.get("HARNESS_CARDS", "").split(os.pathsep))]
    for name in named:
        root = Path(name)
        if not root.is_dir():
            raise UsageError(f"{root}: no such folder of cards (--cards or $HARNESS_CARDS)")
        nested = any((root / other).is_dir() for other in FOLDERS.values())
        folders.append(root / place if nested else root)
    return list(dict.fromkeys(folders))


def cards_option(path: str | Path) -> list[str]:
    """`--cards DIR` for the card in the file `path`; empty for cards of the project and of packages, which need no option."""
    folder = Path(path).parent
    if not str(path) or any(folder in card_folders(kind) for kind in FOLDERS):
        return []
    return ["--cards", str(folder.parent if folder.name in FOLDERS.values() else folder)]


def shipped(place: str) -> Path:
    """The project's own folder of cards: in the wheel, or in the checkout."""
    inside = Path(str(resources.files("harness"))) / "cards" / place
    return inside if inside.is_dir() else Path(__file__).parents[2] / place


@functools.cache
def _announced(path: tuple[str, ...]) -> tuple[str, ...]:
    """Modules that installed packages register for cards, cached: reading all packages' metadata takes 0.05 s."""
    return tuple(point.module for point in metadata.entry_points(group="harness.cards"))


def load_cards(kind: str, extra: Sequence[str | Path] = ()) -> dict[str, Card]:
    """All cards of a kind by name. Raises one UsageError with every problem of every card."""
    cards: dict[str, Card] = {}
    problems: list[str] = []
    for path in _card_files(kind, extra):
        try:
            table = _read_toml(path)
            if _kind_of(table) != kind:
                continue
            card: Card = parse_card(typing.cast(Any, KINDS[kind]), table, str(path))
        except UsageError as error:
            problems.append(str(error))
            continue
        if card.name in cards:
            problems.append(f"{path}: name = {card.name!r} is already taken by {cards[card.name].path}")
        cards.setdefault(card.name, card)
    if problems:
        raise UsageError("\n".join(problems))
    return dict(sorted(cards.items()))


def readable_tables(kind: str, extra: Sequence[str | Path] = ()) -> Mapping[str, Mapping[str, Any]]:
    """The cards of a kind by name, as unchecked TOML tables; files that cannot be read are skipped."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in _card_files(kind, extra):
        try:
            table = _read_toml(path)
        except UsageError:
            continue
        if _kind_of(table) == kind and isinstance(name := table.get("name"), str):
            found.setdefault(name, table)
    return found


def find_dataset(name: str, extra: Sequence[str | Path] = ()) -> DatasetCard:
    """The dataset card called `name`, or the card in the file `name` (ending in .toml)."""
    return find_card(DatasetCard, "datasets", name, extra)


def find_challenge(name: str, extra: Sequence[str | Path] = ()) -> ChallengeCard:
    """The challenge card called `name`, or the card in the file `name` (ending in .toml)."""
    return find_card(ChallengeCard, "challenges", name, extra)


def find_suite(name: str, extra: Sequence[str | Path] = ()) -> SuiteCard:
    """The suite's card called `name`, or the card in the file `name` (ending in .toml)."""
    return find_card(SuiteCard, "suites", name, extra)


def find_card(card_type: type[C], kind: str, name: str, extra: Sequence[str | Path]) -> C:
    """The card of a kind that has this name, or that the file `name` (.toml) holds.

    Args:
        card_type: The card's dataclass.
        kind: `models`, `datasets`, `challenges` or `suites`.
        name: A card's name, or the path of a .toml file.
        extra: Folders of the caller's own cards, before the built-in ones.

    Raises:
        UsageError: There is no such card (the error gives similar names and the searched folders), or it cannot be read.
    """
    if name.endswith(".toml"):
        return parse_card(card_type, _read_toml(Path(name)), name)
    # A broken card of another name must not stop work with a good one, so only this name's file is read first.
    for path in _card_files(kind, extra):
        if path.stem == name and path.is_file():
            table = _read_toml(path)
            if _kind_of(table) != kind and {_kind_of(table), kind}.intersection(_OWN_NAMES):
                continue
            card = parse_card(card_type, table, str(path))
            if card.name == name:
                files = [file for file in _card_files(kind, extra) if file.stem == name]
                twins = [file for file in files if _kind_of(_read_toml(file)) == kind]
                if len(twins) > 1:
                    raise UsageError(f"{twins[1]}: name = {name!r} is already taken by {twins[0]}")
                return card
    cards = load_cards(kind, extra)
    if name in cards:
        return typing.cast(C, cards[name])
    searched = ", ".join(str(folder) for folder in card_folders(kind, extra))
    raise UnknownCard(f"no {kind[:-1]} called {name!r}{near(name, cards)} (searched {searched}; `harness list {kind}` shows all)")


def kind_of_file(path: str | Path) -> str:
    """The kind (`models`, `datasets`, ...) of the card in the file `path`. Raises UsageError where it cannot be read."""
    return _kind_of(_read_toml(Path(path)))


def _card_files(kind: str, extra: Sequence[str | Path]) -> Iterator[Path]:
    for folder in card_folders(kind, extra):
        yield from without_leftovers(sorted(folder.glob("*.toml")))


def _kind_of(table: Mapping[str, Any]) -> str:
    # A flat folder holds all kinds: a challenge has phases, a suite lists datasets, a dataset says how it is read, a model
    # names its class.
    if "phases" in table:
        return "challenges"
    return "suites" if "datasets" in table else "datasets" if "reader" in table else "models"


def _read_toml(path: Path) -> Mapping[str, Any]:
    try:
        require_regular(path)
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such card") from None
    except RecursionError:
        raise UsageError(f"{path}: not a readable TOML card: tables or lists nested too deep") from None
    except (OSError, ValueError) as error:  # ValueError: not TOML, not UTF-8, or a number of thousands of digits
        raise UsageError(f"{path}: not a readable TOML card: {error}") from None
