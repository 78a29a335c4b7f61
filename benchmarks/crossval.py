"""Ensembles on real scores: nine metrics on KADID-10k and CSIQ, searched on the one, reported on the other, both ways.

    python benchmarks/crossval.py DIR [--out FOLDER] [--trials N] [--objective main|srcc|plcc] [--seed N]

DIR holds `kadid10k.VQMT.csv` and `csiq.VQMT.csv` (github.com/SmilingWolf/VQMTCrossVal). What is prepared, a table of labels, a
card for each and a file of scores for each metric, goes to FOLDER with the cards and tables of results.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

METRICS = (
    "DSSIM", "SSIMULACRA", "Butteraugli", "Butteraugli_XL", "Butteraugli_XL_3m", "Butteraugli_XL_2s", "Butteraugli_XL_3s",
    "Butteraugli_XL_6s", "Butteraugli_XL_12s",
)  # fmt: skip
LABELS = {"kadid10k": ("kadid-scores", True), "csiq": ("csiq-scores", False)}
"""File: the card's name, and whether labels are higher-is-better (KADID-10k's are, though called dmos)."""


def prepare(source: Path, folder: Path, references: int | None = None) -> list[str]:
    """Tables, cards and score files in `folder`, of at most `references` of each dataset; the score files' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    scores: dict[str, list[tuple[str, str]]] = {metric: [] for metric in METRICS}
    for file, (card, higher) in LABELS.items():
        with open(source / f"{file}.VQMT.csv", newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        for row in rows:
            row["reference"] = row.get("ref_img") or row["image"]
            row["name"] = row.get("dist_img") or f"{row['image']}.{row['dst_type']}.{row['dst_lev']}"
        kept = sorted({row["reference"] for row in rows})[:references]
        rows = [row for row in rows if row["reference"] in kept]
        table = [
            ("name", "score", "reference_id", "distortion"),
            *((r["name"], r["dmos"], r["reference"], r["dst_type"]) for r in rows),
        ]
        write(folder / f"{card}.csv", table)
        for metric in METRICS:
            scores[metric] += [(row["name"], row[metric]) for row in rows]
        (folder / f"{card}.toml").write_text(
            f'name = "{card}"\ntitle = "Human scores of {file}"\nreader = "harness.datasets:read_table"\n'
            f'higher_is_better = {str(higher).lower()}\ndefault_protocol = "full"\n[layout]\ntable = "{card}.csv"\n'
            '[protocols.full]\nsplit = "full"\n',
            encoding="utf-8",
        )
    for metric in METRICS:
        write(folder / f"{metric}.csv", [("name", "score"), *scores[metric]])
    return [str(folder / f"{metric}.csv") for metric in METRICS]


def write(path: Path, rows: list[tuple[str, ...]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, default=Path("crossval"))
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--objective", default="main", choices=("main", "srcc", "plcc"))
    parser.add_argument("--seed", type=int, default=0)
    wished = parser.parse_args()

    from harness.engine.request import Request
    from harness.ensembles.build import EnsembleRequest, ensemble

    files = prepare(wished.source, wished.out)
    names = [card for card, _ in LABELS.values()]
    for fitted, tested in (names, names[::-1]):
        request = Request("", fitted, seed=wished.seed, cards=(str(wished.out),), runs=str(wished.out / "runs"), mlflow_uri="off")
        wanted = EnsembleRequest(
            str(wished.out / f"from-{fitted}.toml"),
            test_on=(tested,),
            trials=wished.trials,
            objective=wished.objective,
            lower=METRICS,
        )
        print(ensemble(files, request, wanted), flush=True)


if __name__ == "__main__":
    main()
