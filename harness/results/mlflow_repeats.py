"""Logging repeated splits to MLflow: a child run for each split under the record's run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from harness.results.mlflow_figures import SOURCE, by_group
from harness.results.mlflow_state import kept
from harness.results.record import RepeatsRecord

PARENT, SPLIT = "mlflow.parentRunId", "harness.split"


def add_children(client: Any, parent: str | None, record: RepeatsRecord, folder: Path, uri: str) -> None:
    """Add a child run for each split to the run `parent`; existing ones are not changed.

    The run of a split's own training becomes the child where MLflow has it and no other record has taken it; else a run with the
    split's figures is made.

    Args:
        client: MLflow's client.
        parent: the id of the record's run.
        record: the record.
        folder: its folder, next to the folders of the splits' runs.
        uri: the address of this MLflow, to find the runs in the splits' `mlflow.json`.
    """
    from mlflow.entities import Metric, Param

    experiment = client.get_run(parent).info.experiment_id
    found = client.search_runs([experiment], f"tags.`{PARENT}` = '{parent}'", max_results=1000)
    known = {run.data.tags.get(SPLIT) for run in found}
    facts = {"model": record.model, "dataset": record.dataset, "protocol": record.protocol, "seed": record.seed}
    for repeat in record.repeats:
        number = str(repeat.repeat)
        if number in known:
            continue
        own = kept(folder.parent / repeat.run, uri).run_id if record.training is not None else None
        if own is not None and PARENT not in client.get_run(own).data.tags:
            client.set_tag(own, PARENT, parent)
            client.set_tag(own, SPLIT, number)
            continue
        name, tags = f"{record.model} on {record.dataset}, split {number}", {PARENT: parent, SPLIT: number, **SOURCE}
        run_id = client.create_run(experiment, run_name=name, tags=tags).info.run_id
        now = int(time.time() * 1000)
        figures = {k: v for k, v in msgspec.to_builtins(repeat).items() if k != "repeat"}
        numbers = [Metric(key, value, now, 0) for key, value in by_group({record.split: figures}).items()]
        parameters = [Param(k, str(v)) for k, v in {**facts, "repeat": number, "run": repeat.run}.items()]
        client.log_batch(run_id, metrics=numbers, params=parameters)
        client.set_terminated(run_id, "FINISHED")
