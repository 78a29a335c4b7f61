"""`harness score`: scoring pairs without labels by one or several models; each image is decoded once."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack

import msgspec

from harness import models
from harness.cards.overrides import apply_set
from harness.cards.schema import ModelCard
from harness.engine.devices import choose, threads
from harness.engine.kernels import kernels_of
from harness.engine.references import KeptReferences
from harness.engine.scorer import DecodedChunk, Pair, Scorer, cut
from harness.files.atomic import append_lines, sha256_json, write_text
from harness.files.hash_index import hash_files
from harness.files.table_paths import TablePaths, explained, file_name, short_names
from harness.files.text_table import read_text_columns, require_columns
from harness.imaging import decode
from harness.imaging.decode import Decoded
from harness.imaging.remarks import Remark
from harness.models import find_model
from harness.models import weights as weight_files
from harness.models.capabilities import move
from harness.models.identity import code_of
from harness.models.kernels import choice
from harness.results.run_scores import CropScore, Scored, csv_text
from harness.runtime.errors import HarnessError, RunError, UsageError, listed
from harness.runtime.progress import progress
from harness.runtime.threads import ahead

if TYPE_CHECKING:
    from harness.engine.distributed.worker_pool import WorkerPool
    from harness.models.weights import ResolvedWeights

_log = logging.getLogger(__package__)

Result = tuple[Pair, Scored]


def one_pair(reference: str, distorted: str) -> list[Pair]:
    """A pair by its two paths; its reference_id is the reference file's stem."""
    return [Pair(Path(distorted).name, distorted, reference, Path(reference).stem)]


def read_pairs(path: str, root: str | None = None) -> list[Pair]:
    """The pairs of a table with columns reference, distorted and optionally name and reference_id.

    Relative paths start at `root`, else at the table's folder. Raises UsageError listing every problem.
    """
    frame = read_text_columns(Path(path), ("reference", "distorted"))
    require_columns(frame, ("reference", "distorted"), path)
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
    problems += [f"{path}: {len(missing)} images are missing: {listed(shown)}"] if missing and not problems else []
    if problems:
        raise UsageError("\n".join(problems))
    return pairs


class Loading(TypedDict, total=False):
    """Options for loading and calling a model."""

    weights: str | None
    """A file, or a word of the card such as `released`."""
    settings: Mapping[str, Any] | None
    """Dotted paths into the card."""
    cards: Sequence[str]
    """Folders of the caller's own cards."""
    device: str | None
    """`cpu`, `cuda`, ...; default: a GPU if there is one."""
    seed: int
    """Seed of random crops; default: 0."""
    offline: bool
    """Never touch the network."""
    batch: int
    """Largest number of images in a batch; default: 8."""


class _Loaded(NamedTuple):
    card: ModelCard
    found: ResolvedWeights
    model: Any
    batch: int

    def scorer(self, how: Loading) -> Scorer:
        """The model in this process."""
        where = choose(how.get("device"), self.model)
        move(self.model, where)
        protocol, identical, seed = self.card.protocol, self.card.identical, how.get("seed", 0)
        return Scorer(self.model, protocol, identical, seed, where, self.batch, card_path=self.card.path)


def _loaded(model: str, pairs: Sequence[Pair], how: Loading) -> _Loaded:
    weights, cards = how.get("weights"), how.get("cards", ())
    if weights is None and find_model(model, cards).recipe is not None:
        raise UsageError(
            f"{model} has to be trained before it can score: give its weights with --weights (a run's weights.safetensors, "
            "a word such as released where the card has it), or train it with `harness run`"
        )
    card = apply_set(find_model(model, cards), how.get("settings") or {})
    found = weight_files.find(card, weights, offline=how.get("offline", False))
    most = max(Counter(pair.reference for pair in pairs).values())
    return _Loaded(card, found, models.build(card, found, how.get("seed", 0)), min(how.get("batch", 8), most))


@contextmanager
def scorer(
    model: str, pairs: Sequence[Pair], *, workers: int = 0, ray: str | None = None, **how: Unpack[Loading]
) -> Iterator[Scorer | WorkerPool]:
    """A model loaded to score these pairs with its card's cropping, here, in `workers` processes or on the cluster `ray`.

    Raises UsageError for a model that needs training first (the released AHIQ code would score with random heads).
    """
    loaded = _loaded(model, pairs, how)
    if workers < 2 and not ray:
        yield loaded.scorer(how)
        return
    from harness.engine.distributed.inside_worker import Job
    from harness.engine.distributed.start_workers import start_workers

    with (
        start_workers(loaded.model, ray, workers, how.get("device")) as started,
        choice.using(kernels_of(loaded.model, started.share.device, max(1, started.share.threads))),
        started.pool(Job(loaded.card, loaded.found, how.get("seed", 0), loaded.batch, choice.imposed())) as pool,
    ):
        yield pool


@dataclass(frozen=True)
class Ready:
    """A loaded model of the command."""

    name: str
    higher_is_better: bool
    scorer: Scorer
    identity: str
    """sha256 of everything that determines its scores."""


