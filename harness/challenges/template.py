"""A new challenge's card: commented, ready to be edited, and with a dataset of one's own ready to be bundled."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.cards.challenge import ChallengeCard
from harness.cards.loading import find_challenge
from harness.files.atomic import write_text
from harness.files.names import name_problem
from harness.runtime.errors import UsageError

_log = logging.getLogger(__name__)

_CARD = """\
# A challenge of the harness. Lines that begin with # are explanations, or settings that are not in use.
name = {name}
title = {name}
description = "Scores of distorted images, each with its reference."
# paper = ""
# home = "https://..."
# contact = "organisers@example.org"
# conditions = "The terms of participation, in Markdown."
# training = ["pipal"]                  # the challenge's own data: a model trained on any other used extra data

# What runs the scoring program on Codabench. This is Codabench's default (Python 3.7, numpy 1.17, scipy 1.3).
docker_image = "codalab/codalab-legacy:py37"

# How an image's name is spelt, as a regular expression whose groups fill `image` and `reference`. The group `type` is the kind
# of distortion, for the audit of leaks; the group `kind` is a class of images that is scored by itself too. Where names do not
# say the reference, labels do, in a column `reference`.
{names}
default_phase = "test"

# A phase is a set of images. Its names are `listed` (every reference with every type), or `names = ["a.png", ...]`, or a
# `names_file` next to this card with one name a line.
[phases.test]
images = {images}
{phase}
# start = "2027-03-01 00:00:00"         # UTC; without dates, bundle lets phases follow each other, 30 days each
# end = "2027-03-31 23:59:59"           # the last phase may have none
# submissions_per_day = 5

# The file of scores: one line an image.
[lines]
file = "output.txt"
separator = ","
# header = "name,score"                 # the first line, exactly; without it the first line is an image's
decimals = 6
any_decimals = false                    # true: any number of decimals will do
extension = true                        # names with their extension
sorted = true                           # lines in the order of names

# The readme's lines, `label : value`. Without any there is no readme. Facts: runtime (seconds per image), operations (GFLOP per
# image), cpu, extra-data, description, full-reference, fixed (with value = "...").
[[readme]]
label = "runtime per image [s]"
fact = "runtime"

[[readme]]
label = "Other description"
fact = "description"

[scoring]
main_key = "MainScore"                  # what scores.json calls the main score: the weighted sum of the terms

# Figures: srcc, plcc, krcc, rmse (give it a negative weight), pairs (share of pairs in the right order), 2afc.
# plcc and rmse may take a fit: raw, logistic4, logistic5, poly3.
[[scoring.terms]]
figure = "srcc"
weight = 1.0
absolute = false                        # true: the absolute value

[[scoring.terms]]
figure = "plcc"
weight = 1.0
fit = "raw"

# [[scoring.terms]]
# figure = "pairs"
# pairs = "different"                   # all; different: those that people could tell apart (labels need std and raters);
#                                       # listed: those of pairs-NAME.csv in the labels' folder (first,second,1 or 2)
# pair_list = ""                        # that NAME
# ties = "half"                         # what equal scores count: half, wrong, first
# weight = 0.1

[ranking]
by = "score"                            # or mean-rank: the mean of the ranks by the terms
ties = "shared"                         # places of equals: shared (1, 1, 3), dense (1, 1, 2), mean (1.5, 1.5, 3)
decimals = -1                           # scores are compared as rounded to so many decimals; -1: as they are

# [[ranking.limits]]
# figure = "runtime"                    # or operations; the readme has to tell it
# most = 0.5
"""
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
    texts = {folder / f"{name}.toml": _filled(filling), **texts}
    if there := [str(path) for path in texts if path.exists()]:
        raise UsageError("\n".join(f"{path}: exists already; move it away, or choose another name" for path in there))
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        write_text(path, text)
    card: ChallengeCard = find_challenge(str(folder / f"{name}.toml"))
    _log.info(f"{card.path}: {sum(phase.images for phase in card.phases.values()):,} images")
    return list(texts)


def _filled(filling: dict[str, str]) -> str:
    text = _CARD
    for key in ("name", "names", "images", "phase"):
        text = text.replace(f"{{{key}}}", filling[key])
    return text


def _of_dataset(
    name: str, folder: Path, dataset: str, protocol: str | None, root: str | None, cards: Sequence[str]
) -> tuple[dict[Path, str], dict[str, str]]:
    """The files of names and labels, and what the card says, from a dataset's tested images."""
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
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    further = [column for column in ("std",) if column in table and np.isfinite(table[column]).all()]
    writer.writerow(["name", "score", "reference", *further])
    for row in table.to_dict("records"):
        writer.writerow(
            [row["name"], repr(sign * float(row["score"])), row["reference_id"], *(repr(float(row[c])) for c in further)]
        )
    place = str(Path(dataset).resolve()) if dataset.endswith((".csv", ".tsv", ".xlsx")) else dataset
    lines = [f"dataset = {json.dumps(place, ensure_ascii=False)}", f"protocol = {json.dumps(chosen)}"]
    filling = {
        "name": json.dumps(name, ensure_ascii=False),
        "names": 'pattern = \'(?P<image>.+)\'\nimage = "{image}"\nreference = ""',
        "images": str(len(table)),
        "phase": "\n".join([*lines, f"names_file = {json.dumps(f'{name}-names.txt', ensure_ascii=False)}"]),
    }
    names = "".join(f"{row}\n" for row in table["name"])
    return {folder / f"{name}-names.txt": names, folder / f"{name}-labels.csv": out.getvalue()}, filling
