"""Reader of the most common layout: file names that give reference, kind and level, and lists of names with scores.

    5.51429 I01_01_1.bmp                        TID2013, mos_with_names.txt
    I01_01_01.png,I01.png,4.57,0.496            KADID-10k, dmos.csv
    A0001_00_00.bmp,1520.0648                   PIPAL, Train_Label/A0001.txt
    1600.AWGN.1.png 0.061989                    CSIQ, csiq_label.txt

A dataset of this layout is one card. Its `[layout]` holds the fields of `Part`, or tables of them in
`[layout.parts.<name>]` where the dataset has official parts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.cards.schema import DatasetCard
from harness.cards.tables import parse_table
from harness.datasets.file_index import Tree, how_to_get, name_key, open_tree
from harness.datasets.label_files import HEADERS, Label, read_labels, read_numbers
from harness.runtime.errors import UsageError, listed, near
from harness.runtime.findings import Findings, counted


@dataclass(frozen=True)
class Part:
    """How one part of a dataset is laid out."""

    pattern: str
    r"""A distorted image's whole name, a regular expression in any letter case, with groups among `reference`, `kind`
    and `level`: `I(?P<reference>\d\d)_(?P<kind>\d\d)_(?P<level>\d)\.bmp`."""
    reference: str
    """The reference's file name, with the groups in braces: `I{reference}.bmp`. Its stem is the reference's id."""
    labels: tuple[str, ...] = ()
    """Wildcards of label files, best first: those of the first that matches anything are read."""
    columns: tuple[str, ...] = ()
    """The columns of a file without a header: name, score, reference, std, `-`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further header names of these columns, in addition to `harness.datasets.label_files.HEADERS`."""
    compose: str = ""
    """A name made of a table's columns: `{image}.{dst_type}.{dst_lev}.png`."""
    spellings: Mapping[str, str] = field(default_factory=dict)
    """Spellings in file names of the composed columns' values."""
    labelled_as: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The names (`folder/file`) of this part's images in the label file of a larger dataset. Where several of its files are the
    same image, the label is their mean. A label file with the images' own names is read directly."""
    sorted_names: bool = False
    """The label file holds scores alone, one for each image in the order of their names."""
    std: tuple[str, ...] = ()
    """A file of the raters' standard deviations, line by line next to the labels."""
    same_scores: tuple[str, ...] = ()
    """A second file of the same scores, line by line: compared with the labels."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """The kinds' names by code."""
    folders: str = ""
    """A regular expression that the folders of this part's distorted images contain."""
    drop_references: bool = False
    """Rows about a reference itself are dropped and counted."""
    withheld: bool = False
    """The labels are not distributed with the images: without a label file the scores are unknown, and the part may be absent."""
    name: str = ""
    """The form of names of images without a label file, with the groups in braces: letter case differs between copies."""
    references: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    """Where both are known: the names of an unlabelled part are all `{reference}_{kind}_{type}`."""
    kind: str = ""
    split: str = ""
    """The part's value in a label file's column `official_split`: rows of other values are skipped."""
    pairs: int = 0
    """How many pairs the part has, for `harness.datasets.completeness`."""

    def expressions(self, where: str) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
        """The regular expressions of names and folders; raises UsageError for an invalid one."""
        compiled = []
        for key, text in (("pattern", self.pattern), ("folders", self.folders)):
            try:
                compiled.append(re.compile(text, re.IGNORECASE))
            except (re.error, RecursionError, OverflowError) as error:
                raise UsageError(f"{where}: {key} is not a regular expression: {error}") from None
        return compiled[0], compiled[1] if self.folders else None


