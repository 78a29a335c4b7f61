"""What a person sees of results: one table, with what must be said beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.statistics.agreement import Agreement

CONTROL_NAMES = {"cell": "oracle: knows kind and level", "level": "level alone"}
_HEADERS = ("model", "SRCC [95 %]", "PLCC", "PLCC fitted", "KRCC", "RMSE", "main", "n", "refs", "pairs/s", "marks")


def result(folder: Path, record: Mapping[str, Any], part: str = "test") -> dict[str, Any]:
    """One object of `harness run --json`; figures that do not exist are None."""
    figures = record["metrics"].get(part) or {}
    ci = figures.get("ci") or {}
    return {
        **{k: record[k] for k in ("model", "dataset", "protocol")},
        "split": part,
        "seed": record["seed"],
        **{k: figures.get(k) for k in ("n", "references", "srcc", "plcc", "plcc_fitted", "krcc", "rmse", "main")},
        "ci": {k: ci.get(k) for k in ("srcc", "plcc")},
        "seconds": record["seconds"],
        "pairs_per_second": record["pairs_per_second"],
        "run": str(folder),
        "key": record["key"],
        "repeats": record["repeats"],
        "seen": record["seen"],
        "partial": record["partial"],
        "controls": record["controls"],
        "note": record["note"],
    }


def run_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Results grouped by dataset and protocol, control rows below, and what the tables' reader must know."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in results:
        groups.setdefault((row["dataset"], row["protocol"]), []).append(row)
    return "\n\n".join(_group(dataset, protocol, rows) for (dataset, protocol), rows in groups.items())


def _group(dataset: str, protocol: str, results: Sequence[Mapping[str, Any]]) -> str:
    from tabulate import tabulate

    rows = [_row(r["model"], r, _marks(r), r["pairs_per_second"]) for r in results]
    controls: Mapping[str, Any] = next((r["controls"] for r in results if r["controls"]), {})
    rows += [_row(CONTROL_NAMES.get(name, name), figures, "", None) for name, figures in controls.items()]
    table = tabulate(
        rows, headers=_HEADERS, tablefmt="simple", disable_numparse=True, colalign=("left",) + ("right",) * 9 + ("left",)
    )
    lines = [f"{dataset} · {protocol} · {results[0]['split']} part, seed {results[0]['seed']}", "", table]
    notes = list(dict.fromkeys(r["note"] for r in results if r["note"]))
    return "\n".join([*lines, "", *notes] if notes else lines)


def _row(name: str, figures: Mapping[str, Any], marks: str, speed: float | None) -> list[str]:
    shown = [number(figures.get(k)) for k in ("plcc", "plcc_fitted", "krcc", "rmse", "main")]
    counts = ["" if figures.get(k) is None else str(figures[k]) for k in ("n", "references")]
    first = with_interval(figures.get("srcc"), (figures.get("ci") or {}).get("srcc"))
    return [name, first, *shown, *counts, "" if speed is None else f"{speed:.1f}", marks]


def _marks(row: Mapping[str, Any]) -> str:
    words = []
    if row["seen"]:
        words.append("seen: its weights were trained on this dataset")
    if row["partial"]:
        words.append("partial")
    if row["references"] is not None and row["references"] < 10:
        words.append("few references")
    return ", ".join(words)


def number(value: float | None, digits: int = 3) -> str:
    """A correlation as .853 or -.104, other sizes as they are; blank where there is none."""
    if value is None:
        return ""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and not text.startswith(("1", "-1")) else text


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """`.853 [.801, .892]`."""
    if value is None or interval is None:
        return number(value)
    return f"{number(value)} [{number(interval[0])}, {number(interval[1])}]"


def agreement_text(figures: Agreement) -> str:
    """The figures of one agreement, a line each, intervals beside them."""
    lines = [f"n            {figures.n}" + (f" of {figures.references} references" if figures.references is not None else "")]
    names = {"srcc": "SRCC", "plcc": "PLCC", "plcc_fitted": "PLCC fitted", "krcc": "KRCC", "main": "main", "rmse": "RMSE"}
    for key, name in names.items():
        lines.append(f"{name:12} {with_interval(getattr(figures, key), figures.ci.get(key)) or 'not defined'}")
    lines += [f"fit          {figures.fit}" + (f" failed: {figures.fit_problem}" if figures.fit_problem else "")]
    return "\n".join([*lines, *figures.notes])
