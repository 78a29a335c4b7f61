"""Content hashes of a plan's images, and the check that the images did not change during the run."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping

import pandas as pd

from harness.engine.request import Plan
from harness.files.atomic import sha256_json, writing
from harness.files.table_rows import rows_of
from harness.results.run_scores import ScoreFile
from harness.runtime.errors import RunError, listed

_NOT_RECORDED = "nothing was recorded; run the same command again when they no longer change"


def pictures_by_reference(table: pd.DataFrame, pictures: pd.DataFrame) -> dict[str, str]:
    """One hash over the images of each reference, so that the record alone shows in which reference's images a change is.

    `pictures`: the columns of pictures.csv.
    """
    rows = pictures.sort_values("name").merge(table[["name", "reference_id"]], on="name", how="left")
    rows = rows.sort_values("reference_id", kind="stable")
    groups = itertools.groupby(rows_of(rows), key=operator.itemgetter(-1))
    return {reference: sha256_json(row[:-1] for row in group)[:16] for reference, group in groups}


def training_images(plan: Plan) -> dict[str, str]:
    """`pictures_by_reference` of the training part."""
    return pictures_by_reference(plan.data.table, pd.DataFrame(hashed_images(plan, "train"), columns=list(ScoreFile.PICTURES)))


def hashed_images(plan: Plan, *parts: str) -> list[tuple[str, str, str]]:
    """The rows of pictures.csv for these parts: name, sha256 of the distorted image, sha256 of the reference."""
    return [(name, *hashes) for name, hashes in images_by_name(plan, plan.rows(*parts)).items()]


def images_by_name(plan: Plan, rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """sha256 of the distorted image and of the reference, by the pair's name, from when the plan was made."""
    columns = zip(rows["name"], rows["distorted"], rows["reference"], strict=True)
    return {name: (plan.content[distorted], plan.content[reference]) for name, distorted, reference in columns}


def refuse_changed_images(plan: Plan, file: ScoreFile, known: Mapping[str, tuple[str, str]]) -> None:
    """Raise RunError if images changed since the plan was made, naming them; their scores are not recorded."""
    other = [name for name, *hashes in file.picture_hashes() if tuple(hashes) != known[name]]
    if other:
        raise RunError(f"{plan.data.name}: {len(other)} images changed while the run read them: {listed(other)}; {_NOT_RECORDED}")


def refuse_changed(plan: Plan, present: Mapping[str, str]) -> None:
    """Raise RunError if training images changed meanwhile, naming them; the trained weights are removed."""
    other = [path for path, digest in plan.content.items() if present[path] != digest]
    if other:
        with writing(plan.folder):
            (plan.folder / "state.json").unlink(missing_ok=True)
        raise RunError(f"{plan.data.name}: {len(other)} images changed while the run trained: {listed(other)}; {_NOT_RECORDED}")