def read(card: DatasetCard, root: Path | None, layout: Mapping[str, Any]) -> pd.DataFrame:
    """The table of a dataset of named images; see `harness.datasets.readers` for what it raises."""
    where = card.path or card.name
    if "parts" in layout:
        parts = {name: parse_table(Part, table, where, f"layout.parts.{name}.") for name, table in layout["parts"].items()}
    else:
        parts = {"": parse_table(Part, layout, where, "layout.")}
    known = (*HEADERS, "-")
    for part in parts.values():
        if wrong := [column for column in part.columns if column not in known]:
            hint = near(wrong[0], known)
            raise UsageError(f"{where}: unknown columns {listed(wrong)}{hint} (known: {', '.join(known)})")
    tree = open_tree(card, root)
    found = tree.findings()
    every = {name: part.expressions(where)[0] for name, part in parts.items()}
    readings = [
        _Reading(card, tree, found, name, part, [names for other, names in every.items() if other != name])
        for name, part in parts.items()
    ]
    frames = [frame for reading in readings if (frame := reading.table()) is not None]
    if not frames:
        return found.finish(card.name, card.get.strip(), None)
    if any("distorted" in frame for frame in frames):
        # A labelled part without images is left out where another part's images are present.
        for frame in frames:
            if "distorted" not in frame:
                name = frame["part"].iloc[0]
                left_out = f"labels of {name!r} without their images: left out"
                if parts[name].withheld:  # one label file may hold all parts, of which only some parts' images are wanted
                    found.notes.append(left_out)
                else:
                    found.warning(left_out, tree.root)
        frames = [frame for frame in frames if "distorted" in frame]
    return found.finish(card.name, card.get.strip(), pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0])


