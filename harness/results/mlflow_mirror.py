"""Logging a run to MLflow: parameters, curves, figures, datasets and files.

The files in the run's folder are the record. A problem with MLflow gives one line of warning and never ends the run.
`mlflow.json` next to the record holds the MLflow server for the run, the run's id there, and whether it is logged completely.
So resumed work continues in the same MLflow run, and the next command adds a finished record that an earlier one could not add.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.files.atomic import write_json
from harness.files.leftovers import without_leftovers
from harness.files.lock import held
from harness.results.mlflow_figures import SOURCE, FamilyRun, by_group, figures, is_number, key_text, marks, value_text
from harness.results.mlflow_repeats import PARENT, add_children
from harness.results.mlflow_state import ID_FILE, Begun, State, kept, shown, wanting
from harness.results.mlflow_store import Exchange, client
from harness.results.record import Record, RepeatsRecord, read_record
from harness.results.run_folder import MLFLOW_FILES
from harness.runtime.errors import HarnessError

_log = logging.getLogger(__package__)

PICTURES = ("*.png", "report.html")
FILES = ("record.json", "scores.csv", "log.jsonl")

_SECONDS_BETWEEN_BATCHES = 10.0
_PATIENCE = 30.0
_PATIENCE_WITH_FILES = 120.0
"""Time limit of one exchange in seconds; creating a database's tables took 10 s on a slow disk."""

_DIGEST_LENGTH = 36
"""MLflow's own limit."""


