"""The content of a plan's images: what it was when the plan was made, and whether it still is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.engine.request import Plan
from harness.files.atomic import sha256_json, writing
from harness.results.run_scores import ScoreFile
from harness.runtime.errors import RunError, listed

if TYPE_CHECKING:
    import pandas as pd

_NOT_RECORDED = "nothing was recorded; run the same command again when they are left alone"


def pictures_by_reference(table: pd.DataFrame, pictures: Sequence[tuple[str, str, str]]) -> dict[str, str]:
    """One hash over the images of each reference, so that a changed image can be narrowed down from the record alone."""
    id_of = dict(zip(table["name"].tolist(), table["reference_id"].tolist(), strict=True))
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for row in pictures:
        groups.setdefault(id_of[row[0]], []).append(row)
    return {reference: sha256_json(sorted(rows))[:16] for reference, rows in sorted(groups.items())}


def training_images(plan: Plan) -> dict[str, str]:
    """`pictures_by_reference` of the training part."""
    return pictures_by_reference(plan.data.table, hashed_images(plan, "train"))


def hashed_images(plan: Plan, *parts: str) -> list[tuple[str, str, str]]:
    """What pictures.csv holds for these parts: name, sha256 of the distorted image, sha256 of the reference."""
    return [(name, *hashes) for name, hashes in images_by_name(plan, plan.rows(*parts)).items()]


def images_by_name(plan: Plan, rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """sha256 of the distorted image and of the reference, by the pair's name, as they were when the plan was made."""
    columns = zip(rows["name"], rows["distorted"], rows["reference"], strict=True)
    return {name: (plan.content[distorted], plan.content[reference]) for name, distorted, reference in columns}


def refuse_changed_images(plan: Plan, file: ScoreFile, known: Mapping[str, tuple[str, str]]) -> None:
    """Refuse to record scores of images that are not the ones that the run began with; raises RunError naming them."""
    other = [name for name, *hashes in file.picture_hashes() if tuple(hashes) != known[name]]
    if other:
        raise RunError(f"{plan.data.name}: {len(other)} images changed while the run read them: {listed(other)}; {_NOT_RECORDED}")


def refuse_changed(plan: Plan, now: Mapping[str, str]) -> None:
    """Refuse what was trained on images that changed meanwhile, and take it back; raises RunError naming them."""
    other = [path for path, digest in plan.content.items() if now[path] != digest]
    if other:
        with writing(plan.folder):
            (plan.folder / "state.json").unlink(missing_ok=True)
        raise RunError(f"{plan.data.name}: {len(other)} images changed while the run trained: {listed(other)}; {_NOT_RECORDED}")
