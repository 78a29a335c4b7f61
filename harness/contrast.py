"""`harness compare`: two members on the same images of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness import datasets, external, registry
from harness.errors import BadRequest, listed
from harness.members import Member, member
from harness.statistics.comparison import Comparison, Difference, compare
from harness.statistics.planning import references_needed
from harness.summary import number


def compare_members(
    a: str,
    b: str,
    *,
    dataset: str | None = None,
    protocol: str | None = None,
    root: str | None = None,
    labels: str | None = None,
    lower: Sequence[str] = (),
    inner: bool = False,
    cards: Sequence[str] = (),
    runs: str = "runs",
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> tuple[tuple[str, str], list[str], Comparison]:
    """Compare members a and b on the images that both scored; names, image names (by row), and the comparison.

    A model's name means its newest run on `dataset` under `protocol` (default: the dataset's). Labels come from `labels` (CSV
    of name,score,reference_id), else from `dataset`, else from the dataset of a's run.
    `lower`: which of a, b, labels are lower-is-better files. Raises BadRequest for images that only one of the two has, unless
    `inner`.
    """
    if dataset is not None and protocol is None and not dataset.lower().endswith((".csv", ".tsv")):
        protocol = registry.find_dataset(dataset, cards).default_protocol
    members = [
        member(word, dataset=dataset, protocol=protocol, runs_folder=runs, lower_is_better=which in lower, say=say)
        for which, word in (("a", a), ("b", b))
    ]
    table = _labels(members, dataset, root, labels, "labels" in lower, cards)
    scores = [m.part("test") for m in members]
    both = [name for name in table["name"] if all(name in s for s in scores)]
    only = [sorted(set(scores[i]) & set(table["name"]) - set(scores[1 - i])) for i in (0, 1)]
    if any(only) and not inner:
        lines = [
            f"{m.name}: {len(names)} images that the other has not: {listed(names)}"
            for m, names in zip(members, only, strict=True)
            if names
        ]
        raise BadRequest("\n".join([*lines, "they are compared on the same images; --inner uses those that both have"]))
    if not both:
        raise BadRequest(f"{a} and {b} have no labelled image in common")
    rows = table.set_index("name").loc[both]
    if not (rows["reference_id"] != "").all():
        raise BadRequest("the labels need a reference_id column: differences are paired by reference")
    comparison = compare(
        [scores[0][n] for n in both],
        [scores[1][n] for n in both],
        rows["score"].to_numpy(dtype=float),
        list(rows["reference_id"]),
        distortions=list(rows["distortion"]) if (rows["distortion"] != "").any() else None,
        levels=list(rows["level"]) if rows["level"].notna().all() else None,
        seed=seed,
    )
    return (members[0].name, members[1].name), both, comparison


def _labels(
    members: Sequence[Member], dataset: str | None, root: str | None, labels: str | None, lower: bool, cards: Sequence[str]
) -> Any:
    if labels is not None:
        from harness.datasets import table

        frame = table.complete(external.read_scores(labels), labels)
        return frame.assign(score=-frame["score"]) if lower else frame
    request = next((m.record["request"] for m in members if m.record), None)
    name = dataset or (request["dataset"] if request else None)
    if name is None:
        raise BadRequest("where are the labels? Give --labels FILE.csv or --dataset NAME")
    data = datasets.load_dataset(name, root, cards=cards)
    frame = data.table[data.table["score"].notna()]
    return frame if data.higher_is_better else frame.assign(score=-frame["score"])


def text(names: tuple[str, str], images: Sequence[str], comparison: Comparison) -> str:
    """The comparison for a person."""
    from tabulate import tabulate

    rows = [_row(key, difference) for key, difference in comparison.differences.items()]
    lines = [
        f"{names[0]} against {names[1]}: {comparison.n} images of {comparison.references} references",
        "",
        tabulate(rows, headers=("", *names, "difference", "95 %", "p", "method"), tablefmt="simple", disable_numparse=True),
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
                [g.name, str(g.n), number(g.srcc.a), number(g.srcc.b), number(g.srcc.difference), _p(g.p_holm)]
                for g in groups[:30]
            ]
            head = (title, "n", f"SRCC {names[0]}", f"SRCC {names[1]}", "difference", "p (Holm)")
            lines += ["", tabulate(shown, headers=head, tablefmt="simple", disable_numparse=True)]
            lines += [f"... and {len(groups) - 30} more"] if len(groups) > 30 else []
    if comparison.disagreements:
        lines += ["", "images on which they disagree most (ranks as shares, 1 is best):"]
        shown = [
            [images[d.row], f"{d.rank_a:.2f}", f"{d.rank_b:.2f}", f"{d.rank_label:.2f}"] for d in comparison.disagreements[:10]
        ]
        lines += [tabulate(shown, headers=("image", *names, "people"), tablefmt="simple", disable_numparse=True)]
    lines += ["", *comparison.notes, *(["few references: intervals are wide and rough"] if comparison.few_references else [])]
    lines += _planning(comparison)
    return "\n".join(lines).rstrip()


def _planning(comparison: Comparison) -> list[str]:
    observed = comparison.differences["srcc"]
    needed = {d: references_needed(observed, d) for d in (0.01, 0.02, 0.05)}
    known = [f"{n} references for {d}" for d, n in needed.items() if n is not None]
    return [f"to show a true difference in SRCC with 80 % power: {', '.join(known)}"] if known else []


def _row(key: str, difference: Difference) -> list[str]:
    names = {"srcc": "SRCC", "plcc": "PLCC", "krcc": "KRCC", "main": "main", "srcc_within": "SRCC within references"}
    ci = f"[{number(difference.ci[0])}, {number(difference.ci[1])}]" if difference.ci else ""
    figures = [number(v) for v in (difference.a, difference.b, difference.difference)]
    return [names.get(key, key), *figures, ci, _p(difference.p_value), difference.method or ""]


def _p(value: float | None) -> str:
    return "" if value is None else "< .001" if value < 0.001 else f"{value:.3f}".lstrip("0")


def as_json(names: tuple[str, str], images: Sequence[str], comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values, images by name."""
    document = comparison.json()
    for entry in document["disagreements"]:
        entry["name"] = images[entry.pop("row")]
    return {"a": names[0], "b": names[1], **document}
