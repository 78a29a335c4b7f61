"""`run`: executes one request, from the cards to the record.

cards -> table of pairs -> split -> training -> scores (one row per image) -> agreement -> record
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import shlex
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import datasets, models
from harness.cards.loading import load_cards
from harness.cards.schema import DatasetCard
from harness.datasets.check.manifest import manifest_hash
from harness.datasets.completeness import missing
from harness.datasets.overlap import related
from harness.datasets.table import has_images
from harness.engine import devices
from harness.engine.content import pictures_by_reference, refuse_changed, training_images
from harness.engine.kernels import as_begun
from harness.engine.measure import controls, figures_stamp, measured, oriented_labels
from harness.engine.mlflow_facts import mlflow_facts
from harness.engine.request import SCORED_PARTS, Plan, Request, make_plan, request_facts
from harness.engine.scorer import pairs_of, refuse_small
from harness.engine.scoring import Scoring, Together, conditions_of, score
from harness.engine.training_threads import threads_of, training_threads
from harness.files.atomic import sha256_file, sha256_json, write_json
from harness.files.hash_index import hash_files
from harness.files.named import remember
from harness.files.score_table import read_scores, refuse_unmatched
from harness.files.table_rows import rows_of
from harness.models import weights as weight_files
from harness.models.capabilities import capabilities, move
from harness.models.kernels.choice import imposed
from harness.results import processes
from harness.results.key import FORMAT
from harness.results.record import Record, of_document, with_figures
from harness.results.run_folder import finished, locked, prepare, require_there, withdraw
from harness.results.run_scores import ScoreFile
from harness.runtime.errors import RunError, UsageError
from harness.statistics.correlations import Floats

if TYPE_CHECKING:
    import pandas as pd

    from harness.engine.distributed.start_workers import Workers
    from harness.engine.trainer import Trained

_log = logging.getLogger(__package__)


@dataclass(frozen=True)
class Outcome:
    """A finished record, its folder, and whether it existed before this call."""

    folder: Path
    record: Record
    found: bool


def run(request: Request) -> Outcome:
    """Execute a request, or return its existing record; an interrupted run continues where it stopped."""
    return execute(make_plan(request))


def execute(plan: Plan, together: Together | None = None) -> Outcome:
    """Execute a plan, unless its record exists. `together`: further runs that score the images decoded here."""
    request = plan.request
    remember(plan.data.card.path if request.dataset.lower().endswith((".csv", ".tsv")) else None, request.weights, request.init)
    remember(request.scores)
    if not request.force and (record := finished(plan.folder)) is not None:
        from harness.results.mlflow_mirror import Tracker

        if record.figures != figures_stamp(plan.data, plan.rows(*SCORED_PARTS)):
            # The code of the figures, or the columns that they use, changed: the figures are computed again from the scores.
            with locked(plan.folder):
                record = with_figures(record, figures(plan, ScoreFile(plan.folder).table()))
                write_json(plan.folder / "record.json", record.to_json())
            why = "their code, or the dataset's data on its images, changed"
            _log.info(f"{plan.folder}: its figures were computed again: {why}")
        with Tracker(request.mlflow_uri, request.runs, plan.folder) as tracker:
            tracker.catch_up(record, mlflow_facts(plan))
        return Outcome(plan.folder, record, found=True)
    _log_if_only_the_code_differs(plan)
    given = _given_scores(plan) if request.scores else None  # raises before the folder is created
    with locked(plan.folder):
        processes.end_leftovers(plan.folder)
        if not request.force:
            if (record := finished(plan.folder)) is not None:
                return Outcome(plan.folder, record, found=True)
            withdraw(plan.folder)
        try:
            return Outcome(plan.folder, _work(plan, together, given), found=False)
        except FileNotFoundError as error:
            if error.filename and Path(error.filename).is_relative_to(plan.folder):
                raise RunError(f"{error.filename} was removed during the run; run the same command again to continue") from error
            raise


def figures(plan: Plan, scores: pd.DataFrame) -> dict[str, Any]:
    """The fields of a record that are computed from its scores (columns name, score, part) and the dataset's labels."""
    by_part = {part: measured(plan.card, plan.data, scores[scores["part"] == part]) for part in SCORED_PARTS}
    return {
        "metrics": {part: values.figures if values else None for part, values in by_part.items()},
        "without_each_reference": by_part["test"].without_each_reference if by_part["test"] else None,
        "controls": controls(plan.data, plan.rows("test")),
        "figures": figures_stamp(plan.data, plan.rows(*SCORED_PARTS)),
    }


