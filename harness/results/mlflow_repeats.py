"""Repeated splits in MLflow: a child run for each split under the record's run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from harness.results.mlflow_figures import by_group
from harness.results.record import RepeatFigures, RepeatsRecord

PARENT, SPLIT = "mlflow.parentRunId", "harness.split"


def add_children(client: Any, parent: str, record: RepeatsRecord, folder: Path, run_of: Callable[[Path], str | None]) -> None:
    """Put a child run for each split under the run `parent`; those that are there already are left alone.

    The run of a split's own training becomes the child where MLflow has it and no other record has taken it; else a run with the
    split's figures is made.

    Args:
        client: MLflow's.
        parent: the id of the record's run.
        record: the record.
        folder: its folder, next to which lie the splits' runs.
        run_of: the id of the MLflow run of a folder; None where this MLflow has none.
    """
    experiment = client.get_run(parent).info.experiment_id
    found = client.search_runs([experiment], f"tags.`{PARENT}` = '{parent}'", max_results=1000)
    known = {run.data.tags.get(SPLIT) for run in found}
    for repeat in record.repeats:
        if str(repeat.repeat) in known:
            continue
        own = run_of(folder.parent / repeat.run) if record.training is not None else None
        if own is not None and PARENT not in client.get_run(own).data.tags:
            client.set_tag(own, PARENT, parent)
            client.set_tag(own, SPLIT, str(repeat.repeat))
        else:
            _make(client, experiment, parent, record, repeat)


def _make(client: Any, experiment: str, parent: str, record: RepeatsRecord, repeat: RepeatFigures) -> None:
    from mlflow.entities import Metric, Param

    tags = {PARENT: parent, SPLIT: str(repeat.repeat), "mlflow.source.name": "harness", "mlflow.source.type": "LOCAL"}
    name = f"{record.model} on {record.dataset}, split {repeat.repeat}"
    run_id = client.create_run(experiment, run_name=name, tags=tags).info.run_id
    now = int(time.time() * 1000)
    figures = {k: v for k, v in msgspec.to_builtins(repeat).items() if k != "repeat"}
    numbers = [Metric(key, value, now, 0) for key, value in by_group({record.split: figures}).items()]
    facts = {"model": record.model, "dataset": record.dataset, "protocol": record.protocol, "seed": record.seed}
    facts |= {"repeat": repeat.repeat, "run": repeat.run}
    parameters = [Param(key, str(value)) for key, value in facts.items()]
    client.log_batch(run_id, metrics=numbers, params=parameters)
    client.set_terminated(run_id, "FINISHED")
