"""`mlflow.json` next to a record: which MLflow is to show the run, the run's id there, and whether it is shown whole."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.files.documents import noted

ID_FILE = "mlflow.json"


class Begun(NamedTuple):
    """What `Tracker.begin` is told."""

    name: str
    parameters: Mapping[str, Any]
    dataset: Mapping[str, Any]


class State(NamedTuple):
    """What a folder's `mlflow.json` keeps."""

    uri: str = ""
    """Of the MLflow that is to show the run, fit to be shown; empty where nothing is kept."""
    run_id: str | None = None
    finished: bool = False
    begun: Begun | None = None
    """None where it is not kept, or is damaged."""

    def document(self) -> dict[str, object]:
        """Plain values, as the file holds them."""
        return {**self._asdict(), "begun": self.begun._asdict() if self.begun else {}}


def state_of(folder: Path) -> State:
    """What the folder's `mlflow.json` keeps; nothing where there is none, or one that cannot be read."""
    document = noted(folder / ID_FILE)
    if document is None:
        return State()
    begun, told, run_id = document.get("begun"), None, document.get("run_id")
    if isinstance(begun, dict):
        name, parameters, dataset = (begun.get(each) for each in Begun._fields)
        if isinstance(name, str) and isinstance(parameters, dict) and isinstance(dataset, dict):
            told = Begun(name, parameters, dataset) if {"name", "hash", "split"} <= set(dataset) else None
    return State(str(document.get("uri", "")), str(run_id) if run_id else None, document.get("finished") is True, told)


def kept(folder: Path, uri: str) -> State:
    """What `mlflow.json` keeps, if it speaks of this MLflow."""
    state = state_of(folder)
    return state if state.uri == shown(uri) else State()


def wanting(folder: Path, uri: str, begun: object) -> bool:
    """Whether this MLflow is to show the folder's record and does not.

    A record that another MLflow shows, and one made without a mirror, is wanting only where the caller tells what `begun` it.
    """
    state = state_of(folder)
    return not state.finished and (state.uri == shown(uri) or begun is not None)


def shown(uri: str) -> str:
    """A tracking URI without user names, passwords and tokens, fit for files and terminals."""
    return re.sub(r"//[^/@]*@", "//", uri).split("?", 1)[0]
