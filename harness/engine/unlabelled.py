"""Scoring pictures that have no labels: one pair, or a table of pairs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import models
from harness.cards.overrides import apply_set
from harness.engine.devices import choose
from harness.engine.scorer import Pair, Scorer
from harness.files.atomic import write_text
from harness.models import find_model
from harness.models import weights as weight_files
from harness.models.capabilities import move
from harness.results.run_scores import Scored, csv_text
from harness.runtime.errors import UsageError, listed
from harness.runtime.progress import progress

if TYPE_CHECKING:
    from harness.engine.distributed.workers import WorkerPool

Result = tuple[Pair, Scored]


def one_pair(reference: str, distorted: str) -> list[Pair]:
    """A pair by its two paths; its reference_id is the reference file's stem."""
    return [Pair(Path(distorted).name, distorted, reference, Path(reference).stem)]


def read_pairs(path: str, root: str | None = None) -> list[Pair]:
    """The pairs of a table with columns reference, distorted and optionally name and reference_id.

    Relative paths start at `root`, else at the table's folder. Raises UsageError listing every problem.
    """
    from harness.files.table_paths import TablePaths, explained, file_name, short_names
    from harness.files.text_table import read_text_columns

    frame = read_text_columns(Path(path), ("reference", "distorted"))
    absent = [c for c in ("reference", "distorted") if c not in frame]
    if absent:
        raise UsageError(f"{path}: missing columns {', '.join(absent)} (it has {', '.join(frame.columns)})")
    if frame.empty:
        raise UsageError(f"{path}: no rows")
    folder = Path(root) if root else Path(path).parent
    names = list(frame["name"]) if "name" in frame else short_names(list(frame["distorted"]))
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    ids = list(frame["reference_id"]) if "reference_id" in frame else [Path(file_name(r)).stem for r in frame["reference"]]
    paths = TablePaths(folder)
    pairs = [
        Pair(name, paths.find(distorted), paths.find(reference), reference_id)
        for name, distorted, reference, reference_id in zip(names, frame["distorted"], frame["reference"], ids, strict=True)
    ]
    problems = [f"{path}: names that occur more than once: {listed(twice)}"] if twice else []
    for column in ("reference", "distorted"):
        blank = [line for line, value in zip(frame.index, frame[column], strict=True) if not value]
        problems += [f"{path}: empty {column} in {frame.index.name}s {listed(blank)}"] if blank else []
    missing = sorted({p for pair in pairs for p in (pair.distorted, pair.reference) if not os.path.isfile(p)})
    shown = [explained(place) for place in missing[:20]] + missing[20:]
    problems += [f"{path}: {len(missing)} pictures are missing: {listed(shown)}"] if missing and not problems else []
    if problems:
        raise UsageError("\n".join(problems))
    return pairs


@contextmanager
def scorer(
    model: str,
    pairs: Sequence[Pair],
    *,
    weights: str | None = None,
    settings: Mapping[str, Any] | None = None,
    cards: Sequence[str] = (),
    device: str | None = None,
    seed: int = 0,
    offline: bool = False,
    workers: int = 0,
    ray: str | None = None,
    batch: int = 8,
    say: Callable[[str], None] = print,
) -> Iterator[Scorer | WorkerPool]:
    """A model ready to score these pairs under its card's cropping, here, or in `workers` processes or on the cluster `ray`.

    Raises UsageError for a model that would have to be trained first: the released AHIQ code scores with random heads then.
    """
    if weights is None and find_model(model, cards).recipe is not None:
        raise UsageError(
            f"{model} scores nothing before it is trained: give its weights with --weights (a run's weights.safetensors, "
            "a word such as released where the card has it), or train it with `harness run`"
        )
    card = apply_set(find_model(model, cards), settings or {})
    found = weight_files.find(card, weights, offline=offline)
    loaded = models.build(card, found, seed)
    most = max(Counter(pair.reference for pair in pairs).values())
    if workers < 2 and not ray:
        where = choose(device, loaded)
        move(loaded, where)
        yield Scorer(loaded, card.protocol, card.identical, seed, where, min(batch, most), say=say, card_path=card.path)
        return
    from harness.engine.distributed.worker import Job
    from harness.engine.distributed.workers import start_workers

    with (
        start_workers(loaded, ray, workers, device) as started,
        started.pool(Job(card, found, seed, min(batch, most)), say) as pool,
    ):
        yield pool


def score(scorer: Scorer | WorkerPool, pairs: Sequence[Pair], *, quiet: bool = False) -> list[Result]:
    """Every pair with its result, in the pairs' order."""
    done: dict[str, Scored] = {}
    with progress("scoring", len(pairs), unit="pairs", quiet=quiet) as step:
        for _, results in scorer.each(dict(enumerate(scorer.chunks(pairs)))):
            done |= {r.name: r for r in results}
            step(len(done))
    return [(pair, done[pair.name]) for pair in pairs]


def write_scores(path: str, results: Sequence[Result]) -> None:
    """name,score, floats with all their digits."""
    write_text(path, csv_text([("name", "score"), *((p.name, repr(s.score)) for p, s in results)]))


def as_json(pair: Pair, scored: Scored) -> dict[str, Any]:
    """One object of `harness score --json`; `remarks` where there is something to know about the files."""
    crops = [
        {"top": c.crop.top, "left": c.crop.left, "score": c.score, **({"mirrored": True} if c.crop.mirrored else {})}
        for c in scored.crops
    ]
    facts = {"reference": pair.reference, "distorted": pair.distorted, "name": pair.name, "score": scored.score, "crops": crops}
    return facts | ({"remarks": [f"{r.kind}: {r.what}" for r in scored.remarks]} if scored.remarks else {})
