"""`harness challenge new`: writes a commented card of a new challenge, optionally with a dataset's names and labels."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.cards.challenge import ChallengeCard
from harness.cards.loading import find_challenge
from harness.files.atomic import write_text
from harness.files.names import name_problem
from harness.results.run_scores import csv_text
from harness.runtime.errors import UsageError

_log = logging.getLogger(__name__)

_CARD = Path(__file__).parent / "new_challenge.toml"
"""The card, with {name}, {names}, {images} and {phase} to be filled in."""
_EXAMPLE = {
    "names": "pattern = '(?P<reference>[a-z]+)_(?P<type>\\d\\d)\\.png'\n"
    'image = "{reference}_{type}.png"\nreference = "{reference}"',
    "images": "6",
    "phase": 'listed = "{reference}_{type}.png"\nreferences = ["kite", "boat", "lamp"]\ntypes = ["01", "02"]\n'
    '# dataset = "mine"                      # with these two, harness submit scores the phase\'s images\n# protocol = "full"',
}


def new(
    name: str,
    folder: str | Path = ".",
    *,
    dataset: str | None = None,
    protocol: str | None = None,
    root: str | None = None,
    cards: Sequence[str] = (),
) -> list[Path]:
    """Write `<name>.toml`, and with a dataset its tested images as `<name>-names.txt` and their labels as `<name>-labels.csv`.

    Raises UsageError for a name that no card can have, and where one of the files exists already.
    """
    if problem := name_problem(name):
        raise UsageError(f"challenge {name!r}: its name {problem}")
    folder = Path(folder)
    filling = {"name": json.dumps(name, ensure_ascii=False), **_EXAMPLE}
    texts: dict[Path, str] = {}
    if dataset is not None:
        texts, filling = _of_dataset(name, folder, dataset, protocol, root, cards)
    text = _CARD.read_text(encoding="utf-8")
    for key in ("name", "names", "images", "phase"):
        text = text.replace(f"{{{key}}}", filling[key])
    texts = {folder / f"{name}.toml": text, **texts}
    if there := [str(path) for path in texts if path.exists()]:
        raise UsageError("\n".join(f"{path}: exists already; move it away, or choose another name" for path in there))
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        write_text(path, text)
    card: ChallengeCard = find_challenge(str(folder / f"{name}.toml"))
    _log.info(f"{card.path}: {sum(phase.images for phase in card.phases.values()):,} images")
    return list(texts)


def _of_dataset(
    name: str, folder: Path, dataset: str, protocol: str | None, root: str | None, cards: Sequence[str]
) -> tuple[dict[Path, str], dict[str, str]]:
    """The files of names and labels, and the card's entries, from a dataset's test images."""
    from harness import datasets
    from harness.datasets import splits

    data = datasets.load_dataset(dataset, root, cards=cards)
    chosen, rules = data.protocol(protocol)
    table = data.table[splits.split(data.table, rules) == "test"].sort_values("name")
    if not len(table) or not np.isfinite(table["score"]).all():
        raise UsageError(
            f"{dataset}, protocol {chosen}: no labels of its tested images; harness challenge new {name} without --dataset"
        )
    sign = 1.0 if data.higher_is_better else -1.0
    if sign < 0:
        _log.info(f"{dataset}: labels are multiplied by -1, so that higher is better")
    further = ["std"] if "std" in table and np.isfinite(table["std"]).all() else []
    labels = [["name", "score", "reference", *further]]
    for row in table.to_dict("records"):
        others = [repr(float(row[column])) for column in further]
        labels.append([row["name"], repr(sign * float(row["score"])), row["reference_id"], *others])
    place = str(Path(dataset).resolve()) if dataset.endswith((".csv", ".tsv", ".xlsx")) else dataset
    lines = [f"dataset = {json.dumps(place, ensure_ascii=False)}", f"protocol = {json.dumps(chosen)}"]
    filling = {
        "name": json.dumps(name, ensure_ascii=False),
        "names": 'pattern = \'(?P<image>.+)\'\nimage = "{image}"\nreference = ""',
        "images": str(len(table)),
        "phase": "\n".join([*lines, f"names_file = {json.dumps(f'{name}-names.txt', ensure_ascii=False)}"]),
    }
    names = "".join(f"{row}\n" for row in table["name"])
    return {folder / f"{name}-names.txt": names, folder / f"{name}-labels.csv": csv_text(labels)}, filling
