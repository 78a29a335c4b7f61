"""`harness data check`: expected and present files of a dataset, and all problems, in one report.

The quick check reads label files and every image's header. The full one decodes every image, compares the labels'
direction with a simple distance (PSNR within references), looks for wrong pairs, and writes a manifest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from harness.cards.plugins import errors_of
from harness.cards.schema import DatasetCard
from harness.datasets import reader_of, splits
from harness.datasets.check import manifest, pixels
from harness.datasets.completeness import Count, counts
from harness.datasets.file_index import how_to_get, unopened
from harness.datasets.table import complete, has_images
from harness.files.atomic import sha256_file
from harness.files.table_paths import explained
from harness.imaging import file_headers
from harness.imaging.colour import compared
from harness.imaging.remarks import PRIMARY, PROFILES
from harness.runtime.errors import UsageError, listed
from harness.runtime.findings import BrokenTree, Finding, Findings, Severity, advice_once, counted, errors
from harness.runtime.progress import progress

T = TypeVar("T")
R = TypeVar("R")
_AGAINST = -0.2
"""Mean rank correlation within references below which labels have the wrong direction."""
_FEWEST = 3
INCOMPLETE = "incomplete"
"""The kind of the findings about missing pairs and references."""


@dataclass
class Report:
    """The outcome of a check. `ok`: nothing makes scoring impossible or wrong."""

    card: DatasetCard
    root: Path | None
    full: bool
    allow_incomplete: bool = False
    references: int = 0
    pairs: int = 0
    problems: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    protocols: dict[str, str] = field(default_factory=dict)
    """The split's hash by protocol, or why there is no split."""
    manifest: str | None = None
    """The manifest's hash, where there is a valid one."""
    image_folder: str = ""
    """The folder that holds all images."""

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings and notes do not count."""
        return not any(p.severity == "error" for p in self.problems)

    @property
    def incomplete(self) -> bool:
        """Whether pairs or references are missing."""
        return any(p.kind == INCOMPLETE for p in self.problems)

    def json(self) -> Mapping[str, object]:
        """The object that `data check --json` prints."""
        return {
            "dataset": self.card.name,
            "ok": self.ok,
            "references": self.references,
            "pairs": self.pairs,
            "problems": [{name: getattr(p, name) for name in ("severity", "what", "where", "fix")} for p in self.problems],
        }

    def text(self) -> str:
        """The report as text."""
        depth = "every image decoded" if self.full else "labels and headers read; --full decodes every image"
        where = self.root or self.image_folder or "no folder"
        lines = [f"{self.card.name}: {self.card.title}", f"  in {where} ({depth})"]
        for count in self.counts:
            expected = f", expected {count.expected:,}" if count.expected else ""
            lines.append(f"  {count.what}: {count.found:,}{expected}")
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  protocol {name}: {what}" for name, what in self.protocols.items()]
        lines += [f"  manifest {self.manifest}"] if self.manifest else []
        how = how_to_get(self.card)
        ordered = sorted(self.problems, key=lambda p: p.severity)
        lines += [f"{p.severity.upper()} {p}" for p in advice_once(ordered, how)]
        outcome = "ok" if self.ok else "not usable as it is"
        if self.incomplete and all(p.kind == INCOMPLETE for p in errors(self.problems)):
            outcome = "incomplete, and accepted" if self.ok else "incomplete"
        about = [f"home: {self.card.home}"] if self.card.home else []
        about += [f"licence: {self.card.licence}"] if self.card.licence else []
        lines.append(f"{self.card.name}: {outcome}. {'; '.join(about) if outcome == 'ok' else how}".rstrip(" ."))
        return "\n".join(lines)


def check(
    card: DatasetCard,
    root: Path | None,
    *,
    full: bool = False,
    allow_incomplete: bool = False,
    workers: int | None = None,
) -> Report:
    """Check a dataset's folder (`data_root` finds it); by `workers` threads.

    Missing pairs and references are an error unless `allow_incomplete`.
    """
    report = Report(card, root, full, allow_incomplete)
    found = Findings()
    before = manifest.read(card, root)
    if before is not None and (others := manifest.changed_files(card, root, before)):
        what = counted(others, "files differ from the last full check", len(before.files))
        if full:
            found.information(f"{what}; the manifest of that check is replaced", str(root))
        else:
            found.warning(what, str(root), "check them with --full, which makes the manifest again")
    frame = _read(card, root, found, report)
    if frame is not None:
        _counts(card, frame, found, report)
        _labels(card, frame, found)
        for name, protocol in card.protocols.items():
            try:
                parts = splits.split(frame, protocol)
                sizes = ", ".join(f"{int((parts == p).sum()):,} {p}" for p in splits.PARTS if (parts == p).any())
                report.protocols[name] = f"{sizes}; split {splits.split_hash(frame, parts)[:16]}"
            except UsageError as error:
                report.protocols[name] = f"not possible here: {error}"
        if has_images(frame):
            _images(card, root, frame, found, report, workers or min(16, 4 * (os.cpu_count() or 1)))
        elif root is not None and not found.failed:
            found.error(f"labels, but none of the {len(frame):,} images", root, how_to_get(card))
    lying = unopened(card, root) if found.failed or any(f.kind == INCOMPLETE for f in found.problems) else []
    report.problems += [*lying, *found.problems]
    if report.manifest is None and report.ok:
        report.manifest = manifest.manifest_hash(card, root)
    return report


def _read(card: DatasetCard, root: Path | None, found: Findings, report: Report) -> pd.DataFrame | None:
    read = reader_of(card)
    try:
        with errors_of(card.path, f"reader = {card.reader!r} failed"):
            frame: pd.DataFrame | None = read(card, root, **card.layout)
            assert frame is not None
            report.notes += frame.attrs.get("notes", [])
            found.problems += frame.attrs.get("problems", [])
    except BrokenTree as error:
        found.problems += error.problems
        frame = error.frame
    except UsageError as error:
        for line in str(error).splitlines():
            found.error(line, root or card.name)
        return None
    if frame is None or frame.empty:
        return None
    files = frame.attrs.get("label_files", [])
    try:
        frame = complete(frame, card.name)
    except UsageError as error:
        for line in str(error).splitlines():
            found.error(line, root or card.name)
        frame = frame[~frame["name"].duplicated()].reset_index(drop=True)
    frame.attrs["label_files"] = files
    return frame


def _counts(card: DatasetCard, frame: pd.DataFrame, found: Findings, report: Report) -> None:
    """Compare counts with the card. The card's numbers are those of the default protocol's parts; the layout has the others."""
    parts = card.protocols[card.default_protocol].parts
    rows = frame[frame["part"].isin(parts)] if parts else frame
    report.pairs, report.references = len(frame), int(frame["reference_id"].nunique())
    if has_images(frame):
        report.image_folder = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in frame["distorted"]])
    where = str(report.root or report.image_folder or card.name)
    if rows.empty:
        found.error(f"no rows of part {', '.join(parts)}, which the default protocol needs", where, how_to_get(card))
    for count in counts(card, frame):
        report.counts.append(count)
        difference = f"{count.found:,} {count.what}, the card says {count.expected or 0:,}"
        if count.short and count.found:
            severity: Severity = "warning" if report.allow_incomplete else "error"
            fix = "" if report.allow_incomplete else "take the rest from the archive, or accept it with --allow-incomplete"
            found.problems.append(Finding(severity, INCOMPLETE, where, f"{difference}: the dataset is incomplete", fix))
        elif count.expected and count.found > count.expected:
            found.warning(difference, where, "another edition?")
    report.counts.append(Count("label rows", None, int(frame["score"].notna().sum())))
    if has_images(frame) and report.root is not None:
        folders = [os.path.relpath(os.path.dirname(path) or ".", report.root) for path in frame["distorted"]]
        by_folder = pd.Series(folders).value_counts().sort_index()
        report.counts += [Count(f"labelled images in {folder}", None, int(n)) for folder, n in by_folder.items()][:40]


def _labels(card: DatasetCard, frame: pd.DataFrame, found: Findings) -> None:
    """Report labels outside the card's range, and quality that rises with the level of distortion."""
    known = frame[frame["score"].notna()]
    if card.label_range is not None:
        low, high = card.label_range
        outside = known[(known["score"] < low) | (known["score"] > high)]
        if len(outside):
            shown = [f"{n} ({s:g})" for n, s in zip(outside["name"], outside["score"], strict=True)]
            message = counted(shown, f"labels outside {low:g}..{high:g}", len(known), limit=5)
            found.error(message, card.name, "another scale, or another edition of the labels")
    correlations = []
    for _, group in known[known["level"].notna()].groupby(["reference_id", "distortion"]):
        if len(group) >= _FEWEST and group["level"].nunique() >= _FEWEST and group["score"].nunique() > 1:
            quality = group["score"] if card.higher_is_better else -group["score"]
            correlations.append(float(quality.rank().corr(group["level"].rank())))
    if len(correlations) >= _FEWEST and -float(np.mean(correlations)) < _AGAINST:
        found.error(
            f"quality rises with the level of distortion (mean rank correlation {np.mean(correlations):+.2f} over "
            f"{len(correlations)} series): the labels are reversed, or belong to other images",
            card.name,
            f"the card says: {'higher' if card.higher_is_better else 'lower'} is better",
        )