def _work(plan: Plan, together: Together | None, given: Floats | None) -> Record:
    from harness.results import report
    from harness.results.mlflow_mirror import Tracker

    request = plan.request
    for remark in plan.data.table.attrs.get("notes", []):
        _log.info(f"{plan.data.name}: {remark}")
    if lacking := missing(plan.data.card, plan.data.table, plan.protocol):
        _log.info(f"{plan.data.name}: incomplete: {lacking}; the record is marked and not ranked")
    tested = plan.rows("test")
    if len(tested) and tested["score"].isna().all():
        note = plan.data.card.protocols[plan.protocol].note
        _log.info(
            f"{plan.data.name}: labels of the {len(tested):,} tested images are missing: the record will have scores and no "
            "figures" + (f" ({note})" if note else "")
        )
    model = request.object
    if model is None and not request.scores:
        model = models.build(plan.card, plan.found, request.seed)
    if model is not None and has_images(plan.data.table):
        refuse_small(model, plan.card.protocol, pairs_of(plan.rows(*SCORED_PARTS)))
    with ExitStack() as stack:
        if request.object is not None and getattr(model, "training", None) is True and callable(getattr(model, "train", None)):
            # A caller's torch module is scored in evaluation mode, and its mode is restored afterwards.
            model.eval()
            stack.callback(model.train)
        workers = stack.enter_context(workers_of(plan, model))
        device = devices.choose("cpu" if workers else request.device, model)
        present = stack.enter_context(as_begun(plan.folder, lambda: conditions_of(plan, model, device, workers)))
        prepare(plan.folder, plan.facts, present, force=request.force)
        tracker = stack.enter_context(Tracker(request.mlflow_uri, request.runs, plan.folder))
        tracker.begin(*mlflow_facts(plan), meanwhile=True)
        training = _train(plan, model, device, workers, tracker.epoch) if plan.trained else None
        if training:
            refuse_changed(plan, hash_files(plan.content))
        if model is not None:
            move(model, device)
        with_images = model is not None and has_images(plan.data.table)
        weights = plan.found
        if training:
            # A worker loads the trained model from its own file, and the frozen parts that this file leaves out from theirs.
            own = plan.folder / "weights.safetensors"
            parts = {name: weights.parts[name] for name in weight_files.needed_parts(own, weights.parts)}
            weights = weight_files.ResolvedWeights(parts, own, {}, (), False)
        scoring = score(plan, model, device, workers, weights, together) if with_images else _take(plan, model, given)
        tracker.begun()  # so that figures and plots are not imported at the same time as MLflow
        require_there(plan.folder)
        scores = ScoreFile(plan.folder).table()
        record = _record(plan, model, present, training, scoring, scores)
        report.of_run(plan.folder, record, plan.data.table, model, scores)
        write_json(plan.folder / "record.json", record.to_json())
        if training:  # a finished run does not need its checkpoint
            from harness.engine.trainer import CHECKPOINT

            with contextlib.suppress(OSError):
                (plan.folder / CHECKPOINT).unlink(missing_ok=True)
        tracker.end(record)
    return record


def train(plan: Plan, on_epoch: Callable[[Mapping[str, Any]], None]) -> Trained:
    """Only the training of a plan, in the run's folder; `execute` continues from it under the same conditions.

    For a finished run, which has no checkpoint, the result comes from its record.
    """
    if (record := finished(plan.folder)) is not None and record.training is not None:
        from harness.engine.trainer import Trained

        training = record.training
        history = [{k: v for k, v in epoch.items() if isinstance(v, int | float)} for epoch in record.history or ()]
        return Trained(training.steps, training.epochs, training.best_epoch, training.seconds or 0.0, history)
    model = models.build(plan.card, plan.found, plan.request.seed)
    device = devices.choose(plan.request.device, model)
    with locked(plan.folder), as_begun(plan.folder, lambda: conditions_of(plan, model, device, None)) as present:
        prepare(plan.folder, plan.facts, present, force=False)
        return _train(plan, model, device, None, on_epoch)


