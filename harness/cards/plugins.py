"""Python code that a card names (classes, readers, losses): imported when it is used, checked before it is called.

A card that the caller names may run code. A problem of that code (not a class, a module that cannot be imported, an exception)
becomes a message of one line that names the card.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.cards.loading import FOLDERS, shipped
from harness.runtime.errors import HarnessError, UsageError, near
from harness.runtime.signals import received
from harness.runtime.text import one_line


def _module_next_to(name: str, card: Path) -> str | None:
    """Import the module next to the card, or in the folder above; returns the name under which it is imported.

    None where Python's own path has it, or there is no such file. The name depends on the folder: two folders may each hold a
    `model.py`.
    """
    if importlib.util.find_spec(name) is not None or not card.name:
        return None
    for folder in (card.parent, card.parent.parent):
        for file in (folder / f"{name}.py", folder / name / "__init__.py"):
            if file.is_file():
                # An edited file becomes a new module, also in a session that has imported it before.
                facts = str(file.resolve()).encode() + b"\0" + file.read_bytes()
                unique = f"{name}_{hashlib.sha256(facts).hexdigest()[:8]}"
                if unique not in sys.modules:
                    spec = importlib.util.spec_from_file_location(unique, file)
                    assert spec is not None
                    assert spec.loader is not None
                    module = importlib.util.module_from_spec(spec)
                    sys.modules[unique] = module
                    try:
                        spec.loader.exec_module(module)
                    except BaseException:
                        del sys.modules[unique]
                        raise
                return unique
    return None


_MOVED = {"harness.models.stlpips": "harness.models.lpips"}
"""Present paths of modules that cards and records may name by an earlier path."""


def current_path(reference: str) -> str:
    """`package.module:name` with the module's present path."""
    module_name, colon, attribute = reference.partition(":")
    return f"{_MOVED.get(module_name, module_name)}{colon}{attribute}"


def resolve(reference: str, what: str) -> Callable[..., Any]:
    """The object that `package.module:name` names; `what` is the path of the card that names it.

    A module that is not installed is looked for next to the card, and in the folder above. Raises UsageError naming the card.
    """
    module_name, _, attribute = current_path(reference).partition(":")
    first, dot, rest = module_name.partition(".")
    try:
        with errors_of(what, f"cannot import {module_name!r}"):
            local = _module_next_to(first, Path(what))
            module = importlib.import_module(local + dot + rest if local else module_name)
    except ImportError as error:
        raise UsageError(f"{what}: cannot import {module_name!r}: {error}") from error
    try:
        return typing.cast(Callable[..., Any], getattr(module, attribute))
    except AttributeError:
        known = [n for n in vars(module) if not n.startswith("_")]
        raise UsageError(f"{what}: {module_name} has no {attribute!r}{near(attribute, known)}") from None


def model_class(reference: str, what: str) -> type[Any]:
    """The class that a model's card names. Raises UsageError for anything that is not a class which defines `score`."""
    found = resolve(reference, what)
    if not inspect.isclass(found):
        raise UsageError(f"{what}: class = {reference!r} is not a class")
    if not callable(getattr(found, "score", None)):
        raise UsageError(f"{what}: class = {reference!r} has no score(reference, distorted)")
    return found


def reader_function(reference: str, what: str, layout: Mapping[str, Any]) -> Callable[..., Any]:
    """The function that a dataset's card names. Raises UsageError for anything that is not a Python function of
    `(card, root, **layout)`."""
    found = resolve(reference, what)
    if not inspect.isfunction(found):
        raise UsageError(f"{what}: reader = {reference!r} is not a Python function")
    signature = inspect.signature(found)
    kinds = [p.kind for p in signature.parameters.values()]
    if [kind in (kind.POSITIONAL_ONLY, kind.POSITIONAL_OR_KEYWORD) for kind in kinds[:2]] != [True, True]:
        raise UsageError(f"{what}: reader = {reference!r} is not a function of (card, root, **layout)")
    try:
        signature.bind(None, None, **layout)
    except TypeError as error:
        raise UsageError(f"{what}: [layout] does not fit reader = {reference!r}: {error}") from None
    return found


@contextmanager
def errors_of(card: str, what: str, kind: type[HarnessError] = UsageError) -> Iterator[None]:
    """Turn what a caller's card or its code raises into one line: the card, `what`, the error, and the line of that code.

    The harness's own cards are exempt: there an exception is a bug. MemoryError and HarnessError are raised unchanged.
    """
    try:
        yield
    except (HarnessError, MemoryError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        # A name that is not a path belongs to a library's metric.
        built_in = [shipped(place).absolute() for place in FOLDERS.values()]
        if not card.endswith(".toml") or Path(card).absolute().parent in built_in:
            raise
        if isinstance(error, SystemExit) and received():
            raise
        text = "it ended the process (SystemExit)" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        # The last line of the traceback outside the harness and libraries.
        own = str(Path(__file__).parents[1]) + os.sep
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((own, "<"))]
        frames = [f for f in frames if "site-packages" not in f.filename] or frames
        known = frames and not isinstance(error, SyntaxError)
        where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if known else ""
        raise kind(f"{card}: {what}: {one_line(text)[:500]}{where}") from error
