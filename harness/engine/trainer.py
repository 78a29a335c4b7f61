"""Training of a model with its card's recipe; a run that continues after a kill gives the same bits as an uninterrupted one.

Every random choice (the pairs of batch n, its crops and flips) is a function of the run's seed and the number of the step or
pass. A checkpoint therefore needs no state of a random generator except the step.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch

from harness.cards.plugins import errors_of
from harness.cards.schema import Cropping, Recipe
from harness.engine.devices import numerics
from harness.engine.frozen_parts import freeze, train_mode
from harness.engine.loss import mean_loss
from harness.engine.process_group import Loss, SingleProcess
from harness.engine.scorer import Pair, Scorer
from harness.engine.training_batches import Batch, Batches, Group, number_of
from harness.engine.training_threads import on_threads
from harness.engine.training_time import TrainingTime
from harness.files.atomic import write_text
from harness.models.weights.checkpoint import read_metadata, read_state, save_state
from harness.results.run_folder import require_there
from harness.runtime.errors import RunError, UsageError
from harness.runtime.progress import Step, progress
from harness.statistics.agreement import agreement

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__package__)

CHECKPOINT, BEST, WEIGHTS, LOG = "checkpoint.safetensors", "best.safetensors", "weights.safetensors", "log.jsonl"
_SECONDS_BETWEEN_CHECKPOINTS = 60.0
_DECODING_THREADS_FOR_GPU = 8
_STEPS_TO_ESTIMATE = 8
_STEPS_BETWEEN_LOSS_CHECKS = 50


class Diverged(RunError):
    """The loss is no longer finite; other settings may avoid this."""


Epoch = dict[str, int | float]
"""An entry of the history: an epoch's number, mean loss, learning rate and, if it was validated, srcc, plcc and main."""


@dataclass
class Trained:
    """The result of a training; the chosen weights are in the model, and in `weights.safetensors`."""

    steps: int
    epochs: int
    best_epoch: int | None
    seconds: float
    history: list[Epoch] = field(default_factory=list)


@dataclass
class _State:
    """The state of a training in its checkpoint."""

    step: int = 0
    loss: float = 0.0
    """The sum of the epoch's losses so far."""
    seconds: float = 0.0
    best: dict[str, float] = field(default_factory=dict)
    """The highest value of each figure over the validations."""
    best_epoch: int | None = None
    history: list[Epoch] = field(default_factory=list)