def workers_of(plan: Plan, model: Any) -> AbstractContextManager[Workers | None]:
    """The workers of the request; None if this process does the work itself."""
    request = plan.request
    if model is None or (request.workers < 2 and not request.ray):
        return nullcontext()
    from harness.engine.distributed.start_workers import start_workers

    return start_workers(model, request.ray, request.workers, request.device, folder=plan.folder)


def _train(
    plan: Plan, model: Any, device: str, workers: Workers | None, on_epoch: Callable[[Mapping[str, Any]], None]
) -> Trained:
    from harness.engine.distributed.inside_worker import Job
    from harness.engine.trainer import WEIGHTS, Trainer
    from harness.models.weights.checkpoint import read_state

    request = plan.request
    rows, validation = plan.rows("train"), plan.rows("validation")
    arguments: Mapping[str, Any] = {
        "recipe": plan.card.recipe,
        "table": rows,
        "labels": oriented_labels(plan.data, rows),
        "validation": (pairs_of(validation), oriented_labels(plan.data, validation)),
        "crop_size": plan.card.protocol.crop_size or (capabilities(model).crop_size if model is not None else None),
        "card_path": plan.card.path,
        "folder": plan.folder,
        "seed": request.seed,
        "batch": request.batch,
        "trainings": request.trainings,
        "from_files": dict(plan.found.sha256) if plan.found.parts and not (plan.found.file or plan.found.backbone) else {},
        "metadata": {
            "model": plan.card.name,
            "trained_on": ",".join(sorted({*plan.found.trained_on, plan.data.name})),
            "protocol": plan.protocol,
            "key": plan.key,
        },
    }
    if workers is not None and (group := workers.group(model, plan.card.recipe)) is not None:
        from harness.engine.distributed import shared_training

        job = Job(plan.card, plan.found, request.seed, request.batch, imposed())
        trained = shared_training.train(workers, group.workers, job, arguments, on_epoch=on_epoch)
        # The file leaves out frozen parts from other files: the model has them already.
        model.load_state_dict(read_state(plan.folder / WEIGHTS), strict=False)
        model.eval()
        return trained
    threads = 0 if workers else threads_of(training_threads(plan, model, device))
    return Trainer(model, **arguments, device=device, threads=threads, on_epoch=on_epoch).train()


def _take(plan: Plan, model: Any, scores: Floats | None) -> Scoring:
    """Write the scores of a file (`scores`), or of an ensemble of files, to scores.csv as scoring does."""
    rows, file = plan.rows(*SCORED_PARTS), ScoreFile(plan.folder)
    values = model.of_names(rows["name"].tolist()) if scores is None else scores[~np.isnan(scores)].tolist()
    if scores is not None:
        rows = rows[~np.isnan(scores)]
    file.resume([])
    file.append_given(rows["name"].tolist(), [float(value) for value in values], plan.parts[rows.index].tolist())
    return Scoring(0.0, 0, None)


def _given_scores(plan: Plan) -> Floats:
    """The scores of the request's file for the rows of the scored parts (NaN where it has none, with `inner`).

    Raises UsageError if its names do not match.
    """
    path, rows = str(plan.request.scores), plan.rows(*SCORED_PARTS)
    given = read_scores(path)
    if not plan.request.inner:
        refuse_unmatched(given["name"], rows["name"], plan.data.table["name"], (path, plan.data.name))
    scores = given.set_index("name")["score"].reindex(rows["name"]).to_numpy(dtype=float)
    if np.isnan(scores).all():
        raise UsageError(f"{path} and the scored parts of {plan.data.name} have no name in common")
    return scores