@dataclass(frozen=True)
class ScoredPair:
    """A pair with its result under each model, in the models' order."""

    pair: Pair
    results: tuple[Scored, ...]


def several(names: Sequence[str], pairs: Sequence[Pair], **how: Unpack[Loading]) -> list[Ready]:
    """The models `names`, loaded to score `pairs` in this process.

    Raises UsageError listing every model that cannot be loaded, and names given twice.
    """
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    problems = [f"models given twice: {listed(twice)}"] if twice else []
    if (weights := how.get("weights")) is not None and len(names) > 1:
        problems.append(f"--weights {weights} belongs to one model, but {len(names)} are given: score them one after the other")
    ready: list[Ready] = []
    for name in dict.fromkeys(names):
        try:
            loaded = _loaded(name, pairs, how)
            made = loaded.scorer(how)
            kernels = kernels_of(loaded.model, made.device, threads(loaded.model))
            identity = sha256_json(
                {
                    "card": repr(replace(loaded.card, path="")),
                    "code": code_of(loaded.card),
                    "weights": [sorted(loaded.found.sha256.items()), loaded.found.random],
                    "seed": made.seed,
                    "device": made.device,
                    "batch": made.batch,
                    **({"kernels": kernels} if kernels else {}),
                }
            )
            ready.append(Ready(loaded.card.name, loaded.card.higher_is_better, made, identity))
        except UsageError as error:
            problems.append(str(error))
    same = sorted(name for name, count in Counter(r.name for r in ready).items() if count > 1)
    problems += [f"models with the same name: {listed(same)}"] if same else []
    if problems:
        raise UsageError("\n".join(problems))
    return ready


def score_all(ready: Sequence[Ready], pairs: Sequence[Pair], *, journal: Path | None = None) -> list[ScoredPair]:
    """Every pair under every model, in the pairs' order; each image is decoded once for all models.

    Metrics on uint8 work in the decoding threads; networks, one after the other, in the calling thread. With a `journal`
    finished chunks are appended to this file, and a later call with the same models and images continues from there.

    Args:
        ready: from `several`.
        pairs: with unique names.
        journal: a file next to the output; the caller removes it when the output is written.

    Raises:
        UsageError: listing every image that cannot be decoded or scored; all others are scored first and kept.
        RunError: naming images whose score is not finite; all others are kept.
    """
    chunks = cut(pairs, ready[0].scorer.batch)
    done = {} if journal is None else _resume(journal, ready, pairs, chunks)
    kept = sum(len(chunks[number]) for number in done)
    if kept:
        _log.info(f"continuing: {kept} of {len(pairs)} pairs were scored before")
    plan = [number for number in range(len(chunks)) if number not in done]
    threads = ready[0].scorer.threads
    references = KeptReferences(threads)
    problems: list[str] = []
    faults: list[str] = []

    def work(number: int) -> tuple[int, DecodedChunk | str, dict[int, list[Scored] | HarnessError]]:
        decoded = _decoded(chunks[number], references)
        return number, decoded, {} if isinstance(decoded, str) else _scores_of(ready, decoded, on_uint8=True)

    with ExitStack() as stack:
        step = stack.enter_context(progress("scoring", len(pairs), done=kept, unit="pairs"))
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        for one in ready:
            stack.enter_context(one.scorer.working())
        for number, decoded, outcome in ahead(pool, work, plan, threads + 1):
            if isinstance(decoded, str):
                problems.append(decoded)
                continue
            outcome |= _scores_of(ready, decoded, on_uint8=False)
            for error in (one for one in outcome.values() if isinstance(one, HarnessError)):
                (faults if error.exit_status == 1 else problems).append(str(error))
            each = [one for _, one in sorted(outcome.items()) if not isinstance(one, HarnessError)]
            if len(each) < len(ready):
                continue
            rows = [ScoredPair(pair, results) for pair, results in zip(chunks[number], zip(*each, strict=True), strict=True)]
            done[number] = rows
            if journal is not None:
                append_lines(journal, _line(number, rows))
            kept += len(rows)
            step(kept)
    if problems or faults:
        text = "\n".join([*problems[:20], *([f"and {len(problems) - 20} more"] if len(problems) > 20 else []), *faults[:20]])
        text += f"\n{kept} of {len(pairs)} pairs are scored" + (
            f" and kept in {journal}; the same command continues from there" if journal else ""
        )
        raise UsageError(text) if problems else RunError(text)
    by_name = {row.pair.name: row for rows in done.values() for row in rows}
    return [by_name[pair.name] for pair in pairs]


def _decoded(chunk: Sequence[Pair], references: KeptReferences) -> DecodedChunk | str:
    """The chunk with its decoded images, or the text of all problems with them."""
    found: list[Decoded] = []
    problems: list[str] = []
    for number, path in enumerate((chunk[0].reference, *(pair.distorted for pair in chunk))):
        try:
            found.append(decode.read_hashed(path) if number else references.read(path))
        except UsageError as error:
            problems.append(str(error))
    for pair, image in zip(chunk, found[1:], strict=True) if not problems else ():
        try:
            decode.check_same_size(found[0].pixels, image.pixels, pair.name)
        except UsageError as error:
            problems.append(str(error))
    return "\n".join(problems) if problems else DecodedChunk(chunk, found[0], found[1:])


