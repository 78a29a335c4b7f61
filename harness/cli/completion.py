"""Shell completion: names of models, datasets, protocols, challenges and suites, read from the cards.

Only the cards' files are read; torch, pandas and the code that a card names are not imported (docs/guides/shell-completion.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from harness.runtime.errors import UsageError

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def cards(*kinds: str, also: Mapping[str, str] = {}, files: bool = True) -> Completer:
    """Completes names of cards of the `kinds`, with their titles; file names where no name begins with the word.

    Args:
        kinds: `models`, `datasets`, `challenges`, `suites`.
        also: Further words, with their descriptions.
        files: Whether a path is allowed too.
    """

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        names = {name: table.get("title", "") for kind in kinds for name, table in _tables(context, kind).items()}
        return _beginning({**names, **also}, incomplete) or ([CompletionItem(incomplete, type="file")] if files else [])

    return complete


def listed_cards(*kinds: str) -> Completer:
    """The same for a list with commas, such as `csiq,tid2013`."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        names = {name: table.get("title", "") for kind in kinds for name, table in _tables(context, kind).items()}
        rest = {name: title for name, title in names.items() if name not in before.split(",")}
        return [CompletionItem(before + comma + item.value, help=item.help) for item in _beginning(rest, last)]

    return complete


def keys_of(kind: str, field: str, option: str) -> Completer:
    """Completes names in the table `field` of a card: protocols of the given dataset, phases of the given challenge.

    Args:
        kind: The kind of the cards.
        field: The table, such as `protocols`.
        option: The parameter of the command that names the card; without it, the tables of all cards count.
    """

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        tables = _tables(context, kind)
        named = tables.get(context.params.get(option) or "")
        names: dict[str, str] = {}
        for table in [named] if named else tables.values():
            for name, one in (table.get(field) or {}).items():
                names.setdefault(name, one.get("description", "") if named else "")
        return _beginning(names, incomplete)

    return complete


def words(*offered: str) -> Completer:
    """Completes fixed words."""
    return lambda context, parameter, incomplete: _beginning(dict.fromkeys(offered, ""), incomplete)


def paths(kind: str) -> Completer:
    """Completes files (`file`) or folders (`dir`)."""
    return lambda context, parameter, incomplete: [CompletionItem(incomplete, type=kind)]


def for_metavar(metavar: str) -> Completer | None:
    """The completion for an option's metavar: folders for `DIR`, files for `FILE.csv` and the like; else None."""
    if "FILE" in metavar or "." in metavar.replace("...", ""):
        return paths("file")
    return paths("dir") if "DIR" in metavar or metavar == "RUN" else None


def _beginning(names: Mapping[str, str], incomplete: str) -> list[CompletionItem]:
    found = sorted((name, title) for name, title in names.items() if name.startswith(incomplete))
    return [CompletionItem(name, help=" ".join(str(title).split())) for name, title in found]


def _tables(context: click.Context, kind: str) -> Mapping[str, Mapping[str, Any]]:
    """The unchecked cards of a kind by name, including those of --cards; empty where a folder is absent."""
    from harness.cards.loading import readable_tables

    try:
        return readable_tables(kind, context.params.get("cards") or ())
    except UsageError:
        return {}
