"""Training a model by its card's recipe, so that a killed run goes on to the very bits of an undisturbed one.

Every random choice is a function of the run's seed and a step's or pass's number, so a checkpoint needs no
generator's state beyond its step: which pairs form batch n, where it is cropped, whether it is flipped.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from harness.cards.plugins import errors_of
from harness.cards.schema import Cropping, Recipe
from harness.engine.scorer import Pair, Scorer
from harness.files.atomic import write_text
from harness.imaging import decode
from harness.imaging.decode import Pixels
from harness.models.weights.checkpoint import read_metadata, read_state, save_state
from harness.results.run_folder import require_there
from harness.runtime.errors import RunError, UsageError
from harness.runtime.progress import Step, duration, progress
from harness.statistics.agreement import agreement

if TYPE_CHECKING:
    import pandas as pd

CHECKPOINT, BEST, WEIGHTS, LOG = "checkpoint.safetensors", "best.safetensors", "weights.safetensors", "log.jsonl"
_CACHE_BYTES = 1 << 30
_SECONDS_BETWEEN_CHECKPOINTS = 60.0
_STEPS_TO_ESTIMATE = 8
_LONG = 3600.0


class Group(NamedTuple):
    """Distorted images (positions in the training table) of one reference that share a crop and a flip."""

    reference: str
    rows: tuple[int, ...]


@dataclass
class Trained:
    """What training left: the chosen weights are in the model, and in `weights.safetensors`."""

    steps: int
    epochs: int
    best_epoch: int | None
    seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)


class SingleProcess:
    """The process group of a trainer that works by itself; `harness.engine.distributed.training.ProcessGroup` has several."""

    rank, size = 0, 1

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """This member's part of what all have."""
        return items

    def broadcast(self, model: torch.nn.Module) -> None:
        """Begin from the same bits."""

    def reduce_gradients(self, parameters: Sequence[torch.nn.Parameter], loss: float, share: float) -> float:
        """Turn gradients of a part of the batch into the whole batch's; `share`: of its images. Returns the whole's loss."""
        return loss

    def all_reduce(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The sum over all members."""
        return values


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
    batch: int = 8
    metadata: Mapping[str, str] = field(default_factory=dict)
    say: Callable[[str], None] = print
    quiet: bool = False
    on_epoch: Callable[[dict[str, Any]], None] = lambda entry: None
    group: SingleProcess = field(default_factory=SingleProcess)
    """Members share each batch by whole groups; the first of them writes."""
    shown: Callable[..., AbstractContextManager[Step]] = progress

    def __post_init__(self) -> None:
        if not isinstance(self.model, torch.nn.Module):
            raise UsageError(f"{type(self.model).__name__} has a recipe but is no torch.nn.Module, so it cannot be trained")
        low, high = float(self.labels.min()), float(self.labels.max())
        if not high > low:
            raise UsageError("all training labels are equal: nothing can be learned from them")
        self.targets = ((self.labels - low) / (high - low)).astype(np.float32)
        self.pairs = [(str(r), str(d)) for r, d in zip(self.table["reference"], self.table["distorted"], strict=True)]
        self.by_reference: dict[str, list[int]] = {}
        for row, (reference, _) in enumerate(self.pairs):
            self.by_reference.setdefault(reference, []).append(row)
        per_pass = sum(-(-len(rows) // self.recipe.batch_distorted) for rows in self.by_reference.values())
        self.batches_per_pass = -(-per_pass // self.recipe.batch_references)
        self.epoch_steps = self.recipe.steps_per_epoch or self.batches_per_pass
        self.steps = self.recipe.epochs * self.epoch_steps
        self.takes_index = "index" in inspect.signature(self.model.forward).parameters
        self.decoded = _Decoded(_CACHE_BYTES)
        self.sizes: dict[str, tuple[int, int]] = {}

    @property
    def writes(self) -> bool:
        """Whether this member of the group keeps the folder."""
        return self.group.rank == 0

    def train(self) -> Trained:
        """Train to the end, from the folder's checkpoint if there is one, and leave the chosen weights in the model."""
        recipe = self.recipe
        self.model.to(self.device)
        self._freeze()
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        if not trainable:
            raise UsageError("recipe.frozen freezes every parameter: nothing is left to train")
        optimizer = self._optimizer(trainable)
        state = self._resume(optimizer)
        self.group.broadcast(self.model)
        begun, saved, first = time.monotonic(), time.monotonic(), state["step"]
        with self.shown("training", self.steps, done=first, unit="steps", quiet=self.quiet) as step_done:
            for step, (reference, distorted, index, target) in self._batches(first):
                self._train_mode()
                loss = self._step(optimizer, trainable, step, reference, distorted, index, target)
                state["loss"] += loss
                state["step"] = step + 1
                if step + 1 - first == min(_STEPS_TO_ESTIMATE, self.steps - first):
                    self._estimate((time.monotonic() - begun) / (step + 1 - first) * (self.steps - step - 1))
                epoch_ends = (step + 1) % self.epoch_steps == 0
                saves = epoch_ends or time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS
                if saves:
                    require_there(self.folder)
                if epoch_ends:
                    self._end_epoch(state)
                if saves:
                    state["seconds"] += time.monotonic() - begun
                    begun = saved = time.monotonic()
                    self._save(optimizer, state)
                step_done(step + 1, f"loss {loss:.4f}" if epoch_ends else "")
        self._choose(state)
        return Trained(self.steps, recipe.epochs, state["best_epoch"], state["seconds"], state["history"])

    def _freeze(self) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not any(name == f or name.startswith(f + ".") for f in self.recipe.frozen))
        prefixes = {name.split(".")[0] for name, _ in self.model.named_parameters()}
        unknown = [f for f in self.recipe.frozen if f.split(".")[0] not in prefixes]
        if unknown:
            raise UsageError(f"recipe.frozen names {unknown}, which the model has not (it has {sorted(prefixes)})")

    def _train_mode(self) -> None:
        # A frozen part's BatchNorm must not go on counting, nor its dropout drop.
        self.model.train()
        for name in self.recipe.frozen:
            part = dict(self.model.named_modules()).get(name)
            if part is not None:
                part.eval()

    def _optimizer(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        recipe = self.recipe
        if recipe.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=recipe.rate, momentum=0.9, weight_decay=recipe.weight_decay)
        kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
        return kind(parameters, lr=recipe.rate, betas=recipe.betas, weight_decay=recipe.weight_decay)

    def rate(self, step: int) -> float:
        """The learning rate of a step, a function of its number alone."""
        recipe = self.recipe
        warm = round(recipe.warmup * self.steps)
        if step < warm:
            return recipe.rate * (step + 1) / warm
        if recipe.schedule == "constant":
            return recipe.rate
        turn = recipe.period or self.steps if recipe.schedule == "cosine-restarts" else max(1, self.steps - warm)
        share = (1 + math.cos(math.pi * (step - warm) / turn)) / 2
        return recipe.minimum_rate + (recipe.rate - recipe.minimum_rate) * share

    def _step(
        self,
        optimizer: torch.optim.Optimizer,
        trainable: list[torch.nn.Parameter],
        step: int,
        reference: torch.Tensor,
        distorted: torch.Tensor,
        index: torch.Tensor,
        target: torch.Tensor,
    ) -> float:
        """One update; returns the loss before it."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step)
        optimizer.zero_grad(set_to_none=True)
        devices = [torch.device(self.device)] if self.device != "cpu" else []
        value = 0.0
        # A model with dropout draws from torch's global generator: seeded by the step, and given back as it was.
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(_number(self.seed, f"dropout {self.group.rank}" if self.group.rank else "dropout", step) % 2**63)
            if len(index):
                value = self._backward(reference, distorted, index, target)
        value = self.group.reduce_gradients(trainable, value, len(index) / self._rows(step))
        if self.recipe.clip:
            torch.nn.utils.clip_grad_norm_(trainable, self.recipe.clip)
        optimizer.step()
        if not math.isfinite(value):
            raise RunError(
                f"the loss became {value} at step {step + 1}; try a lower rate (--set recipe.rate={self.recipe.rate / 3:.1g})"
            )
        return value

    def _backward(self, reference: torch.Tensor, distorted: torch.Tensor, index: torch.Tensor, target: torch.Tensor) -> float:
        """Gradients of the mean loss over these images; returns the loss."""
        with errors_of(self.card_path, "its model cannot be trained", RunError):
            predicted = (
                self.model(reference, distorted, index=index) if self.takes_index else self.model(reference[index], distorted)
            )
        losses = {"mse": torch.nn.functional.mse_loss, "l1": torch.nn.functional.l1_loss}
        loss = losses[self.recipe.loss](predicted, target)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _rows(self, step: int) -> int:
        """Distorted images of a step's whole batch."""
        return sum(len(group.rows) for group in self.groups(step))

    def groups(self, number: int) -> list[Group]:
        """The groups of batch `number`: passes over the training part follow one another, each in an order of its own."""
        done, position = divmod(number, self.batches_per_pass)
        if getattr(self, "_pass", (None, []))[0] != done:
            draw = _generator(self.seed, "pass", done)
            whole: list[Group] = []
            for reference, rows in self.by_reference.items():
                order = [rows[i] for i in draw.permutation(len(rows))]
                size = self.recipe.batch_distorted
                whole += [Group(reference, tuple(order[i : i + size])) for i in range(0, len(order), size)]
            self._pass = (done, [whole[i] for i in draw.permutation(len(whole))])
        first = position * self.recipe.batch_references
        return self._pass[1][first : first + self.recipe.batch_references]

    def _batches(self, first: int) -> Iterator[tuple[int, tuple[torch.Tensor, ...]]]:
        """Batches from step `first` on, each decoded while the one before it is trained on."""
        with ThreadPoolExecutor(1) as pool:
            coming: Future[tuple[torch.Tensor, ...]] | None = None
            for step in range(first, self.steps):
                current = coming or pool.submit(self._batch, step, self.groups(step))
                batch = current.result()
                coming = pool.submit(self._batch, step + 1, self.groups(step + 1)) if step + 1 < self.steps else None
                yield step, tuple(t.to(self.device, non_blocking=True) for t in batch)

    def _batch(self, step: int, groups: Sequence[Group]) -> tuple[torch.Tensor, ...]:
        """reference (G, 3, S, S) and distorted (N, 3, S, S) float32 in [0, 1], index (N,), target (N,): this member's share."""
        draw = _generator(self.seed, "crops", step)
        still: list[Pixels] = []
        moved: list[Pixels] = []
        index, target = [], []
        mine = set(self.group.share(range(len(groups))))
        for number, group in enumerate(groups):
            height, width = self._size(group.reference)
            size = self.crop_size
            if size and min(height, width) < size:
                raise UsageError(f"{group.reference}: {width}x{height} is smaller than the {size}x{size} training crop")
            rows, columns = (size, size) if size else (height, width)
            top, left = (int(draw.integers(0, extent + 1)) for extent in (height - rows, width - columns))
            flips = [bool(draw.random() < self.recipe.flip_probability) for _ in range(2)]
            if number not in mine:
                # Drawn all the same: a group's crop may not depend on who has it.
                continue
            reference = self.decoded[group.reference]

            def cut(pixels: Pixels, where: tuple[slice, slice] = (slice(top, top + rows), slice(left, left + columns))) -> Pixels:
                return self._flip(pixels[where], flips)  # noqa: B023

            still.append(cut(reference))
            for row in group.rows:
                picture = self.decoded[self.pairs[row][1]]
                decode.check_same_size(reference, picture, self.pairs[row][1])
                moved.append(cut(picture))
                index.append(len(still) - 1)
                target.append(self.targets[row])
        return _tensor(still), _tensor(moved), torch.tensor(index), torch.tensor(np.array(target, dtype=np.float32))

    def _size(self, reference: str) -> tuple[int, int]:
        if reference not in self.sizes:
            height, width = self.decoded[reference].shape[:2]
            self.sizes[reference] = height, width
        return self.sizes[reference]

    def _flip(self, pixels: Pixels, flips: Sequence[bool]) -> Pixels:
        horizontal = self.recipe.flip in ("horizontal", "both") and flips[0]
        vertical = self.recipe.flip in ("vertical", "both") and flips[1]
        return pixels[:: -1 if vertical else 1, :: -1 if horizontal else 1]

    def _end_epoch(self, state: dict[str, Any]) -> None:
        epoch = state["step"] // self.epoch_steps
        entry: dict[str, Any] = {"epoch": epoch, "loss": state["loss"] / self.epoch_steps, "rate": self.rate(state["step"] - 1)}
        state["loss"] = 0.0
        pairs, labels = self.validation
        if pairs and self.recipe.validate_every and (epoch % self.recipe.validate_every == 0 or epoch == self.recipe.epochs):
            entry |= self._validate(pairs, labels)
            if self._better(state["best"], entry):
                state["best_epoch"] = epoch
                self._save_weights(BEST)
            for figure in ("srcc", "plcc", "main"):
                state["best"][figure] = max(state["best"].get(figure, -math.inf), entry[figure])
        state["history"].append(entry)
        if self.writes:
            write_text(self.folder / LOG, "".join(json.dumps(e) + "\n" for e in state["history"]))
            self.on_epoch(entry)

    def _validate(self, pairs: Sequence[Pair], labels: np.ndarray[Any, Any]) -> dict[str, float]:
        self.model.eval()
        cropping = Cropping(crops=self.recipe.validation_crops, crop_size=self.crop_size or 0)
        scorer = Scorer(self.model, cropping, seed=self.seed, device=self.device, batch=self.batch, say=self.say)
        chunks = self.group.share(scorer.chunks(pairs))
        scores = {r.name: r.score for chunk in scorer.score(chunks) for r in chunk}
        figures = agreement(self.group.all_reduce(np.array([scores.get(p.name, 0.0) for p in pairs])), labels, intervals=False)
        srcc, plcc = figures.srcc or 0.0, figures.plcc or 0.0
        return {"srcc": srcc, "plcc": plcc, "main": srcc + plcc}

    def _better(self, best: Mapping[str, float], entry: Mapping[str, float]) -> bool:
        figures = {"last": (), "srcc": ("srcc",), "main": ("main",), "srcc-or-plcc": ("srcc", "plcc")}[self.recipe.selection]
        return any(entry[f] > best.get(f, -math.inf) for f in figures)

    def _estimate(self, seconds: float) -> None:
        if self.quiet and seconds < _LONG:
            return
        text = f"training will take about {duration(seconds)} on {self.device}"
        if seconds > _LONG:
            text += (
                "; shorter: test released weights (--weights released), fewer epochs (--set recipe.epochs=N), "
                "a variant with larger patches, or a GPU (--device cuda). It can be stopped and taken up again at any time"
            )
        self.say(text)

    def _save(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        if not self.writes:
            return
        tensors = {f"model.{k}": v for k, v in self._trained_state().items()}
        for number, entries in optimizer.state_dict()["state"].items():
            tensors |= {f"moments.{number}.{k}": torch.as_tensor(v) for k, v in entries.items()}
        save_state(self.folder / CHECKPOINT, tensors, {"state": json.dumps(dict(state))})

    def _trained_state(self) -> dict[str, torch.Tensor]:
        frozen = {name for name, p in self.model.named_parameters() if not p.requires_grad}
        return {k: v for k, v in self.model.state_dict().items() if k not in frozen}

    def _resume(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        path = self.folder / CHECKPOINT
        fresh: dict[str, Any] = {"step": 0, "loss": 0.0, "seconds": 0.0, "best": {}, "best_epoch": None, "history": []}
        if not path.is_file():
            return fresh
        state = json.loads(read_metadata(path)["state"])
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
        self.say(f"taking up the training at step {state['step']} of {self.steps}")
        return {**fresh, **state}

    def _save_weights(self, file: str) -> None:
        if not self.writes:
            return
        save_state(self.folder / file, self.model.state_dict(), dict(self.metadata))

    def _choose(self, state: Mapping[str, Any]) -> None:
        if state["best_epoch"] is not None and self.writes:
            self.model.load_state_dict(read_state(self.folder / BEST))
        self.model.eval()
        self._save_weights(WEIGHTS)


class _Decoded:
    """Decoded pictures by path, the least recently used dropped beyond a number of bytes."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self.kept: OrderedDict[str, Pixels] = OrderedDict()

    def __getitem__(self, path: str) -> Pixels:
        if path in self.kept:
            self.kept.move_to_end(path)
            return self.kept[path]
        pixels = self.kept[path] = decode.read(path)
        self.bytes += pixels.nbytes
        while self.bytes > self.limit and len(self.kept) > 1:
            self.bytes -= self.kept.popitem(last=False)[1].nbytes
        return pixels


def _number(seed: int, what: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}|{what}|{number}".encode()).digest(), "big")


def _generator(seed: int, what: str, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(_number(seed, what, number)))


def _tensor(cuts: Sequence[Pixels]) -> torch.Tensor:
    if not cuts:
        return torch.empty(0, 3, 0, 0)
    return torch.from_numpy(np.stack(cuts)).permute(0, 3, 1, 2).float().div_(255)