class Tracker:
    """One run's mirror, a context manager; leaving it on an exception marks the MLflow run KILLED (Ctrl-C) or FAILED.

    `uri`: None for sqlite next to the runs, `off` for no mirror (MLflow is then never imported), else any MLflow tracking
    URI. `runs`: the runs folder, which need not exist yet. `folder`: this run's own folder.
    """

    def __init__(self, uri: str | None, runs: str | Path, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.runs, self._given, self._what = Path(runs).absolute(), uri, "this run"
        self.uri = uri if uri is not None else f"sqlite:///{self.runs / 'mlflow.db'}"
        # A server has its own place for artifacts; with a database file they would go to the current folder.
        self.artifacts = (self.runs / MLFLOW_FILES).as_uri() if self.uri.startswith("sqlite:") else None
        self.working = uri != "off"
        self._warned = False
        self._begun: Begun | None = None
        """The arguments of `begin`, kept for a command that has to repeat it."""
        self.run_id: str | None = None
        self._client: Any = None
        self._waiting: list[tuple[str, float, int, int]] = []
        self._logged: dict[str, set[int]] = {}
        self._flushed = time.monotonic()
        self._beginning: Exchange | None = None
        """The exchange that `begin` started and that was not waited for yet."""
        self._early: list[Mapping[str, Any]] = []
        """Epochs that ended during that exchange."""

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.begun()
        if kind is None:
            self._catch_up_others()
        if self.run_id is None or kind is None:
            return
        status = "FAILED" if issubclass(kind, Exception) else "KILLED"
        self._attempt(lambda: self._finish(status))

    def begin(self, name: str, parameters: Mapping[str, Any], dataset: Mapping[str, Any], *, meanwhile: bool = False) -> None:
        """Start the MLflow run, or continue the one of an interrupted call in this folder.

        `dataset`: name, hash and split (sha256 of table and split), and the numbers of pairs train, validation, test.
        `meanwhile`: return at once; MLflow, whose import alone takes seconds, starts while the caller works, until `begun`.
        """
        if not self.working:
            return
        texts = {key: value_text(value) for key, value in parameters.items()}
        self._begun = Begun(name, texts, dict(dataset))
        if not kept(self.folder, self.uri).uri:
            with contextlib.suppress(HarnessError):  # a full disk ends the run elsewhere, with its own message
                self._keep_id(finished=False)
        if meanwhile:
            self._beginning = Exchange(lambda: self._begin(name, texts, dataset), self._patience())
        else:
            self._attempt(lambda: self._begin(name, texts, dataset))

    def begun(self) -> None:
        """Wait for the exchange that `begin` started."""
        if self._beginning is None:
            return
        beginning, self._beginning = self._beginning, None
        self._attempt(beginning)
        early, self._early = self._early, []
        for entry in early:
            self._take(entry)

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """Log one epoch's figures: `epoch` and any numbers by name. They are sent every few seconds."""
        if not self.working:
            return
        if self._beginning is not None and not self._beginning.over:
            self._early.append(entry)
            return
        self.begun()
        self._take(entry)
        if time.monotonic() - self._flushed >= _SECONDS_BETWEEN_BATCHES:
            self._attempt(self._flush)

    def end(self, record: Record) -> None:
        """Send the finished record: its figures with their intervals, its marks, and the folder's files."""
        self.begun()
        if self.working:
            for entry in record.history or ():
                self._take(entry)
            self._attempt(lambda: self._end(record))
        if self.run_id is not None and self.working:
            if isinstance(record, RepeatsRecord):
                self._attempt(lambda: add_children(self._client, self.run_id, record, self.folder, self.uri), "its splits")
                self.working = True
            self._attempt(self._send_files, "its files")
            self.working = True
            self._attempt(lambda: self._finish("FINISHED"))
            self.run_id = None

    def catch_up(self, record: Record, begun: tuple[str, Mapping[str, Any], Mapping[str, Any]] | None = None) -> None:
        """Log a finished record whose own command could not; returns at once if it is logged already.

        `begun`: the arguments of `begin`, for a record that was made without MLflow; without it such a record is not logged.
        """
        if not self.working or not wanting(self.folder, self.uri, begun):
            return
        with contextlib.suppress(OSError), held(self.folder / "lock", wait=False) as mine:
            # The process that holds the folder's lock logs it; the previous holder may have done so meanwhile.
            if not mine or not wanting(self.folder, self.uri, begun):
                return
            if again := kept(self.folder, self.uri).begun or begun:
                self.begin(*again)
            else:
                self._attempt(self._take_up, self._what)
            if self.run_id is not None:
                self.end(record)

    def _catch_up_others(self) -> None:
        """Log the finished records of the runs folder whose own commands could not."""
        added = 0
        for path in sorted(self.runs.glob(f"*/*/*/{ID_FILE}")) if self.working else ():
            if path.parent.absolute() == self.folder.absolute() or not wanting(path.parent, self.uri, None):
                continue
            with contextlib.suppress(HarnessError):  # a damaged record is reported when it is read for itself
                if (record := read_record(path.parent)) is not None:
                    other = Tracker(self._given, self.runs, path.parent)
                    other._what = f"the run in {path.parent}"
                    other.catch_up(record)
                    added += kept(path.parent, self.uri).finished
                    if not other.working:
                        break
        if added:
            _log.info(f"MLflow: {added} finished run{'s' if added > 1 else ''} added that earlier commands could not add")

    def attach(self, name: str, dataset: str, files: Sequence[Path], tags: Mapping[str, str]) -> None:
        """Add a submission's files and tags to the MLflow run of this folder's record, or to a new run called `name`."""
        self._attempt(lambda: self._attach(name, dataset, files, tags), "this submission")

    def family(self, dataset: str, parent: FamilyRun, children: Sequence[FamilyRun], files: Sequence[Path], what: str) -> None:
        """A run for `parent` with `files`, and under it a run for each of `children`.

        Nothing is added for a folder whose runs are logged already. `what` is named in a warning, such as `this ensemble`.
        """
        if not self.working or kept(self.folder, self.uri).finished:
            return
        self._attempt(lambda: self._family(dataset, parent, children, files), what)

    def _patience(self) -> float:
        return _PATIENCE_WITH_FILES if self.uri.startswith("sqlite:") else _PATIENCE

    def _attempt(self, action: Callable[[], None] | Exchange, what: str = "") -> None:
        """Do `action` within the time limit; on any failure warn once and stop logging."""
        if not self.working:
            return
        what = what or self._what
        try:
            (action if isinstance(action, Exchange) else Exchange(action, self._patience())).wait()
        except Exception as error:
            self.working = False
            if self._warned:
                return
            self._warned = True
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].replace(self.uri, shown(self.uri))
            _log.warning(
                f"MLflow at {shown(self.uri)} does not show {what}: {reason[:300].rstrip('. ')} "
                "(the record is not affected; --mlflow-uri off avoids this)"
            )

    def _begin(self, name: str, parameters: Mapping[str, Any], dataset: Mapping[str, Any]) -> None:
        client = self._connect()
        # Identifies the folder without giving a server any information about this machine.
        place = hashlib.sha256(f"{socket.gethostname()}:{self.folder.absolute()}".encode()).hexdigest()[:16]
        experiment = self._experiment(f"harness/{dataset['name']}")
        known = self._continued()
        if known is None:
            # This process has locked the folder, so an earlier process's run is not running any more.
            asked = f"tags.`harness.place` = '{place}' and attributes.status = 'RUNNING'"
            for run in client.search_runs([experiment], asked, max_results=10):
                client.set_terminated(run.info.run_id, "KILLED")
            tags = {"harness.place": place, "harness.dataset_hash": dataset["hash"], "harness.split_hash": dataset["split"]}
            tags |= SOURCE
            self.run_id = client.create_run(experiment, run_name=name, tags=tags).info.run_id
            self._keep_id(finished=False)
            self._log_dataset(dataset)
        self._log_parameters({k: v for k, v in parameters.items() if key_text(k) not in (known or {})})

    def _experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            with contextlib.suppress(Exception):  # another process may have made it meanwhile
                # This kind makes MLflow's pages show runs and curves first, and not traces of language models.
                tags = {"mlflow.experimentKind": "custom_model_development"}
                return str(self._client.create_experiment(name, artifact_location=self.artifacts, tags=tags))
            experiment = self._client.get_experiment_by_name(name)
        elif experiment.lifecycle_stage == "deleted":
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _continued(self) -> Mapping[str, str] | None:
        """The parameters of the run that `mlflow.json` names, set to running again; None where there is no run to continue."""
        run_id = kept(self.folder, self.uri).run_id
        if not run_id:
            return None
        try:
            run = self._client.get_run(run_id)
        except Exception as error:
            if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if run.info.lifecycle_stage == "deleted":
            return None
        self.run_id = run.info.run_id
        self._client.update_run(self.run_id, status="RUNNING")
        self._keep_id(finished=False)
        for key in run.data.metrics:
            self._logged[key] = {m.step for m in self._client.get_metric_history(self.run_id, key)}
        return dict(run.data.params)

    def _connect(self) -> Any:
        self._client = client(self.uri, self.artifacts, self._none_is_shown)
        return self._client

    def _none_is_shown(self) -> None:
        """The database is new: entries in this runs folder's `mlflow.json` files about an earlier one are invalid."""
        for path in sorted(self.runs.glob(f"*/*/*/{ID_FILE}")):
            state = kept(path.parent, self.uri)
            if state.begun and (state.finished or state.run_id):
                write_json(path, state._replace(run_id=None, finished=False).document())

    def _take_up(self) -> None:
        self._connect()
        self._continued()

    def _keep_id(self, *, finished: bool) -> None:
        if self.folder.is_dir():  # else it was removed during the run, and an id alone would be useless
            write_json(self.folder / ID_FILE, State(shown(self.uri), self.run_id, finished, self._begun).document())

    def _log_parameters(self, parameters: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        self._client.log_batch(self.run_id, params=[Param(key_text(k), value_text(v)) for k, v in parameters.items()])

    def _log_dataset(self, dataset: Mapping[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        sizes = {part: dataset[part] for part in ("train", "validation", "test") if dataset.get(part) is not None}
        entity = Dataset(
            name=str(dataset["name"]),
            digest=str(dataset["hash"])[:_DIGEST_LENGTH],
            source_type="table",
            source=json.dumps({"table_sha256": dataset["hash"], "split_sha256": dataset["split"]}),
            schema=None,
            profile=json.dumps({"num_rows": sum(sizes.values()), **sizes}),
        )
        context = "training" if sizes.get("train") else "test"
        self._client.log_inputs(self.run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", context)])])

    def _take(self, entry: Mapping[str, Any]) -> None:
        """Queue an epoch's numbers, each (name, epoch) at most once in the run's life."""
        now = int(time.time() * 1000)
        for name, value in entry.items():
            key = key_text(f"epoch.{name}")
            seen = self._logged.setdefault(key, set())
            if name != "epoch" and is_number(value) and entry["epoch"] not in seen:
                seen.add(entry["epoch"])
                self._waiting.append((key, float(value), now, entry["epoch"]))

    def _flush(self) -> None:
        from mlflow.entities import Metric

        waiting, self._waiting = self._waiting, []
        self._flushed = time.monotonic()
        self._client.log_batch(self.run_id, metrics=[Metric(*entry) for entry in waiting])

    def _end(self, record: Record) -> None:
        from mlflow.entities import RunTag

        now = int(time.time() * 1000)
        values = {key_text(name): value for name, value in figures(record).items()}
        self._waiting += [(key, value, now, 0) for key, value in values.items() if 0 not in self._logged.get(key, ())]
        self._flush()
        tags = [RunTag(f"harness.{k}", value_text(v)) for k, v in marks(record).items()]
        note = record.note
        self._client.log_batch(self.run_id, tags=[*tags, RunTag("mlflow.note.content", note)] if note else tags)

    def _send_files(self) -> None:
        images = without_leftovers(path for pattern in PICTURES for path in sorted(self.folder.glob(pattern)))
        for path in [*(self.folder / name for name in FILES), *images]:
            if path.is_file() and not path.is_symlink():
                self._client.log_artifact(self.run_id, str(path))

    def _attach(self, name: str, dataset: str, files: Sequence[Path], tags: Mapping[str, str]) -> None:
        client = self._connect()
        run_id = kept(self.folder, self.uri).run_id
        made = run_id is None
        if made:
            run_id = client.create_run(self._experiment(f"harness/{dataset}"), run_name=name, tags=SOURCE).info.run_id
        for path in files:
            client.log_artifact(run_id, str(path), "submissions")
        for key, value in tags.items():
            client.set_tag(run_id, key_text(f"harness.{key}"), value_text(value))
        if made:
            client.set_terminated(run_id, "FINISHED")

    def _family(self, dataset: str, parent: FamilyRun, children: Sequence[FamilyRun], files: Sequence[Path]) -> None:
        from mlflow.entities import Metric

        client = self._connect()
        experiment = self._experiment(f"harness/{dataset}")
        above: str | None = None
        for run in (parent, *children):
            tags, name = SOURCE, run.name
            if above is not None:
                tags, name = {**SOURCE, PARENT: above}, f"{parent.name}: {run.name}"
            self.run_id = str(client.create_run(experiment, run_name=name, tags=tags).info.run_id)
            self._log_parameters(run.parameters)
            now = int(time.time() * 1000)
            client.log_batch(self.run_id, metrics=[Metric(key_text(k), v, now, 0) for k, v in by_group(run.figures).items()])
            if above is None:
                above = self.run_id
                for path in files:
                    client.log_artifact(above, str(path))
            else:
                client.set_terminated(self.run_id, "FINISHED")
        self.run_id = above
        self._finish("FINISHED")
        self.run_id = None

    def _finish(self, status: str) -> None:
        self._flush()
        self._client.set_terminated(self.run_id, status)
        self._keep_id(finished=status == "FINISHED")
