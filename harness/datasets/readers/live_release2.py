"""Reader of LIVE release 2: five folders of numbered images, and MATLAB vectors over all of them in the folders' order.

    databaserelease2/{jp2k,jpeg,wn,gblur,fastfading}/imgN.bmp     227, 233, 174, 174, 174 = 982 images
    refimgs/*.bmp                                                  29 references
    dmos_realigned.mat   dmos_new, dmos_std, orgs                  -2.6..111.8 over the distorted images
    dmos.mat             dmos, orgs                                17.9..84.5, the first labels
    refnames_all.mat     refnames_all                              each image's reference

203 images are copies of their reference (`orgs` = 1, DMOS 0). They are not distorted images: they are counted and left out.
Copies of the dataset with a text list in place of the vectors (name, reference, score of 779 images) are read too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.cards.schema import DatasetCard
from harness.cards.tables import parse_table
from harness.datasets.file_index import Tree, how_to_get, open_tree
from harness.datasets.label_files import LARGEST, read_labels
from harness.datasets.readers.matfile import read_vector
from harness.files.regular import require_regular
from harness.files.text_table import read_text, text_lines
from harness.runtime.errors import UsageError, listed
from harness.runtime.findings import Findings, counted

_LARGEST_MAT = 4 << 20


@dataclass(frozen=True)
class Vectors:
    """The label vectors, and their order."""

    labels: str
    """The file and its variable: `dmos_realigned.mat:dmos_new`."""
    counts: Mapping[str, int]
    """Folders in the vectors' order, and how many images each has."""
    others: str = ""
    """The other published labels of the same images: `dmos.mat:dmos`."""
    std: str = ""
    """The variable of the raters' standard deviations, in the labels' file."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of a folder in mirrors."""
    lists: tuple[str, ...] = ()
    """Wildcards of text lists, which are read where there are no vectors."""
    inside: tuple[float, float] = (-math.inf, math.inf)
    """The range of all labels of distorted images."""
    reaches_beyond: tuple[float, float] = (math.inf, -math.inf)
    """Every folder has labels below the first or above the second value: else these are the other labels."""


def read(card: DatasetCard, root: Path | None, layout: Mapping[str, Any]) -> pd.DataFrame:
    """The table of LIVE's distorted images; see `harness.datasets.readers` for what it raises."""
    vectors = parse_table(Vectors, layout, card.path or card.name, "layout.")
    tree = open_tree(card, root)
    found = tree.findings()
    file, _, variable = vectors.labels.partition(":")
    if tree.find(file) is not None:
        rows = _from_vectors(card, tree, found, vectors, file, variable)
    elif vectors.lists and (lists := tree.matching(vectors.lists)):
        rows = _from_list(tree, found, vectors, lists[0])
    else:
        other = vectors.others.partition(":")[0]
        have = f" (only {other}, the other labels, is here)" if other and tree.find(other) else ""
        found.error(f"no {file} in any folder{have}", tree.root, how_to_get(card))
        rows = None
    if rows is not None:
        # Two label vectors are in circulation: one in place of the other, or a mixture of both, is an error.
        low, high = vectors.inside
        outside = rows["name"][(rows["score"] < low) | (rows["score"] > high)]
        if len(outside):
            what = counted(list(outside), f"labels outside {low:g}..{high:g}, so not (only) {vectors.labels}", len(rows), limit=5)
            found.error(what, tree.root, f"the other labels are {vectors.others}")
        below, above = vectors.reaches_beyond
        ranges = rows.groupby("distortion")["score"].agg(["min", "max"])
        narrow = [str(kind) for kind in ranges.index if ranges["min"][kind] >= below and ranges["max"][kind] <= above]
        if narrow:
            mixed = "all folders" if len(narrow) == len(ranges) else f"{listed(narrow)} only: mixed label vectors"
            what = f"labels within {below:g}..{above:g} like those of {vectors.others}, where {vectors.labels} was expected"
            found.error(f"{what}, in {mixed}", tree.root, "take the .mat files again from the archive")
        _add_images(card, tree, found, rows, vectors)
    return found.finish(card.name, card.get.strip(), rows)