@dataclass
class _Reading:
    """One part of one tree."""

    card: DatasetCard
    tree: Tree
    found: Findings
    name: str
    part: Part
    others: Sequence[re.Pattern[str]] = ()
    """Names of the card's other parts: their rows in a label file of all parts are skipped."""

    def __post_init__(self) -> None:
        self.match, self.within = self.part.expressions(self.card.path or self.card.name)
        self.on_disk = self.tree.full_match(self.match, self.within)
        self.called = f"{self.name}: " if self.name else ""

    def table(self) -> pd.DataFrame | None:
        files = self.tree.matching(self.part.labels)
        if not files and not self.on_disk and self.name:
            self.found.notes.append(f"{self.called}not here")
            return None
        rows = self._labelled(files) if files else []
        if files and not rows and self.part.withheld and not self.found.failed:
            files = []  # the label file is of other parts
            if not self.on_disk:
                self.found.notes.append(f"{self.called}not here")
                return None
        if not files and not self.part.withheld:
            looked = f"looked for {listed(self.part.labels)} in every folder, any letter case"
            self._error(f"no label file ({looked})", self.tree.root, how_to_get(self.card))
            return None
        if files and self.part.withheld:
            names = f"labels from {listed([Path(file).name for file in files], 3)}"
            self.found.notes.append(f"{self.called}{names}, which are not distributed with it: a copy of unknown origin")
        elif not files:
            unlabelled = sorted({self._spelt(file.rpartition("/")[2]) for file in self.on_disk})
            if self.part.references and self.part.types:
                extension = self.part.reference.rpartition(".")[2]
                unlabelled = [f"{r}_{self.part.kind}_{t}.{extension}" for r in self.part.references for t in self.part.types]
            rows = [Label(0, name, math.nan) for name in unlabelled]
            self.found.notes.append(f"{self.called}{len(rows):,} images without labels (these are not distributed with it)")
        return self._frame(rows, files[0] if files else "")

    def _error(self, what: str, where: object, fix: str = "") -> None:
        self.found.error(self.called + what, where, fix)

    def _spelt(self, name: str) -> str:
        match = self.match.fullmatch(name)
        return _filled(self.part.name, match) if match and self.part.name else name

    def _labelled(self, files: list[str]) -> list[Label]:
        # One of several identical copies of a label file is read; different files of one name are refused.
        by_name: dict[str, list[str]] = {}
        for file in files:
            by_name.setdefault(file.rpartition("/")[2].lower(), []).append(file)
        for copies in by_name.values():
            if len({Path(self.tree.path(file)).read_bytes() for file in copies}) > 1:
                what = f"{len(copies)} different label files of one name: {listed(copies)}"
                self._error(what, self.tree.root, "give the folder of one dataset as --root")
        files = [min(copies, key=lambda file: (file.count("/"), file)) for copies in by_name.values()]
        self.found.label_files += [self.tree.path(file) for file in files]
        if self.part.sorted_names:
            return self._scores_in_order(files[0])
        rows: list[Label] = []
        seen: dict[str, str] = {}
        repeated: list[str] = []
        part = self.part
        for file in files:
            path = self.tree.path(file)
            try:
                labels = read_labels(
                    path, part.columns, part.headers, part.compose, part.spellings, known=self._is_name, part=part.split
                )
            except UsageError as error:
                self.found.error(str(error).removeprefix(f"{path}: "), path)
                continue
            of_others = [not self._is_name(row.name) and any(o.fullmatch(row.name) for o in self.others) for row in labels.rows]
            labels.rows = [row for row, other in zip(labels.rows, of_others, strict=True) if not other]
            labels.rows = self._renamed(labels.rows, file)
            for row in labels.rows:
                if (key := name_key(row.name)) in seen:
                    repeated.append(f"{row.name} ({seen[key]} and {Path(file).name} line {row.line})")
                seen.setdefault(key, f"{Path(file).name} line {row.line}")
            self._line_by_line(file, labels.rows)
            if labels.problem:
                self.found.error(labels.problem, path, "fix these lines, or take the file again from the archive")
            rows += labels.rows
        if repeated:
            self._error(counted(repeated, "names labelled twice"), self.tree.path(files[0]), "keep one line of each")
        return rows

    def _renamed(self, rows: list[Label], file: str) -> list[Label]:
        """The rows of a larger dataset that are this part's images, under this part's names."""
        of = {f"{row.folder}/{row.name}".lower(): row for row in rows}
        named = {n: [of[o.lower()] for o in others if o.lower() in of] for n, others in self.part.labelled_as.items()}
        if not any(named.values()):
            return rows
        if absent := [n for n, found in named.items() if len(found) < len(self.part.labelled_as[n])]:
            what = counted(absent, "images have no label in it", len(named))
            self._error(what, self.tree.path(file), how_to_get(self.card))
        return [
            Label(found[0].line, name, float(np.mean([row.score for row in found])), found[0].reference)
            for name, found in named.items()
            if found
        ]

    def _is_name(self, name: str) -> bool:
        return self.match.fullmatch(name) is not None

    def _scores_in_order(self, file: str) -> list[Label]:
        names = sorted({self._spelt(image.rpartition("/")[2]) for image in self.on_disk}, key=str.lower)
        path = self.tree.path(file)
        try:
            scores = read_numbers(path)
        except UsageError as error:
            self.found.error(str(error), path)
            return []
        if bad := [f"line {i}" for i, score in enumerate(scores, 1) if not math.isfinite(score)]:
            self.found.error(counted(bad, "lines are not numbers"), path)
        if len(names) != len(scores):
            what = (
                f"{len(scores):,} scores for {len(names):,} images; line n should be the score of image n in the order of names"
            )
            self.found.error(what, path, "unpack the whole archive")
            return []
        rows = [Label(i, name, score) for i, (name, score) in enumerate(zip(names, scores, strict=True), 1)]
        return self._line_by_line(file, rows)

    def _line_by_line(self, file: str, rows: list[Label]) -> list[Label]:
        """`rows` with the same lines of further files: standard deviations, and a second copy of the scores to compare."""
        for patterns, column in ((self.part.std, "std"), (self.part.same_scores, "score")):
            companions = [other for other in self.tree.matching(patterns) if other.rpartition("/")[0] == file.rpartition("/")[0]]
            if not companions or not rows:
                continue
            path = self.tree.path(companions[0])
            try:
                values = read_numbers(path)
            except UsageError as error:
                self.found.error(str(error), path)
                continue
            if len(values) < rows[-1].line:
                message = f"{len(values):,} lines, the labels next to it have {rows[-1].line:,}"
                self.found.error(message, path, "take both files again from the archive")
            elif column == "std":
                rows[:] = [Label(r.line, r.name, r.score, r.reference, values[r.line - 1], r.folder) for r in rows]
            elif differing := [r.name for r in rows if abs(values[r.line - 1] - r.score) > 1e-3 * max(1.0, abs(r.score))]:
                message = f"other scores than {Path(file).name} for {counted(differing, 'images', len(rows))}"
                self.found.error(message, path, "labels were swapped or shifted: take both files again from the archive")
        return rows

    def _frame(self, rows: list[Label], near: str) -> pd.DataFrame | None:
        """The table of labelled names, with the paths of their images."""
        cells: list[list[Any]] = []
        stills: list[str] = []
        strange, contradicting, dropped = [], [], 0
        for row in rows:
            match = self.match.fullmatch(row.name)
            if match is None:
                if self.part.drop_references and row.reference.lower() == row.name.lower():
                    dropped += 1
                else:
                    strange.append(f"line {row.line} ({row.name})" if row.line else row.name)
                continue
            groups = match.groupdict()
            reference = _filled(self.part.reference, match)
            if row.reference and Path(row.reference).stem.lower() != Path(reference).stem.lower():
                contradicting.append(f"{row.name} ({row.reference} in the label file)")
            kind, level = groups.get("kind") or "", groups.get("level") or ""
            known = [self.part.kinds.get(kind, kind), float(level) if level.isdecimal() else math.nan]
            cells.append([row.name, reference.rpartition(".")[0] or reference, *known, row.score, self.name, row.std])
            stills.append(reference)
        where = self.tree.path(near) if near else str(self.tree.root)
        if strange:
            pattern = f"names that are not of the form {self.part.pattern}"
            self._error(counted(strange, pattern, len(rows)), where, "is this the label file of this dataset?")
        if contradicting:
            message = counted(contradicting, "names have another image's reference", len(rows))
            self._error(message, where, "labels were swapped: take the file again from the archive")
        if dropped:
            self.found.notes.append(f"{self.called}{dropped} rows about references themselves were dropped")
        if not cells:
            self._error("no labelled images", where)
            return None
        frame = pd.DataFrame(cells, columns=["name", "reference_id", "distortion", "level", "score", "part", "std"])
        if not np.isfinite(frame["std"]).any():
            del frame["std"]
        self._add_images(frame, stills, near)
        return frame

    def _add_images(self, frame: pd.DataFrame, reference_names: list[str], near: str) -> None:
        """Add the paths of all images; missing ones are an error, except where all are missing: then only labels are used."""
        near = near or (self.on_disk[0] if self.on_disk else "")
        distorted = [self._find(name, near) for name in frame["name"]]
        places = {reference_name: self.tree.find(reference_name, near) for reference_name in dict.fromkeys(reference_names)}
        if not any(distorted) and not any(places.values()):
            self.found.notes.append(f"{self.called}labels only: none of the {len(frame):,} images is below {self.tree.root}")
            return
        missing = [name for name, file in zip(frame["name"], distorted, strict=True) if file is None]
        gone = [reference_name for reference_name, file in places.items() if file is None]
        fix = f"unpack all of the archives there. {how_to_get(self.card)}"
        doubtful = [f"{name} ({listed(files)})" for name in [*frame["name"], *places] if (files := self.tree.doubtful(name))]
        if doubtful:
            message = counted(doubtful, "names match several files of one folder that differ in letter case or Unicode form only")
            self._error(message, self.tree.root, "keep one of each")
        if missing:
            absent = frame["name"].isin(set(missing)).groupby(frame["reference_id"]).all()
            ids = [str(r) for r in absent.index[absent]]
            # Typical for an archive that was only partly unpacked.
            whole = f"; no image of {len(ids)} references ({ids[0]} to {ids[-1]})" if ids else ""
            self._error(counted(missing, "distorted images are missing", len(frame)) + whole, self.tree.root, fix)
        if gone:
            self._error(counted(gone, "references are missing", len(places)), self.tree.root, fix)
        labelled = {name_key(name) for name in frame["name"]} | {file for file in distorted if file}
        extra = [f for f in self.on_disk if f not in labelled and name_key(f.rpartition("/")[2]) not in labelled]
        if extra:
            self._error(counted(extra, "images have no label"), self.tree.root, "complete the labels, or move these images away")
        twice = [name for name in frame["name"] if self.within is None and len(self.tree.candidates(name)) > 1]
        if twice:
            what = counted(twice, "images are in more than one folder; those closest to the labels are read", limit=3)
            self.found.warning(self.called + what, self.tree.root, "give the folder of one copy as --root")
        frame["distorted"] = [self.tree.path(file or name) for file, name in zip(distorted, frame["name"], strict=True)]
        frame["reference"] = [self.tree.path(places[reference_name] or reference_name) for reference_name in reference_names]

    def _find(self, name: str, near: str) -> str | None:
        if self.within is None:
            return self.tree.find(name, near)
        inside = [f for f in self.tree.candidates(name) if self.within.search(f.rpartition("/")[0])]
        return min(inside, key=lambda f: (f.rpartition("/")[2] != name, f.count("/"), f)) if inside else None


def _filled(template: str, match: re.Match[str]) -> str:
    for key, value in match.groupdict().items():
        template = template.replace(f"{{{key}}}", value or "")
    return template