def _images(card: DatasetCard, root: Path | None, frame: pd.DataFrame, found: Findings, report: Report, workers: int) -> None:
    references = list(dict.fromkeys(frame["reference"]))
    paths = [p for p in dict.fromkeys([*references, *frame["distorted"]]) if os.path.isfile(p)]
    where = str(root or report.image_folder)
    absent = [p for p in dict.fromkeys([*references, *frame["distorted"]]) if not os.path.isfile(p)]
    if absent and not found.failed:
        shown = [explained(path) for path in absent[:20]] + absent[20:]
        found.error(counted(shown, "images are missing", len(paths) + len(absent)), where, how_to_get(card))
    looks = dict(zip(paths, _parallel(_look, paths, workers), strict=True))
    broken = {path: result for path, result in looks.items() if isinstance(result, str)}
    good = {path: result for path, result in looks.items() if not isinstance(result, str)}
    if broken:
        shown = [f"{os.path.relpath(path, where)} ({why})" for path, why in broken.items()]
        found.error(counted(shown, "images cannot be read", len(paths)), where, "unpack them again from the archive")
    _headers(card, frame, good, found, where)
    digests = _duplicates(frame, good, found, where, workers)
    if not report.full:
        return
    with progress(f"checking {card.name}", len(frame), unit="pairs") as step:
        result = pixels.decode_all(frame, broken, workers=min(workers, os.cpu_count() or 1), step=step)
    pixels.judge(card, frame, result, found, where)
    digests |= result.sha256
    if not found.failed and root is not None:
        files = frame.attrs["label_files"]
        entries = {f"label:{Path(file).name}": (file, os.path.getsize(file), sha256_file(file)) for file in files}
        for kind, names in (("distorted", frame["name"]), ("reference", frame["reference_id"])):
            for name, path in zip(names, frame[kind], strict=True):
                entries[f"{kind}:{name}"] = (path, good[path].size, digests[path])
        manifest.write(card, root, entries)
        report.manifest = manifest.manifest_hash(card, root)