def _from_vectors(
    card: DatasetCard, tree: Tree, found: Findings, vectors: Vectors, file: str, variable: str
) -> pd.DataFrame | None:
    path, again = tree.path(tree.find(file) or file), "take it again from the archive"
    total = sum(vectors.counts.values())
    wanted = {"labels": (file, variable), "orgs": (file, "orgs"), "refnames_all": ("refnames_all.mat", "refnames_all")}
    if vectors.std:
        wanted["std"] = (file, vectors.std)
    taken: dict[str, list[Any]] = {}
    for what, (name, key) in wanted.items():
        place = tree.find(name, near=tree.find(file) or "")
        if place is None:
            found.error(f"no {name} in any folder", tree.root, how_to_get(card))
            continue
        values = load_vector(tree.path(place), key)
        if values is None and what == "std":
            found.notes.append(f"no {key} in {name}: standard deviations unknown")
        elif values is None:
            found.error(f"holds no readable vector {key!r}", tree.path(place), again)
        elif len(values) != total:
            found.error(f"{key} has {len(values)} entries, expected {total}", tree.path(place), again)
        else:
            taken[what] = values
    if not {"labels", "orgs", "refnames_all"} <= taken.keys():
        return None
    found.label_files.append(path)
    # The other labels have the same marks (`orgs`) and different values.
    other_file, _, other_variable = vectors.others.partition(":")
    if other_file and (place := tree.find(other_file)) is not None:
        other, marks = load_vector(tree.path(place), other_variable), load_vector(tree.path(place), "orgs")
        if marks is not None and [float(v) for v in marks] != [float(v) for v in taken["orgs"]]:
            found.error(f"orgs differs from that of {Path(path).name}", tree.path(place), "take both again from the archive")
        same = other is not None and len(other) == total
        if same and np.allclose(np.array(other, float), np.array(taken["labels"], float), equal_nan=True):
            found.error(f"the same labels as {Path(path).name}: one is a copy of the other", tree.path(place), "take both again")
    numbers = [(kind, n) for kind, count in vectors.counts.items() for n in range(1, count + 1)]
    rows = pd.DataFrame({"name": [f"{kind}/img{n}.bmp" for kind, n in numbers]})
    rows["still"] = [str(name) for name in taken["refnames_all"]]
    rows["distortion"] = [kind for kind, _ in numbers]
    rows["score"] = [float(v) for v in taken["labels"]]
    if "std" in taken:
        rows["std"] = [float(v) for v in taken["std"]]
    pristine = np.array([float(v) == 1 for v in taken["orgs"]])
    bad = list(rows["name"][~pristine & ~np.isfinite(rows["score"])])
    if bad:
        found.error(counted(bad, "labels are not finite numbers"), path, again)
    _compare_with_info(tree, found, rows, vectors)
    copies, kept = int(pristine.sum()), rows[~pristine].reset_index(drop=True)
    expected = total - card.pairs if card.pairs else copies
    found.notes.append(f"labels: {vectors.labels}; {copies} copies of references among {total} images were left out")
    if copies != expected:
        found.error(f"orgs marks {copies} copies of references, expected {expected}", path, again)
    return kept


def _from_list(tree: Tree, found: Findings, vectors: Vectors, file: str) -> pd.DataFrame | None:
    try:
        labels = read_labels(tree.path(file))
    except UsageError as error:
        found.error(str(error), tree.path(file))
        return None
    if labels.problem:
        found.error(labels.problem, tree.path(file))
    found.label_files.append(tree.path(file))
    found.notes.append(f"labels: {Path(file).name}, a text list in place of {vectors.labels}")
    aliases = {alias.lower(): kind for alias, kind in vectors.aliases.items()}
    aliases |= {kind.lower(): kind for kind in vectors.counts}
    strange = [f"line {r.line} ({r.folder}/{r.name})" for r in labels.rows if r.folder.lower() not in aliases or not r.reference]
    if strange:
        what = f"rows without a reference, or in no folder of {listed(list(vectors.counts))}"
        found.error(counted(strange, what), tree.path(file))
        return None
    kinds = [aliases[r.folder.lower()] for r in labels.rows]
    names = [f"{kind}/{r.name.lower()}" for kind, r in zip(kinds, labels.rows, strict=True)]
    given = {"still": [r.reference for r in labels.rows], "distortion": kinds, "score": [r.score for r in labels.rows]}
    rows = pd.DataFrame({"name": names, **given})
    if twice := list(rows["name"][rows["name"].duplicated()]):
        found.error(counted(twice, "names labelled twice"), tree.path(file))
    return rows


