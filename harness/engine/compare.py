"""`harness compare`: compares two models, runs or score files on the same images of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness import datasets
from harness.engine.compare_repeats import compared_over_splits
from harness.engine.measure import discrimination, oriented_labels
from harness.engine.request_of_record import dataset_of
from harness.engine.score_source import Member, member, refuse_other_images
from harness.files.score_table import join, read_scores
from harness.results.tables import number, probability
from harness.runtime.errors import UsageError, listed
from harness.runtime.terminal_columns import text_table
from harness.statistics.agreement import Agreement, agreement
from harness.statistics.comparison import Difference, PairedComparison, compare
from harness.statistics.curve_fitting import Fit
from harness.statistics.power import references_needed

PLANNED = (0.01, 0.02, 0.05)


class Comparison(NamedTuple):
    """The comparison of two members on the same images."""

    a: str
    """The name of the first member; differences are a minus b."""
    b: str
    """The name of the second member."""
    images: list[str]
    """The images' names, in the order of the comparison's rows."""
    comparison: PairedComparison
    """The figures of both and their differences, with intervals and p-values."""
    discrimination: tuple[dict[str, Any], dict[str, Any]]
    """The further figures of a and of b (`harness.engine.measure.discrimination`)."""
    references_needed: dict[float, int | None]
    """By true difference in SRCC: the number of references that detects it with 80 % power."""
    incomplete: tuple[str, ...] = ()
    """The names of members whose record is on an incomplete dataset."""
    splits: int = 0
    """The number of splits; figures are medians and differences are means over them. 0: a single test part."""


def compare_members(
    a: str | Path,
    b: str | Path,
    dataset: str | None = None,
    *,
    protocol: str | None = None,
    root: str | None = None,
    labels: str | None = None,
    lower: Sequence[str] = (),
    inner: bool = False,
    differences: Sequence[float] = PLANNED,
    cards: Sequence[str] = (),
    runs: str = "runs",
    seed: int = 0,
) -> Comparison:
    """Compare two models, runs or files of scores on the same images, paired by reference.

    Records of repeated splits are compared on the same test parts (`harness.engine.compare_repeats`).

    Args:
        a: a model's name (its newest run on `dataset` under `protocol`), a run's folder, or a CSV of name,score.
        b: the same for the second member; differences are a minus b.
        dataset: the dataset of labels and references; default: that of a's run.
        protocol: the protocol of the test part; default: the dataset's.
        root: the folder of the dataset's files.
        labels: a CSV of name,score,reference_id in place of the dataset's labels.
        lower: the files where lower is better: any of "a", "b" and "labels".
        inner: compare on the images in both; otherwise an image in only one of them is an error.
        differences: true differences in SRCC, for each of which the necessary number of references is computed.
        cards: folders with the caller's own cards.
        runs: the folder of runs.
        seed: the seed of the runs that names select, and of the bootstrap.

    Returns:
        The differences with their intervals and p-values, and further figures of both members.

    Raises:
        UsageError: an unknown name, an input that cannot be read, or images in only one of the two.
    """
    if dataset is not None and protocol is None:
        protocol = datasets.dataset_card(dataset, cards).default_protocol
    members = [
        member(
            str(name),
            dataset=dataset,
            protocol=protocol,
            runs_folder=runs,
            root=root,
            cards=cards,
            lower_is_better=which in lower,
        )
        for which, name in (("a", a), ("b", b))
    ]
    refuse_other_images(members)
    data = _labelled(members, dataset, root, labels, "labels" in lower, cards)
    incomplete = tuple(m.name for m in members if m.record and m.record.incomplete)
    if any(m.splits for m in members):
        over = compared_over_splits(members, data, inner=inner)
        names = members[0].name, members[1].name
        return Comparison(*names, over.images, over.comparison, over.discrimination, {}, incomplete, over.splits)
    table = data.table
    scores = [m.part("test") for m in members]
    labelled = table["name"].tolist()
    both = [name for name in labelled if name in scores[0] and name in scores[1]]
    only = [sorted(scores[i].keys() & set(labelled) - scores[1 - i].keys()) for i in (0, 1)]
    if any(only) and not inner:
        lines = [
            f"{m.name}: {len(names)} images that the other does not have: {listed(names)}"
            for m, names in zip(members, only, strict=True)
            if names
        ]
        raise UsageError("\n".join([*lines, "members are compared on the same images; --inner uses only the images in both"]))
    if not both:
        raise UsageError(f"{a} and {b} have no labelled image in common")
    rows = table.set_index("name").loc[both]
    if not (rows["reference_id"] != "").all():
        raise UsageError("the labels need a reference_id column: differences are paired by reference")
    first, second = (np.array([one[n] for n in both]) for one in scores)
    comparison = compare(
        first,
        second,
        oriented_labels(data, rows),
        rows["reference_id"].tolist(),
        distortions=rows["distortion"].tolist() if (rows["distortion"] != "").any() else None,
        levels=rows["level"].tolist() if rows["level"].notna().all() else None,
        seed=seed,
    )
    further = discrimination(data, rows, first), discrimination(data, rows, second)
    observed = comparison.differences["srcc"]
    needed = {d: references_needed(observed, d) for d in differences}
    return Comparison(members[0].name, members[1].name, both, comparison, further, needed, incomplete)


def _labelled(
    members: Sequence[Member], dataset: str | None, root: str | None, labels: str | None, lower: bool, cards: Sequence[str]
) -> datasets.Dataset:
    """The dataset of the labels, without the unlabelled rows of its table."""
    if labels is not None:
        return datasets.of_table(labels, higher_is_better=not lower)
    name = dataset or next((dataset_of(str(m.folder), m.record, cards) for m in members if m.record), None)
    if name is None:
        raise UsageError("no dataset or labels given: add --dataset NAME or --labels FILE.csv")
    data = datasets.load_dataset(name, root, cards=cards)
    return replace(data, table=data.table[data.table["score"].notna()])


def text(result: Comparison, width: int | None = None) -> str:
    """The comparison as text; `width`: characters in a line of the terminal, None: the width of the tables."""
    names, images, comparison = (result.a, result.b), result.images, result.comparison
    rows = [_row(key, difference) for key, difference in comparison.differences.items()]
    over = f", test parts of {result.splits} splits" if result.splits else ""
    heads = (*(f"median {name}" for name in names), "mean difference") if result.splits else (*names, "difference")
    lines = [
        f"{names[0]} against {names[1]}: {comparison.n} images of {comparison.references} references{over}",
        "",
        text_table(("", *heads, "95 %", "p", "method"), rows, width=width, drops=("method",), shortens=heads).text,
    ]
    lines += [
        f"{test.statistic}: Williams p = {test.williams_p:.3g}, Steiger p = {test.steiger_p:.3g} ({test.assumption})"
        for test in comparison.independent
    ]
    for title, groups in (
        ("kind", comparison.by_distortion),
        ("level", comparison.by_level),
        ("reference", comparison.by_reference),
    ):
        if groups:
            shown = [
                [g.name, str(g.n), number(g.srcc.a), number(g.srcc.b), number(g.srcc.difference), probability(g.p_holm)]
                for g in groups[:30]
            ]
            mean = "mean difference" if result.splits else "difference"
            head = (title, "n", f"SRCC {names[0]}", f"SRCC {names[1]}", mean, "p (Holm)")
            lines += ["", text_table(head, shown, width=width, drops=("p (Holm)", "n"), shortens=head).text]
            lines += [f"... and {len(groups) - 30} more"] if len(groups) > 30 else []
    lines += ["", *_further(names, result.discrimination, width)]
    if comparison.disagreements:
        lines += ["", "images on which they disagree most (ranks as shares, 1 is best):"]
        shown = [
            [images[d.row], f"{d.rank_a:.2f}", f"{d.rank_b:.2f}", f"{d.rank_label:.2f}"] for d in comparison.disagreements[:10]
        ]
        lines += [text_table(("image", *names, "labels"), shown, width=width, shortens=("image", *names)).text]
    lines += ["", *comparison.notes, *(["few references: intervals are wide and rough"] if comparison.few_references else [])]
    lines += [f"incomplete: {', '.join(result.incomplete)}: the dataset lacked pairs"] if result.incomplete else []
    known = [f"{n} references for {d:g}" for d, n in result.references_needed.items() if n is not None]
    lines += [f"to show a true difference in SRCC with 80 % power: {', '.join(known)}"] if known else []
    return "\n".join(lines).rstrip()


def _further(names: tuple[str, str], each: tuple[Mapping[str, Any], Mapping[str, Any]], width: int | None) -> list[str]:
    """Figures of both models other than correlations, and the reasons for undefined ones."""
    pairs, steps = ([one[what] or {} for one in each] for what in ("pair_analysis", "monotonicity"))
    rows = [
        ["different against similar pairs, AUC", *(number(one.get("different_similar")) for one in pairs)],
        ["better against worse, AUC", *(number(one.get("better_worse")) for one in pairs)],
        ["better image found", *(number(one.get("correct")) for one in pairs)],
        ["outlier ratio", *(number(one["outlier_ratio"]) for one in each)],
        ["steps of level on which the score falls", *(number(one.get("steps")) for one in steps)],
        ["series of levels that fall throughout", *(number(one.get("series")) for one in steps)],
    ]
    shown = [[row[0], *(cell or "not defined" for cell in row[1:])] for row in rows]
    notes = dict.fromkeys([*each[0]["not_defined"], *(one["note"] for one in pairs if one.get("note"))])
    return [text_table(("", *names), shown, width=width, shortens=("", *names)).text, *notes]


def _row(key: str, difference: Difference) -> list[str]:
    names = {"srcc": "SRCC", "plcc": "PLCC", "krcc": "KRCC", "main": "main", "srcc_within": "SRCC within references"}
    ci = f"[{number(difference.ci[0])}, {number(difference.ci[1])}]" if difference.ci else ""
    figures = [number(v) for v in (difference.a, difference.b, difference.difference)]
    return [names.get(key, key), *figures, ci, probability(difference.p_value), difference.method or ""]


def as_json(result: Comparison) -> dict[str, Any]:
    """The comparison as values for JSON, with images by name."""
    document = result.comparison.json()
    for entry in document["disagreements"]:
        entry["name"] = result.images[entry.pop("row")]
    planned = [{"statistic": "srcc", "difference": d, "power": 0.8, "references": n} for d, n in result.references_needed.items()]
    further = dict(zip("ab", result.discrimination, strict=True))
    return {
        "a": result.a,
        "b": result.b,
        "splits": result.splits or None,
        **document,
        "discrimination": further,
        "planning": planned,
        "incomplete": list(result.incomplete),
    }


def agreement_of_files(
    scores: str | Path, labels: str | Path, *, lower: Set[str] = frozenset(), fit: Fit = "logistic4", inner: bool = False
) -> Agreement:
    """Agreement of two files; `lower` names the files (scores, labels) where lower is better, whose signs are changed first."""
    known = read_scores(labels)
    joined = join(read_scores(scores), known, (str(scores), str(labels)), inner=inner)
    given = joined["given"].to_numpy(dtype=float) * (-1 if "scores" in lower else 1)
    labelled = joined["score"].to_numpy(dtype=float) * (-1 if "labels" in lower else 1)
    return agreement(given, labelled, joined["reference_id"].tolist() if "reference_id" in joined else None, fit=fit)