def _look(path: str) -> file_headers.Header | str:
    try:
        return file_headers.look(path)
    except UsageError as error:
        return str(error)


def _headers(card: DatasetCard, frame: pd.DataFrame, good: dict[str, file_headers.Header], found: Findings, where: str) -> None:
    """Report sizes that differ from the reference's or the card's, files of several images, and differing colour profiles."""
    unlike = []
    by_kind: dict[str, dict[str, None]] = {}
    for path, header in good.items():
        for remark in header.remarks:
            by_kind.setdefault(remark.kind, {})[os.path.relpath(path, where)] = None
    for name, distorted, reference in zip(frame["name"], frame["distorted"], frame["reference"], strict=True):
        if distorted in good and reference in good:
            a, b = good[distorted], good[reference]
            if (a.height, a.width) != (b.height, b.width):
                unlike.append(f"{name} ({a.width}x{a.height}, its reference {b.width}x{b.height})")
            if (differs := compared(name, a.colour, b.colour)) is not None:
                by_kind.setdefault(differs.kind, {})[differs.what] = None
    if unlike:
        message = counted(unlike, "distorted images differ in size from their reference", len(frame))
        found.error(message, where, "wrong pairing, or resized images: unpack them again from the archive")
    if card.image_size is not None:
        height, width = card.image_size
        others = [f"{h.width}x{h.height}" for h in good.values() if (h.height, h.width) != (height, width)]
        if others:
            message = f"{len(others):,} of {len(good):,} images are not {width}x{height}: {listed(sorted(set(others)), 5)}"
            found.warning(message, where, "resized images?")
    for kind, named in by_kind.items():
        tell = found.warning if kind == PROFILES else found.information
        tell(f"{kind}: {counted(list(named), 'images' if kind == PRIMARY else 'pairs')}", where)