def _scores_of(ready: Sequence[Ready], chunk: DecodedChunk, *, on_uint8: bool) -> dict[int, list[Scored] | HarnessError]:
    """The chunk's results by model, or the model's error."""
    outcome: dict[int, list[Scored] | HarnessError] = {}
    for number, one in enumerate(ready):
        if one.scorer.on_uint8 == on_uint8:
            try:
                outcome[number] = one.scorer.score_decoded(chunk)
            except HarnessError as error:
                outcome[number] = type(error)(f"{one.name}: {error}")
    return outcome


class _JournalLine(msgspec.Struct):
    """A finished chunk: the results by pair and model, without the pairs' names."""

    chunk: int
    rows: list[list[tuple[float, bool, str, str, tuple[CropScore, ...], tuple[Remark, ...]]]]


def _line(number: int, rows: Sequence[ScoredPair]) -> str:
    return json.dumps({"chunk": number, "rows": [[result[1:] for result in row.results] for row in rows]}) + "\n"


def _resume(
    journal: Path, ready: Sequence[Ready], pairs: Sequence[Pair], chunks: Sequence[Sequence[Pair]]
) -> dict[int, list[ScoredPair]]:
    """Chunks that an interrupted command finished with the same models and whose images have not changed.

    A journal of other models or pairs is started again.
    """
    identity = sha256_json({"format": 2, "models": [[r.name, r.identity] for r in ready], "pairs": [list(p) for p in pairs]})
    head = json.dumps({"journal": "harness score", "identity": identity}) + "\n"
    try:
        lines = journal.read_text(encoding="utf-8").split("\n")[:-1]  # the last one is incomplete or empty
    except (OSError, UnicodeDecodeError):
        lines = []
    done: dict[int, list[ScoredPair]] = {}
    if lines and lines[0] == head.removesuffix("\n"):
        for line in lines[1:]:
            with suppress(ValueError, msgspec.MsgspecError, IndexError):
                entry = msgspec.convert(json.loads(line), _JournalLine)
                rows = [
                    ScoredPair(pair, tuple(Scored(pair.name, *one) for one in row))
                    for pair, row in zip(chunks[entry.chunk], entry.rows, strict=True)
                ]
                if all(len(row.results) == len(ready) for row in rows):
                    done[entry.chunk] = rows
    # Only chunks whose files still have the scored content.
    paths = {path for rows in done.values() for row in rows for path in (row.pair.distorted, row.pair.reference)}
    try:
        content = hash_files({path for path in paths if os.path.isfile(path)})
    except UsageError:  # scoring reports a file that cannot be read
        done = {}

    def same(row: ScoredPair) -> bool:
        found = content.get(row.pair.distorted), content.get(row.pair.reference)
        return all((result.distorted, result.reference) == found for result in row.results)

    done = {number: rows for number, rows in done.items() if all(map(same, rows))}
    write_text(journal, head + "".join(_line(number, rows) for number, rows in done.items()))
    return done


def score(scorer: Scorer | WorkerPool, pairs: Sequence[Pair]) -> list[Result]:
    """Every pair with its result, in the pairs' order."""
    done: dict[str, Scored] = {}
    with progress("scoring", len(pairs), unit="pairs") as step:
        for _, results in scorer.each(dict(enumerate(scorer.chunks(pairs)))):
            done |= {r.name: r for r in results}
            step(len(done))
    return [(pair, done[pair.name]) for pair in pairs]


def write_scores(path: str, results: Sequence[Result], others: Mapping[str, Sequence[str]] | None = None) -> None:
    """name,score, floats with all their digits, and the `others` columns, by rows; one called `score` becomes label."""
    others = dict(others or {})
    called = "label" if "label" not in others else "score_of_the_pairs"
    others = {(called if name == "score" else name): values for name, values in others.items()}
    rows = [(p.name, repr(s.score), *(values[i] for values in others.values())) for i, (p, s) in enumerate(results)]
    write_text(path, csv_text([("name", "score", *others), *rows]))


def other_columns(path: str) -> dict[str, list[str]]:
    """The columns of a table of pairs except the names, as text, by rows."""
    frame = read_text_columns(Path(path), ("reference", "distorted"))
    return {str(name): list(frame[name]) for name in frame if name != "name"}


def as_json(pair: Pair, scored: Scored) -> dict[str, object]:
    """One object of `harness score --json`; `remarks` where there are remarks on the files."""
    crops = [
        {"top": c.crop.top, "left": c.crop.left, "score": c.score, **({"mirrored": True} if c.crop.mirrored else {})}
        for c in scored.crops
    ]
    facts = {"reference": pair.reference, "distorted": pair.distorted, "name": pair.name, "score": scored.score, "crops": crops}
    return facts | ({"remarks": [f"{r.kind}: {r.what}" for r in scored.remarks]} if scored.remarks else {})
