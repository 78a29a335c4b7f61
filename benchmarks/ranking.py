"""Real scores of nine published metrics, through the whole path: external scores, records, a leaderboard with groups.

    python benchmarks/ranking.py DATA [--datasets csiq kadid10k] [--work DIR] [--out FILE.md]

DATA holds kadid10k.VQMT.csv and csiq.VQMT.csv of https://github.com/SmilingWolf/VQMTCrossVal: human and metrics' scores of every
image. Each metric's scores become a record (`harness run --scores`), and the leaderboard is built from the records alone. Exit
status 1 when a correlation that is published there does not come out to its last digit.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness import leaderboard
from harness.engine.request import Request
from harness.engine.run_all import run_all
from harness.files.atomic import write_text
from harness.leaderboard.board_document import Group
from harness.results.run_scores import csv_text
from harness.results.tables import number, probability, with_interval


@dataclass(frozen=True)
class Source:
    """One of the two files."""

    name: str
    reference: str
    """Its column with the reference."""
    higher_is_better: bool
    std: str
    raters: int
    published: dict[str, tuple[str, str, str]]
    """PLCC, SRCC, KRCC as printed there, without the signs of distances against opinions."""


SOURCES = {
    "kadid10k": Source(
        "kadid10k", "ref_img", True, "var", 30,
        {"DSSIM": (".639", ".856", ".670"), "SSIMULACRA": (".623", ".700", ".508"), "Butteraugli": (".605", ".735", ".546")},
    ),
    "csiq": Source(
        "csiq", "image", False, "dmos_std", 0,
        {"DSSIM": (".803", ".946", ".793"), "SSIMULACRA": (".793", ".848", ".644"), "Butteraugli": (".767", ".902", ".722")},
    ),
}  # fmt: skip


def board_of(source: Source, data: Path, work: Path) -> Group:
    """The table of the nine metrics on one dataset, by way of nine records in `work`."""
    with open(data / f"{source.name}.VQMT.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    names = [row.get("dist_img") or f"{row['image']}.{row['dst_type']}.{row['dst_lev']}" for row in rows]
    columns = (names, *([row[c] for row in rows] for c in ("dmos", source.reference, "dst_type", "dst_lev", source.std)))
    table: list[tuple[Any, ...]] = [("name", "score", "reference_id", "distortion", "level", "std"), *zip(*columns, strict=True)]
    write_text(work / "labels.csv", csv_text(table))
    card = (
        f'name = "{source.name}-scores"\ntitle = "{source.name}, scores of published metrics"\nraters = {source.raters}\n'
        f'reader = "harness.datasets:read_table"\nhigher_is_better = {str(source.higher_is_better).lower()}\n'
        'default_protocol = "full"\n[layout]\ntable = "labels.csv"\n[protocols.full]\nsplit = "full"\n'
    )
    write_text(work / f"{source.name}-scores.toml", card)
    requests = []
    for metric in list(rows[0])[6:]:
        scores, pairs = work / f"{metric}.csv", zip(names, (row[metric] for row in rows), strict=True)
        write_text(scores, csv_text([("name", "score"), *pairs]))
        here: dict[str, Any] = {"cards": (str(work),), "runs": str(work / "runs"), "mlflow_uri": "off"}
        requests.append(Request(metric, f"{source.name}-scores", scores=str(scores), lower_is_better=True, **here))
    _, faults = run_all(requests)
    if faults:
        raise faults[0]
    (board,) = leaderboard.boards_of(leaderboard.collect([work / "runs"]))
    (group,) = board.groups
    return group


def wrong(source: Source, group: Group) -> list[str]:
    """Published figures that did not come out to their last digit."""
    rows = {row.name: row for row in group.rows}
    return [
        f"{source.name}, {metric}, {figure}: published {theirs}, ours {ours}"
        for metric, values in source.published.items()
        for figure, theirs in zip(("plcc", "srcc", "krcc"), values, strict=True)
        if (ours := number(rows[metric].figures[figure])) != theirs
    ]


def text(source: Source, group: Group) -> str:
    """The table as Markdown; figures in the group of the best of their column are bold."""
    lines = []
    for row in group.rows:
        bold = {f: "**" if f in row.best else "" for f in ("srcc", "plcc", "krcc", "main")}
        srcc = bold["srcc"] + with_interval(row.figures["srcc"], row.ci["srcc"]) + bold["srcc"]
        shown = [f"{bold[f]}{number(row.figures[f])}{bold[f]}" for f in ("plcc", "krcc", "main")]
        published = " / ".join(source.published.get(row.name, ()))
        lines.append([row.rank, row.name, srcc, *shown, "best" if row.p_best is None else probability(row.p_best), published])
    headers = ("#", "metric", "SRCC [95 %]", "PLCC", "KRCC", "main", "p", "published PLCC / SRCC / KRCC")
    count = f"{group.rows[0].n:,} images of {group.rows[0].references} references"
    return f"{source.name}, {count}:\n\n" + tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)


def main() -> None:
    """Print (or write) the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--datasets", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--work", type=Path, help="keep records there; default: a folder that is removed")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    tables, problems = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.datasets:
            folder = (options.work or Path(scratch)) / name
            folder.mkdir(parents=True, exist_ok=True)
            group = board_of(SOURCES[name], options.data, folder)
            tables.append(text(SOURCES[name], group))
            problems += wrong(SOURCES[name], group)
    document = "\n\n".join(tables) + "\n"
    write_text(options.out, document) if options.out else print(document)
    print("\n".join(problems) or "every published figure comes out to its last digit", file=sys.stderr)
    raise SystemExit(1 if problems else 0)


if __name__ == "__main__":
    main()
