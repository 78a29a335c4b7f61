"""The file `mlflow.json` next to a record: the MLflow server of the run, the run's id, and whether it is logged completely."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.files.documents import noted

ID_FILE = "mlflow.json"


class Begun(NamedTuple):
    """The arguments of `Tracker.begin`."""

    name: str
    parameters: Mapping[str, Any]
    dataset: Mapping[str, Any]


class State(NamedTuple):
    """The content of a folder's `mlflow.json`."""

    uri: str = ""
    """The address of the run's MLflow, without secrets; empty where there is none."""
    run_id: str | None = None
    finished: bool = False
    begun: Begun | None = None
    """None where it is absent or damaged."""

    def document(self) -> dict[str, object]:
        """Plain values for the file."""
        return {**self._asdict(), "begun": self.begun._asdict() if self.begun else {}}


def state_of(folder: Path) -> State:
    """The content of the folder's `mlflow.json`; an empty state where there is none, or one that cannot be read."""
    document = noted(folder / ID_FILE)
    if document is None:
        return State()
    begun, arguments, run_id = document.get("begun"), None, document.get("run_id")
    if isinstance(begun, dict):
        name, parameters, dataset = (begun.get(each) for each in Begun._fields)
        if isinstance(name, str) and isinstance(parameters, dict) and isinstance(dataset, dict):
            arguments = Begun(name, parameters, dataset) if {"name", "hash", "split"} <= set(dataset) else None
    return State(str(document.get("uri", "")), str(run_id) if run_id else None, document.get("finished") is True, arguments)


def kept(folder: Path, uri: str) -> State:
    """The content of `mlflow.json`, if it is about this MLflow."""
    state = state_of(folder)
    return state if state.uri == shown(uri) else State()


def wanting(folder: Path, uri: str, begun: object) -> bool:
    """Whether the folder's record is still to be logged to this MLflow.

    A record logged to another MLflow, and one made without MLflow, counts only where the caller gives `begun`.
    """
    state = state_of(folder)
    return not state.finished and (state.uri == shown(uri) or begun is not None)


def shown(uri: str) -> str:
    """A tracking URI without user names, passwords and tokens, for files and messages."""
    return re.sub(r"//[^/@]*@", "//", uri).split("?", 1)[0]
