"""The options of all commands: declared once, the same in every command, with help in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import click
import pytest
from click.testing import CliRunner

from harness.cli import options as o
from harness.cli.main import cli
from harness.runtime.errors import UsageError


def _commands(group: click.Group, name: str = "harness") -> Iterator[tuple[str, click.Command]]:
    for word, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


COMMANDS = dict(_commands(cli))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_texts_are_sentences(name: str):
    command = COMMANDS[name]
    texts = {"the command": (command.help or "").partition("\n")[0]}
    texts |= {one.name or "": one.help or "" for one in command.params if isinstance(one, click.Option)}
    assert {
        what: text for what, text in texts.items() if not text[:1].isupper() or not text.endswith((".", "?", "...", "]"))
    } == {}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_debug_and_help(name: str):
    shown = CliRunner().invoke(cli, [*name.split()[1:], "--help"]).output
    assert "--debug" in shown
    assert "--help" in shown


def test_shared_options_are_the_same_in_every_command():
    seen: dict[str, set[str]] = {}
    for command in COMMANDS.values():
        for one in command.params:
            if isinstance(one, click.Option) and one.name in ("runs", "cards", "device", "seed", "offline", "ray", "as_json"):
                seen.setdefault(one.name, set()).add(f"{one.opts} {one.default} {one.help}")
    assert {name: len(kinds) for name, kinds in seen.items()} == dict.fromkeys(seen, 1)
    assert len(seen) == 7


@dataclass(frozen=True)
class _Some:
    words: Annotated[tuple[str, ...], o.Argument()]
    keep_all: Annotated[bool, o.Option(help="Keep.")]
    lower: Annotated[tuple[str, ...], o.Option("--lower-is-better", help="Lower.")]
    test_on: Annotated[tuple[str, ...], o.Option(help="Test.", **o.WORDS)]
    settings: o.Settings
    batch: o.Batch


def _called(*words: str) -> _Some:
    got: list[_Some] = []
    command = click.command()(o.options(_Some)(got.append))
    command.main(list(words), standalone_mode=False)
    return got[0]


def test_a_dataclass_of_options_is_filled_from_the_command_line():
    words = ("a", "b", "--keep-all", "--lower-is-better", "x", "--lower-is-better", "y", "--test-on", "p, q", "--set", "k=v=w")
    assert _called(*words) == _Some(("a", "b"), True, ("x", "y"), ("p", "q"), {"k": "v=w"}, 8)
    assert _called("--batch", "3") == _Some((), False, (), (), {}, 3)


@dataclass(frozen=True)
class _More(o.CardsOutput):
    quiet: o.Quiet
    first: Annotated[str, o.Option(help="First.")]


def test_options_of_a_base_follow_those_of_the_class_each_once():
    command = click.command()(o.options(_More)(lambda chosen: None))
    assert [one.name for one in command.params] == ["quiet", "first", "cards", "as_json", "debug"]


def test_a_setting_without_a_value_is_refused():
    with pytest.raises(UsageError, match="--set k: expected KEY=VALUE"):
        _called("--set", "k")