def _duplicates(
    frame: pd.DataFrame, good: dict[str, file_headers.Header], found: Findings, where: str, workers: int
) -> dict[str, str]:
    """Files of equal content; returns the sha256 of those that were read whole for it."""
    groups: dict[bytes, list[str]] = {}
    for path, header in good.items():
        groups.setdefault(header.probe, []).append(path)
    suspects = [path for group in groups.values() if len(group) > 1 for path in group]
    digests = dict(zip(suspects, _parallel(sha256_file, suspects, workers), strict=True))
    equal: dict[str, list[str]] = {}
    for path, digest in digests.items():
        equal.setdefault(digest, []).append(path)
    reference_of = dict(zip(frame["distorted"], frame["reference"], strict=True))
    name_of = dict(zip(frame["distorted"], frame["name"], strict=True))
    references = set(frame["reference"])
    within: list[str] = []
    across: list[str] = []
    pristine: list[str] = []
    same: list[str] = []
    for group in (group for group in equal.values() if len(group) > 1):
        own = [p for p in group if p in references]
        rest = [p for p in group if p not in references]
        if len(own) > 1:
            same.append(" = ".join(os.path.basename(p) for p in own))
        pristine += [name_of[p] for p in rest if reference_of[p] in own]
        if len(rest) > 1 or (rest and own and any(reference_of[p] not in own for p in rest)):
            alike = " = ".join(name_of.get(p, os.path.basename(p)) for p in [*own, *rest])
            one = len({reference_of[p] for p in rest} | set(own)) == 1
            (within if one else across).append(alike)
    # In triplets the same patch occurs several times, and no protocol splits them by reference.
    leak = found.warning if "pair" in frame else found.error
    if same:
        leak(counted(same, "references are the same image under several names"), where, "a split by reference would leak")
    if across:
        leak(counted(across, "groups of equal images under different references"), where, "copied or renamed: unpack them again")
    if within:
        found.warning(counted(within, "groups of equal distorted images (their labels may differ)", limit=5), where)
    if pristine:
        found.warning(counted(pristine, "distorted images are byte for byte their reference", len(frame), limit=5), where)
    return digests


def _parallel(work: Callable[[T], R], items: Sequence[T], workers: int) -> list[R]:
    """`work` over `items` in threads, many items a task: reading one header takes less time than starting a task."""
    chunks = [items[i : i + 64] for i in range(0, len(items), 64)]
    if len(chunks) < 2 or workers < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        return [result for results in pool.map(lambda chunk: [work(item) for item in chunk], chunks) for result in results]