@dataclass
class Trainer:
    """One training run in `folder`.

    `table`: rows of the training part (columns of `harness.datasets.table`); `labels`: higher is better, one per row.
    `validation`: pairs and their labels, or none. `crop_size`: side of the training crops; None: whole images.
    """

    model: Any
    recipe: Recipe
    table: pd.DataFrame
    labels: np.ndarray[Any, Any]
    validation: tuple[Sequence[Pair], np.ndarray[Any, Any]]
    crop_size: int | None
    folder: Path
    card_path: str = ""
    """The model's card, named in errors of a user's own model."""
    seed: int = 0
    device: str = "cpu"
    threads: int = 0
    """Torch's threads while it trains; 0: as many as torch has."""
    batch: int = 8
    metadata: Mapping[str, str] = field(default_factory=dict)
    from_files: Mapping[str, str] = field(default_factory=dict)
    """Parts loaded from the card's files, with their sha256; frozen ones are not written again with the weights."""
    trainings: int = 1
    """How many trainings remain, including this one; there is one for each of several splits."""
    on_epoch: Callable[[Epoch], None] = lambda entry: None
    group: SingleProcess = field(default_factory=SingleProcess)
    """Each member gets whole groups of each batch; the first member writes the files."""
    shown: Callable[..., AbstractContextManager[Step]] = progress

    def __post_init__(self) -> None:
        if not isinstance(self.model, torch.nn.Module):
            raise UsageError(f"{type(self.model).__name__} has a recipe but is not a torch.nn.Module, so it cannot be trained")
        low, high = float(self.labels.min()), float(self.labels.max())
        if not high > low:
            raise UsageError("all training labels are equal: a model cannot be trained on them")
        self.targets = ((self.labels - low) / (high - low)).astype(np.float32)
        self.batches = Batches(self.recipe, self.table, self.targets, self.crop_size, self.seed)
        self.epoch_steps = self.recipe.steps_per_epoch or self.batches.per_pass
        self.steps = self.recipe.epochs * self.epoch_steps
        self.loss = mean_loss(self.model, self.recipe, self.card_path)

    @property
    def writes(self) -> bool:
        """Whether this member of the group writes to the folder."""
        return self.group.rank == 0

    def train(self) -> Trained:
        """Train to the end, from the folder's checkpoint if there is one; the model then has the chosen weights."""
        with on_threads(self.threads):
            return self._train()

    def _train(self) -> Trained:
        recipe = self.recipe
        self.model.to(self.device)
        freeze(self.model, self.recipe)
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        if not trainable:
            raise UsageError("recipe.frozen freezes every parameter: leave at least one part out of it")
        optimizer = self._optimizer(trainable)
        state = self._resume(optimizer)
        self.group.broadcast(self.model)
        begun, saved, first = time.monotonic(), time.monotonic(), state.step
        pending: list[tuple[int, Loss]] = []
        with self.shown("training", self.steps, done=first, unit="steps") as step_done:
            last = first if self._out_of_patience(state) else self.steps
            # One decoding thread is too slow for a GPU, and copies from page-locked memory overlap with its computation.
            gpu = self.device.startswith("cuda")
            threads = min(_DECODING_THREADS_FOR_GPU, os.cpu_count() or 1) if gpu else 1
            own: Callable[[Sequence[Group]], set[int]] = lambda groups: set(self.group.share(range(len(groups))))  # noqa: E731
            for step, batch in self.batches.ahead(first, last, own, threads=threads, pinned=gpu):
                train_mode(self.model, self.recipe)
                with numerics(self.device, recipe.precision, training=True):
                    loss = self._step(optimizer, trainable, step, batch)
                pending.append((step, loss))
                epoch_ends = (step + 1) % self.epoch_steps == 0
                saves = epoch_ends or time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS
                if saves or self.device == "cpu" or len(pending) == _STEPS_BETWEEN_LOSS_CHECKS:
                    self._add_losses(pending, state)
                state.step = step + 1
                if step + 1 - first == min(_STEPS_TO_ESTIMATE, self.steps - first):
                    self._estimate((time.monotonic() - begun) / (step + 1 - first), step + 1)
                if saves:
                    require_there(self.folder)
                if epoch_ends:
                    self._end_epoch(state)
                if saves:
                    state.seconds += time.monotonic() - begun
                    begun = saved = time.monotonic()
                    self._save(optimizer, state)
                step_done(step + 1, f"loss {float(loss):.4f}" if epoch_ends else "")
                if epoch_ends and self._out_of_patience(state):
                    epoch = (step + 1) // self.epoch_steps
                    _log.info(f"no better epoch in {recipe.patience} validations: training ends after epoch {epoch}")
                    break
        self._choose(state)
        return Trained(state.step, len(state.history), state.best_epoch, state.seconds, state.history)

    def _optimizer(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        recipe = self.recipe
        if recipe.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=recipe.rate, momentum=0.9, weight_decay=recipe.weight_decay)
        kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
        return kind(parameters, lr=recipe.rate, betas=recipe.betas, weight_decay=recipe.weight_decay)

    def rate(self, step: int) -> float:
        """The learning rate of a step, which depends only on its number."""
        recipe = self.recipe
        warmup = round(recipe.warmup * self.steps)
        if step < warmup:
            return recipe.rate * (step + 1) / warmup
        if recipe.schedule == "constant":
            return recipe.rate
        period = recipe.period or self.steps if recipe.schedule == "cosine-restarts" else max(1, self.steps - warmup)
        share = (1 + math.cos(math.pi * (step - warmup) / period)) / 2
        return recipe.minimum_rate + (recipe.rate - recipe.minimum_rate) * share

    def _step(
        self,
        optimizer: torch.optim.Optimizer,
        trainable: list[torch.nn.Parameter],
        step: int,
        batch: Batch,
    ) -> Loss:
        """Do one update; returns the loss before it."""
        parts = (batch.reference, batch.distorted, batch.index, batch.target)
        reference, distorted, index, target = (part.to(self.device, non_blocking=True) for part in parts)
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step)
        optimizer.zero_grad(set_to_none=True)
        devices = [torch.device(self.device)] if self.device != "cpu" else []
        value: Loss = 0.0
        # Dropout draws from torch's global generator: it is seeded by the step here, and its state is restored afterwards.
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(number_of(self.seed, f"dropout {self.group.rank}" if self.group.rank else "dropout", step) % 2**63)
            if len(index):
                value = self._backward(reference, distorted, index, target)
        value = self.group.reduce_gradients(trainable, value, len(index) / self.batches.rows(step))
        if self.recipe.clip:
            torch.nn.utils.clip_grad_norm_(trainable, self.recipe.clip)
        optimizer.step()
        return value

    def _add_losses(self, pending: list[tuple[int, Loss]], state: _State) -> None:
        """Add the pending losses to the epoch's sum; raises Diverged if one is not finite."""
        for step, loss in pending:
            value = float(loss)
            if not math.isfinite(value):
                lower = f"{self.recipe.rate / 3:.1g}"
                raise Diverged(
                    f"the loss became {value} at step {step + 1}; try a lower learning rate (--set recipe.rate={lower})"
                )
            state.loss += value
        pending.clear()

    def _backward(self, reference: torch.Tensor, distorted: torch.Tensor, index: torch.Tensor, target: torch.Tensor) -> Loss:
        """Gradients of the mean loss over these images; returns the loss."""
        kind = torch.device(self.device).type
        with errors_of(self.card_path, "its model cannot be trained", RunError):
            with torch.autocast(kind, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
                loss = self.loss(reference, distorted, index, target)
            if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
                shape = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
                raise RunError(
                    f"{self.card_path}: its loss is {shape}, but must be one number with a gradient: the mean over images"
                )
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()) if self.device == "cpu" else loss.detach()

    def _end_epoch(self, state: _State) -> None:
        epoch = state.step // self.epoch_steps
        entry: Epoch = {"epoch": epoch, "loss": state.loss / self.epoch_steps, "rate": self.rate(state.step - 1)}
        state.loss = 0.0
        pairs, labels = self.validation
        if pairs and self.recipe.validate_every and (epoch % self.recipe.validate_every == 0 or epoch == self.recipe.epochs):
            entry |= self._validate(pairs, labels)
            if self._better(state.best, entry):
                state.best_epoch = epoch
                self._save_weights(BEST)
            for figure in ("srcc", "plcc", "main"):
                state.best[figure] = max(state.best.get(figure, -math.inf), entry[figure])
        state.history.append(entry)
        if self.writes:
            write_text(self.folder / LOG, "".join(json.dumps(e) + "\n" for e in state.history))
            self.on_epoch(entry)

    def _validate(self, pairs: Sequence[Pair], labels: np.ndarray[Any, Any]) -> dict[str, float]:
        scorer = self._validating()
        chunks = self.group.share(scorer.chunks(pairs))
        scores = {r.name: r.score for chunk in scorer.score(chunks) for r in chunk}
        figures = agreement(self.group.all_reduce(np.array([scores.get(p.name, 0.0) for p in pairs])), labels, intervals=False)
        srcc, plcc = figures.srcc or 0.0, figures.plcc or 0.0
        return {"srcc": srcc, "plcc": plcc, "main": srcc + plcc}

    def _validating(self) -> Scorer:
        self.model.eval()
        cropping = Cropping(crops=self.recipe.validation_crops, crop_size=self.crop_size or 0)
        return Scorer(self.model, cropping, seed=self.seed, device=self.device, batch=self.batch)

    def _better(self, best: Mapping[str, float], entry: Mapping[str, float]) -> bool:
        figures = {"last": (), "srcc": ("srcc",), "main": ("main",), "srcc-or-plcc": ("srcc", "plcc")}[self.recipe.selection]
        return any(entry[f] > best.get(f, -math.inf) for f in figures)

    def _out_of_patience(self, state: _State) -> bool:
        """Whether the last `recipe.patience` validations gave no better epoch."""
        validated = [entry["epoch"] for entry in state.history if "main" in entry]
        late = [epoch for epoch in validated if epoch > (state.best_epoch or 0)]
        return bool(self.recipe.patience) and len(late) >= self.recipe.patience

    def _estimate(self, step_seconds: float, done: int) -> None:
        """Log the remaining time with validations, the disk space, and shorter alternatives."""
        remaining = self._validations(done // self.epoch_steps)
        estimate = TrainingTime(
            self.recipe,
            where=f"{self.device}, one thread" if self.threads == 1 else self.device,
            step=step_seconds,
            steps=(self.steps - done, self.steps),
            validation=self._seconds_to_validate() if remaining else 0.0,
            validations=(remaining, self._validations(0)),
            trainings=self.trainings,
            size=sum(v.numel() * v.element_size() for v in self.model.state_dict().values()),
        )
        _log.info(str(estimate))

    def _validations(self, epoch: int) -> int:
        """The number of validations after an epoch."""
        every, last = self.recipe.validate_every, self.recipe.epochs
        return sum(e % every == 0 or e == last for e in range(epoch + 1, last + 1)) if every and self.validation[0] else 0

    def _seconds_to_validate(self) -> float:
        """Estimated seconds of one validation, from its first chunk, whose scores are not used."""
        begun = time.monotonic()
        pairs, _ = self.validation
        scorer = self._validating()
        chunk = scorer.chunks(pairs)[0]
        for _ in scorer.score([chunk]):
            pass
        return (time.monotonic() - begun) / len(chunk) * len(pairs) / self.group.size

    def _save(self, optimizer: torch.optim.Optimizer, state: _State) -> None:
        if not self.writes:
            return
        tensors = {f"model.{k}": v for k, v in self._trained_state().items()}
        for number, entries in optimizer.state_dict()["state"].items():
            tensors |= {f"moments.{number}.{k}": torch.as_tensor(v) for k, v in entries.items()}
        save_state(self.folder / CHECKPOINT, tensors, {"state": json.dumps(asdict(state))})

    def _trained_state(self) -> dict[str, torch.Tensor]:
        frozen = {name for name, p in self.model.named_parameters() if not p.requires_grad}
        return {k: v for k, v in self.model.state_dict().items() if k not in frozen}

    def _resume(self, optimizer: torch.optim.Optimizer) -> _State:
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return _State()
        try:
            state = msgspec.convert(json.loads(read_metadata(path)["state"]), _State)
        except (KeyError, ValueError) as error:
            raise RunError(f"{path}: not a training checkpoint ({error}); remove it to train from the start") from None
        tensors = read_state(path)
        self.model.load_state_dict(
            {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}, strict=False
        )
        entries: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("moments."):
                _, number, key = name.split(".", 2)
                entries.setdefault(int(number), {})[key] = tensor
        optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
        _log.info(f"continuing the training at step {state.step} of {self.steps}")
        return state

    def _save_weights(self, file: str) -> None:
        if not self.writes:
            return
        without = {part: sha256 for part, sha256 in self.from_files.items() if part in self.recipe.frozen}
        state = {k: v for k, v in self.model.state_dict().items() if k.partition(".")[0] not in without}
        save_state(self.folder / file, state, {**self.metadata, **({"without": json.dumps(without)} if without else {})})

    def _choose(self, state: _State) -> None:
        if state.best_epoch is not None and self.writes:
            self.model.load_state_dict(read_state(self.folder / BEST), strict=False)
        self.model.eval()
        self._save_weights(WEIGHTS)