def _record(
    plan: Plan,
    model: Any,
    present: Mapping[str, Any],
    training: Trained | None,
    scoring: Scoring,
    scores: pd.DataFrame,
) -> Record:
    measured_figures = figures(plan, scores)
    pictures = ScoreFile(plan.folder).picture_table()
    pictures_hash = sha256_json(rows_of(pictures.sort_values("name")))
    trained_on = sorted({*plan.card.trained_on, *plan.found.trained_on, *([plan.data.name] if training else [])})
    # Training datasets other than the tested one, some of which may share images or labels with it.
    known, own = load_cards("datasets", plan.request.cards), plan.data.card
    others = [known.get(name) for name in trained_on if name != plan.data.name]
    left_out = bool(plan.request.exclude)
    document = {
        "format": FORMAT,
        "key": plan.key,
        "model": plan.card.name,
        "dataset": plan.data.name,
        "protocol": plan.protocol,
        "split": "test",
        "seed": plan.request.seed,
        "request": request_facts(plan.request),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "partial": plan.request.limit is not None,
        "incomplete": bool(missing(plan.data.card, plan.data.table, plan.protocol)),
        "seen": plan.data.name in (set(plan.card.trained_on) | set(plan.found.trained_on))
        and plan.card.trained_split != plan.identity.split,
        "contaminated_by": [
            card.name for card in others if isinstance(card, DatasetCard) and related(own, card, content_left_out=left_out)
        ],
        "random_weights": plan.found.random and any(entry.use == "always" for entry in plan.card.weights),
        "rebuildable": plan.rebuildable,
        "trained_on": trained_on,
        **measured_figures,
        "remarks": list(plan.data.table.attrs.get("notes", [])),
        "identical_pairs": scoring.identical,
        "training": {k: v for k, v in asdict(training).items() if k != "history"} if training else None,
        "history": training.history if training else None,
        "seconds": scoring.seconds,
        "pairs_per_second": len(scores) / scoring.seconds if scoring.seconds else None,
        "runtime_per_image": scoring.runtime,
        "conditions": dict(present),
        "details": capabilities(model).details if model is not None else None,
        "note": ". ".join(filter(None, (plan.data.card.note, plan.data.card.protocols[plan.protocol].note, plan.request.remark))),
        "identity": dict(plan.facts),
        "hashes": {
            "weights": dict(plan.found.sha256),
            "table": plan.identity.table,
            "split": plan.identity.split,
            "scores": sha256_json((name, repr(score), part) for name, score, part in rows_of(scores)),
            "pictures": pictures_hash,
            "images": plan.data.images or (pictures_hash if plan.content else None),
            "pictures_by_reference": pictures_by_reference(plan.data.table, pictures),
            "training_pictures_by_reference": training_images(plan) if training else None,
            "manifest": manifest_hash(
                plan.data.card, datasets.data_root(plan.data.card.folder or plan.data.name, plan.request.root)
            ),
            "trained_weights": sha256_file(plan.folder / "weights.safetensors") if training else None,
        },
        "cards": {"model": asdict(plan.card) | {"path": ""}, "dataset": asdict(plan.data.card) | {"path": ""}},
    }
    return of_document(document, plan.folder)


def _log_if_only_the_code_differs(plan: Plan) -> None:
    """Log a run of the same request with an earlier version of the model's code: the user may want that one."""
    if not plan.trained or (plan.folder / "state.json").is_file():
        return
    wanted = json.loads(json.dumps({**plan.facts, "code": None}))
    for folder in sorted(path for path in plan.folder.parent.glob("*") if path.is_dir()):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            begun = json.loads((folder / "state.json").read_text(encoding="utf-8"))["identity"]
            if {**begun, "code": None} != wanted:
                continue
            _log.info(f"{plan.card.name}: the model's code changed since {folder} was trained; training again")
            if (weights := folder / "weights.safetensors").is_file():
                command = ["harness", "run", plan.request.model, "--dataset", plan.request.dataset, "--weights", str(weights)]
                command += ["--protocol", plan.request.protocol] if plan.request.protocol else []
                _log.info(f"to use its weights without training: {shlex.join(command)}")
