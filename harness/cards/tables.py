"""Converting a table of a TOML card into a dataclass; one error names every unknown key, missing key and wrong type."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from harness.runtime.errors import UsageError, listed, near

_LARGEST = 1 << 63
_DEEPEST = 64
T = TypeVar("T")
_types = functools.cache(typing.get_type_hints)  # reading a folder of cards asks for those of each dataclass many times


def unusable(value: Any, key: str = "", depth: int = 0) -> list[str]:
    """Problems of values that TOML allows and cards do not: they cannot be hashed, written as JSON or given to a system call."""
    if depth > _DEEPEST:
        return [f"{key[:40]}...: tables or lists nested too deep"]
    if isinstance(value, Mapping):
        return [p for k, v in value.items() for p in unusable(v, f"{key}.{k}" if key else str(k), depth + 1)]
    if isinstance(value, list | tuple):
        return [p for i, v in enumerate(value) for p in unusable(v, f"{key}[{i}]", depth + 1)]
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{key} = {value} is not a finite number"]
    if isinstance(value, int) and abs(value) >= _LARGEST:
        return [f"{key} has more than 63 bits"]
    if isinstance(value, str) and "\0" in value:
        return [f"{key} holds a NUL character"]
    return [] if isinstance(value, str | int | float | bool) else [f"{key} = {value} is a date; write it as text"]


def parse_table(kind: type[T], table: Mapping[str, Any], path: str, prefix: str) -> T:
    """A dataclass from a table of a card, such as a reader's layout; `prefix` is the table's place in the card.

    Raises UsageError naming every unknown key, wrong type and missing field.
    """
    problems: list[str] = []
    built = build_dataclass(kind, table, path, prefix, problems)
    if problems:
        raise UsageError("\n".join(problems))
    return typing.cast(T, built)


def build_dataclass(kind: type[Any], table: Mapping[str, Any], path: str, prefix: str, problems: list[str]) -> Any:
    """A dataclass from a table of a card; None if there are problems, which are appended to `problems`.

    Args:
        kind: The dataclass; the types of its fields say what is accepted.
        table: Keys and values as TOML gives them.
        path: The card's file, for messages.
        prefix: The table's place in the card, such as `recipe.`; empty for the card itself.
        problems: One line for each unknown key, missing key and value of another type.
    """
    hints = _types(kind)  # type: ignore[arg-type]  # for mypy a class cannot be hashed
    known = {f.name.rstrip("_"): f for f in dataclasses.fields(kind) if f.name != "path"}
    values = {}
    for key, value in table.items():
        if key not in known:
            problems.append(f"{path}: unknown key {prefix + key!r}{near(key, known)}")
            continue
        name = known[key].name
        values[name] = _convert(hints[name], value, path, prefix + key, problems)
    for key, f in known.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and key not in table:
            problems.append(f"{path}: missing key {prefix + key!r}")
    return kind(**values) if not problems else None


def _convert(hint: Any, value: Any, path: str, key: str, problems: list[str]) -> Any:
    """`value` as the type that `hint` asks for; a mismatch is appended to `problems`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert(next(a for a in arguments if a is not type(None)), value, path, key, problems)
    if origin is Literal:
        if value not in arguments:
            choices = listed([repr(a) for a in arguments])
            problems.append(f"{path}: {key} = {value!r} is not one of {choices}{near(str(value), map(str, arguments))}")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        inner = [arguments[0]] * len(value) if arguments[-1] is ... else list(arguments)
        if len(inner) != len(value):
            problems.append(f"{path}: {key} should hold {len(inner)} values, has {len(value)}")
        return tuple(_convert(h, v, path, f"{key}[{i}]", problems) for i, (h, v) in enumerate(zip(inner, value, strict=False)))
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, Mapping):
        if arguments[1] is Any:
            return dict(value)
        return {k: _convert(arguments[1], v, path, f"{key}.{k}", problems) for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        nested: list[str] = []
        built = build_dataclass(typing.cast(type, hint), value, path, f"{key}.", nested)
        problems.extend(nested)
        return built
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    problems.append(f"{path}: {key} = {value!r} should be {described(hint)}, is {described(type(value))}")
    return value


def described(hint: Any) -> str:
    """A type's description for messages: `a whole number`, `a list`."""
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a table", list: "a list"}
    if hint in words:
        return words[hint]
    if typing.get_origin(hint) is tuple:
        return "a list"
    return "a table" if dataclasses.is_dataclass(hint) or typing.get_origin(hint) is not None else str(hint)
