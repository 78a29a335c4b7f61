"""What a record must hold so that others can read it: a damaged record.json is one clear line, and no KeyError later.

A shape is a type, a tuple of shapes (one of them), a list of one shape (every element's) or of several (each element's), or a
table of shapes by key. `*` stands for all other keys of a table, and a key ending in `?` may be absent. Keys that no shape names
are not looked at.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.files.names import key_problem, name_problem
from harness.files.regular import require_regular
from harness.results.key import FORMAT
from harness.runtime.errors import UsageError, listed
from harness.runtime.text import command

_NUMBER = (int, float)
_INTERVALS = {"*": ([_NUMBER, _NUMBER], None)}
_FIGURES = {
    "n": (_NUMBER, None),
    **{
        f"{name}?": (_NUMBER, None)
        for name in ("references", "srcc", "plcc", "plcc_fitted", "krcc", "rmse", "main", "srcc_within")
    },
    "ci?": (_INTERVALS, None),
    "range?": (_INTERVALS, None),
    "confidence?": (_NUMBER, None),
    "few_references?": (bool, None),
    "fit_problem?": (str, None),
}
_PUBLISHED = {"dataset": str, "source": str, "status": str, "*": (str, _NUMBER, None)}
RECORD = {
    **dict.fromkeys(("key", "model", "dataset", "protocol", "split", "created", "command"), str),
    **dict.fromkeys(("partial", "seen", "random_weights"), bool),
    "incomplete?": bool,
    "seed": int,
    "trained_on": [str],
    "metrics": {"*": (_FIGURES, None)},
    "controls": ({"*": _FIGURES}, None),
    "repeats": ([{"run": str, "repeat": int}], None),
    "training": ({"*": (_NUMBER, str, None)}, None),
    "history": ([{"epoch": int, "*": (_NUMBER, str, None)}], None),
    "seconds": (_NUMBER, None),
    "pairs_per_second": (_NUMBER, None),
    "conditions": {"*": (str, _NUMBER, {"*": (str, _NUMBER, None)}, None)},
    "note?": (str, None),
    "rebuildable?": bool,
    "without_each_reference?": ({"references": [str], "*": [_NUMBER]}, None),
    "identity": ({"card": {"higher_is_better": bool}}, {"first": dict}),
    "hashes": {"*": (str, {"*": str}, None)},
    "cards": {
        "model": {"name": str, "title?": (str, None), "published?": ([_PUBLISHED], None)},
        "dataset": {"name": str, "title?": (str, None), "note?": (str, None), "label?": (str, None), "protocols": {"*": dict}},
    },
}


def fits(value: Any, shape: Any = RECORD) -> bool:
    """Whether a document has the shape; `problems` says what is wrong, in ten times the time."""
    kind = type(shape)
    if kind is tuple:
        return any(fits(value, one) for one in shape)
    if kind is dict:
        if type(value) is not dict:
            return False
        rest = shape.get("*", object)
        return all(key in value or key[-1] in "?*" for key in shape) and all(
            fits(entry, shape.get(name, shape.get(f"{name}?", rest))) for name, entry in value.items()
        )
    if kind is list:
        return (
            type(value) is list
            and len(shape) in (1, len(value))
            and all(fits(entry, shape[place % len(shape)]) for place, entry in enumerate(value))
        )
    return (
        value is None
        if shape is None
        else shape is object or (isinstance(value, shape) and (type(value) is not bool or shape is bool))
    )


def problems(value: Any, shape: Any = RECORD, path: str = "") -> Iterator[str]:
    """Where a document, read from JSON, has not the shape: `metrics.test.n is text`."""
    if isinstance(shape, tuple):
        if all(any(problems(value, one, path)) for one in shape):
            # Of the alternatives, the one for this kind of value tells best.
            fitting = [one for one in shape if _kind(one) is type(value)] or [shape[0]]
            yield from problems(value, fitting[0], path)
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            yield f"{path or 'it'} is {_called(value)}, not a table"
            return
        names = {key.rstrip("?"): key for key in shape if key != "*"}
        yield from (
            f"{path}{'.' if path else ''}{name} is missing" for name, key in names.items() if name == key and name not in value
        )
        for name, entry in value.items():
            inner = shape[names[name]] if name in names else shape.get("*")
            if inner is not None:
                yield from problems(entry, inner, f"{path}{'.' if path else ''}{name}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{path} is {_called(value)}, not a list"
            return
        if len(shape) > 1 and len(value) != len(shape):
            yield f"{path} has {len(value)} elements, not {len(shape)}"
            return
        for place, entry in enumerate(value):
            yield from problems(entry, shape[place % len(shape)], f"{path}[{place}]")
    elif shape is None:
        if value is not None:
            yield f"{path} is {_called(value)}"
    elif not isinstance(value, shape) or (isinstance(value, bool) and shape is not bool):
        yield f"{path} is {_called(value)}"


def _kind(shape: Any) -> type:
    return shape if isinstance(shape, type) else type(shape)


def _called(value: Any) -> str:
    words = {str: "text", int: "a number", float: "a number", bool: "true or false", dict: "a table", list: "a list"}
    return words.get(type(value), "null")


def read_record(folder: Path) -> dict[str, Any] | None:
    """The folder's finished record, or None. Raises UsageError for one that another version wrote or that is damaged."""
    path = folder / "record.json"
    try:
        require_regular(path)
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_record(data, path)


def parse_record(data: bytes, path: Path) -> dict[str, Any]:
    """The record in the bytes of a record.json; `path` is named in errors. Raises UsageError as `read_record` does."""
    try:
        record = json.loads(data.decode("utf-8"), parse_float=_finite, parse_constant=_finite, parse_int=_bounded)
        if b"\\ud" in data.lower():  # halves of characters cannot be hashed or written
            json.dumps(record, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a readable record ({error}); move it away, or repeat with --force") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else None
        again = record.get("command") if isinstance(record, dict) and found == 1 else None
        how = (
            f"make it again ({command(again)})"
            if isinstance(again, str) and command(again)
            else "choose another --runs, or repeat with --force"
        )
        raise UsageError(
            f"{path}: written by another version of the harness (format {found}, this one reads {FORMAT}); {how}"
            + (
                f", or test its weights: --weights {path.parent / 'weights.safetensors'}"
                if found == 1 and record.get("training")
                else ""
            )
        )
    # They become parts of paths.
    named = {"key": key_problem, "model": name_problem, "dataset": name_problem}
    wrong = "" if fits(record) else listed(list(problems(record)), 5)
    wrong = wrong or listed([f"{field} {problem(record[field])}" for field, problem in named.items() if problem(record[field])])
    if wrong:
        raise UsageError(f"{path}: a damaged record ({wrong}); move it away, or repeat with --force")
    return record


def _bounded(text: str) -> int:
    value = int(text)
    if abs(value) >= 1 << 63:
        raise ValueError(f"{text[:20]}... has more than 63 bits")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value
