"""Reading scores by a model's name, a run's folder or a CSV of name,score, as higher-is-better scores by image name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from harness.datasets import dataset_card, is_table
from harness.files.score_table import read_scores
from harness.models import find_model
from harness.results.record import Record, RepeatsRecord, read_record
from harness.results.run_folder import folder_of
from harness.results.run_scores import ScoreFile, split_part
from harness.runtime.errors import UsageError, listed

_log = logging.getLogger(__package__)


@dataclass(frozen=True)
class Member:
    """Scores by image name, higher is better; `parts` has the part of each where a run gives it."""

    name: str
    scores: Mapping[str, float]
    parts: Mapping[str, str]
    images: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """sha256 of the scored distorted image and reference, by name; empty where they are not known."""
    folder: Path | None = None
    record: Record | None = None
    splits: tuple[Mapping[str, float], ...] = ()
    """For a record of repeated splits: the scores of each split's test part, by name. `scores` then has the images whose score is
    the same in every split; it is empty for a model that is trained on every split."""

    def part(self, *wanted: str) -> dict[str, float]:
        """The scores of these parts; all scores of a score file, which has no parts."""
        if not self.parts:
            return dict(self.scores)
        return {name: score for name, score in self.scores.items() if self.parts[name] in wanted}


def member(
    word: str,
    *,
    dataset: str | None = None,
    protocol: str | None = None,
    runs_folder: str | Path = "runs",
    root: str | None = None,
    cards: Sequence[str] = (),
    lower_is_better: bool = False,
) -> Member:
    """The member `word`. A model's name stands for its newest finished run on `dataset` (and `protocol`), without the runs of
    single splits behind a record of repeated splits.

    `dataset` is a name, a card's or a table's path; `root` and `cards` are for the command shown when there is no run.
    `lower_is_better` is for score files; a record has its polarity. Raises UsageError with the command to run first.
    """
    path = Path(word)
    if is_table(word) or (path.is_file() and path.suffix.lower() != ".toml"):
        frame = read_scores(path)
        sign = -1.0 if lower_is_better else 1.0
        return Member(path.stem, {n: sign * s for n, s in zip(frame["name"].tolist(), frame["score"].tolist(), strict=True)}, {})
    if (path / "record.json").is_file():
        return _of_run(path)
    if dataset is None:
        raise UsageError(f"{word}: neither a run's folder nor a CSV of name,score; for a model's name, give the --dataset")
    model = find_model(word, cards).name if path.suffix.lower() == ".toml" else word
    place = folder_of(runs_folder, dataset_card(dataset, cards).name, model, "x").parent
    finished = [(f, r) for f in sorted(place.glob("*")) if f.is_dir() and (r := read_record(f)) is not None]
    finished = [(f, r) for f, r in finished if protocol in (None, r.protocol) and not r.partial]
    behind = {key for _, r in finished if isinstance(r, RepeatsRecord) for key in r.runs_behind}
    finished = [(f, r) for f, r in finished if r.key not in behind]
    if not finished:
        from harness.engine.request import Request, command

        under = f" under protocol {protocol}" if protocol else ""
        first = Request(word, dataset, root=root, protocol=protocol, cards=tuple(cards), runs=str(runs_folder))
        raise UsageError(
            f"{word}: no finished run on {dataset}{under} in {place.parent.parent}; first: {command(first, here=True)}"
        )
    folder = max(finished, key=lambda entry: (entry[1].created, str(entry[0])))[0]
    if len(finished) > 1:
        _log.info(f"{word}: {len(finished)} finished runs on {dataset}; the newest is used, {folder}")
    return _of_run(folder)


def _of_run(folder: Path) -> Member:
    record = read_record(folder)
    assert record is not None
    sign = 1.0 if record.higher_is_better else -1.0
    file = ScoreFile(folder)
    rows = [(name, sign * score, part) for name, score, part in file.read()]
    images = {name: (distorted, reference) for name, distorted, reference in file.picture_hashes() if distorted}
    if not isinstance(record, RepeatsRecord):
        return Member(record.model, {n: s for n, s, _ in rows}, {n: p for n, _, p in rows}, images, folder, record)
    splits: dict[str, dict[str, float]] = {split_part(repeat.repeat): {} for repeat in record.repeats}
    values: dict[str, set[float]] = {}
    for name, score, part in rows:
        values.setdefault(name, set()).add(score)
        if part in splits:
            splits[part][name] = score
    scores = {name: found.pop() for name, found in values.items() if len(found) == 1} if not record.training else {}
    return Member(record.model, scores, dict.fromkeys(scores, "test"), images, folder, record, tuple(splits.values()))


def refuse_other_images(members: Sequence[Member]) -> None:
    """Raise UsageError for members that scored images with the same names and different content, naming them."""
    for one, other in combinations(members, 2):
        differ = [name for name, hashes in one.images.items() if other.images.get(name, hashes) != hashes]
        if differ:
            raise UsageError(
                f"{one.name} ({one.folder}) and {other.name} ({other.folder}) scored images with the same names and different "
                f"content: {len(differ)}: {listed(differ)}; run both again on the present images"
            )
