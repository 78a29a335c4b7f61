"""`harness.evaluate`: train, score, measure and record a model on a dataset, from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import datasets
from harness.engine.request import Request, make_plan
from harness.engine.run_all import execute_plan
from harness.models.base import ScoringModel
from harness.results.record import Record
from harness.runtime.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


def evaluate(
    model: str | Path | ScoringModel,
    dataset: str | Path | pd.DataFrame,
    *,
    protocol: str | None = None,
    root: str | Path | None = None,
    weights: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    runs: str | Path = "runs",
    device: str | None = None,
    workers: int = 0,
    cards: Sequence[str | Path] = (),
    mlflow_uri: str = "off",
) -> Record:
    """Train (where the model has a recipe and no weights are given), score, measure and record a model on a dataset.

    Args:
        model: a name, a card's path, or an object with `score(reference, distorted)` and `higher_is_better`. An object's run
            is reused only where the object can be identified: by a method `identity() -> str`, or as a torch module or a
            dataclass with plain values.
        dataset: a name, a table's path, or a DataFrame with the columns of a table of pairs (distorted, reference, score, ...).
        protocol: which images train, validate and test; default: the dataset's.
        root: the folder of the dataset's files.
        weights: a file, or a word of the card such as `released`: the model is only tested.
        settings: dotted paths into the card, such as `{"protocol.crops": "five"}`.
        seed: seed of all random choices.
        runs: the folder of the runs.
        device: `cpu`, `cuda`, ...; default: a GPU if there is one.
        workers: 2 or more: local processes that share the work.
        cards: folders of the caller's own cards.
        mlflow_uri: an MLflow server; `off`: none.

    Returns:
        The finished run's record: `srcc`, `ci["srcc"]`, `scores`, `path`, `to_json()`, ...

    Raises:
        UsageError: for a wrong request, or an input that cannot be read.
        RunError: for work that failed; finished scores are kept.
    """
    named = isinstance(model, str | Path)
    request = Request(
        model=str(model) if named else type(model).__name__,
        dataset=str(dataset) if isinstance(dataset, str | Path) else "table",
        root=None if root is None else str(root),
        protocol=protocol,
        weights=None if weights is None else str(weights),
        settings=dict(settings or {}),
        seed=seed,
        device=device,
        workers=workers,
        cards=tuple(map(str, cards)),
        runs=str(runs),
        mlflow_uri=mlflow_uri,
        object=None if named else model,
    )
    data = None
    if not isinstance(dataset, str | Path):
        if not hasattr(dataset, "to_csv"):
            raise UsageError(f"dataset: a name, a table's path or a pandas DataFrame, not {type(dataset).__name__}")
        data = datasets.of_frame(dataset, root)
    outcome = execute_plan(make_plan(request, data))
    return outcome.record
