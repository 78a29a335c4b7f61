"""`mlflow.json` next to a record: which MLflow is to show the run, the run's id there, and whether it is shown whole."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.files.regular import require_regular

ID_FILE = "mlflow.json"


def document_of(folder: Path) -> dict[str, Any]:
    """What the folder's `mlflow.json` holds; empty where there is none, or one that cannot be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        require_regular(folder / ID_FILE)
        document = json.loads((folder / ID_FILE).read_text(encoding="utf-8"))
        if isinstance(document, dict):
            return document
    return {}


def kept(folder: Path, uri: str) -> dict[str, Any]:
    """What `mlflow.json` keeps, if it speaks of this MLflow."""
    document = document_of(folder)
    return document if document.get("uri") == shown(uri) else {}


def told(kept_document: Mapping[str, Any]) -> tuple[str, Mapping[str, Any], Mapping[str, Any]] | None:
    """What `begin` was told, as `mlflow.json` keeps it; None where it does not, or is damaged."""
    begun = kept_document.get("begun")
    if not isinstance(begun, dict):
        return None
    name, parameters, dataset = begun.get("name"), begun.get("parameters"), begun.get("dataset")
    if isinstance(name, str) and isinstance(parameters, dict) and isinstance(dataset, dict):
        return (name, parameters, dataset) if {"name", "hash", "split"} <= set(dataset) else None
    return None


def wanting(folder: Path, uri: str, begun: object) -> bool:
    """Whether this MLflow is to show the folder's record and does not.

    A record that another MLflow shows, and one made without a mirror, is wanting only where the caller tells what `begun` it.
    """
    document = document_of(folder)
    if document.get("uri") != shown(uri):
        return begun is not None and not document.get("finished")
    return document.get("finished") is not True


def shown(uri: str) -> str:
    """A tracking URI without user names, passwords and tokens, fit for files and terminals."""
    return re.sub(r"//[^/@]*@", "//", uri).split("?", 1)[0]
