"""The code that a card names, imported only when it is used."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.runtime.errors import UsageError, near


def _module_beside(name: str, card: Path) -> str | None:
    """Import the module that lies beside the card, or in the folder above; returns the name that it is imported under.

    None where Python's own path has it, or nothing lies there. The name tells folders apart: two users' folders may each
    hold a `model.py`.
    """
    if importlib.util.find_spec(name) is not None or not card.name:
        return None
    for folder in (card.parent, card.parent.parent):
        for file in (folder / f"{name}.py", folder / name / "__init__.py"):
            if file.is_file():
                # An edited file is another module, also in a session that has imported it before.
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
"""Modules of the harness that cards and records name by an earlier path."""


def resolve(reference: str, what: str) -> Callable[..., Any]:
    """The object that `package.module:name` names; `what` is the path of the card that names it.

    A module that is not installed is looked for beside the card, and in the folder above. Raises UsageError naming the card.
    """
    module_name, _, attribute = reference.partition(":")
    module_name = _MOVED.get(module_name, module_name)
    try:
        first, dot, rest = module_name.partition(".")
        beside = _module_beside(first, Path(what))
        module = importlib.import_module(beside + dot + rest if beside else module_name)
    except ImportError as error:
        raise UsageError(f"{what}: cannot import {module_name!r}: {error}") from error
    try:
        return typing.cast(Callable[..., Any], getattr(module, attribute))
    except AttributeError:
        known = [n for n in vars(module) if not n.startswith("_")]
        raise UsageError(f"{what}: {module_name} has no {attribute!r}{near(attribute, known)}") from None