def load_vector(path: str | Path, variable: str) -> list[Any] | None:
    """A vector of numbers or texts from a .mat file, flat; None where it cannot be read. Nothing in it is executed."""
    try:
        require_regular(path)
        if Path(path).stat().st_size > _LARGEST_MAT:
            return None
        return read_vector(Path(path).read_bytes(), variable)
    except (OSError, ValueError, RecursionError, OverflowError):
        return None


def _compare_with_info(tree: Tree, found: Findings, rows: pd.DataFrame, vectors: Vectors) -> None:
    """Compare with each folder's own list (`studentsculpture.bmp img2.bmp 0.8`), which names the references too."""
    listed_there: dict[str, str] = {}
    for kind in vectors.counts:
        for file in _in_folder(tree, kind, "info.txt", vectors):
            for line in text_lines(read_text(tree.path(file), largest=LARGEST, replace=True)):
                files = [word for word in line.lower().split() if word.endswith(".bmp")]
                numbered = [word for word in files if re.fullmatch(r"img\d+\.bmp", word)]
                reference_names = [word for word in files if word not in numbered]
                if len(numbered) == 1 and len(reference_names) == 1:
                    listed_there[f"{kind}/{numbered[0]}"] = reference_names[0]
    differing = [
        f"{name} ({reference_name} in refnames_all, {listed_there[name]} in info.txt)"
        for name, reference_name in zip(rows["name"], rows["still"], strict=True)
        if name in listed_there and listed_there[name] != reference_name.lower()
    ]
    if differing:
        # A warning: sizes and the full check detect wrong references reliably, and the lists differ between releases.
        found.warning(
            counted(differing, "references contradict the folders' info.txt", len(rows), limit=5),
            tree.root,
            "the vectors may have been reordered or mixed; compare with the archive's",
        )


def _in_folder(tree: Tree, kind: str, name: str, vectors: Vectors) -> list[str]:
    """Files called `name` whose folder is `kind` or one of its other names."""
    wanted = {kind.lower(), *(alias.lower() for alias, real in vectors.aliases.items() if real == kind)}
    return [file for file in tree.candidates(name) if file.split("/")[-2:-1] and file.split("/")[-2].lower() in wanted]


def _add_images(card: DatasetCard, tree: Tree, found: Findings, rows: pd.DataFrame, vectors: Vectors) -> None:
    numbered = [(kind, name.rpartition("/")[2]) for kind, name in zip(rows["distortion"], rows["name"], strict=True)]
    here = [_in_folder(tree, kind, name, vectors) for kind, name in numbered]
    distorted = [min(files, key=lambda file: (file.count("/"), file), default=None) for files in here]
    places = {reference_name: tree.find(reference_name) for reference_name in dict.fromkeys(rows["still"])}
    rows["reference_id"] = [Path(reference_name).stem.lower() for reference_name in rows["still"]]
    if any(distorted) or any(places.values()):
        fix = f"unpack the whole archive. {how_to_get(card)}"
        missing = [name for name, file in zip(rows["name"], distorted, strict=True) if file is None]
        gone = [reference_name for reference_name, file in places.items() if file is None]
        if missing:
            folders = rows["name"].isin(missing).groupby(rows["distortion"]).all()
            whole = [str(k) for k in folders.index[folders]]
            hint = f"; no image of {listed(whole)}" if whole else ""
            found.error(counted(missing, "distorted images are missing", len(rows)) + hint, tree.root, fix)
        if gone:
            found.error(counted(gone, "references are missing", len(places)), tree.root, fix)
        rows["distorted"] = [tree.path(file or name) for file, name in zip(distorted, rows["name"], strict=True)]
        rows["reference"] = [tree.path(places[reference_name] or reference_name) for reference_name in rows["still"]]
    else:
        found.notes.append(f"labels alone: none of the {len(rows):,} images is below {tree.root}")
    del rows["still"]
