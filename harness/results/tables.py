"""Tables of results for the terminal, with notes, and the formats of figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.results.marks import CONTROLS
from harness.results.record import Record, RepeatsRecord
from harness.runtime.terminal_columns import text_table

if TYPE_CHECKING:
    from harness.statistics.agreement import Agreement
_FIGURES = {"plcc": "PLCC", "plcc_fitted": "PLCC fitted", "krcc": "KRCC", "rmse": "RMSE", "main": "main"}
_FIGURES |= {"srcc_within": "SRCC within refs"}
_RANGE, _INTERVAL, _WHOLE = "range", "95 %", "SRCC of all\nimages [95 %]"
_AVERAGED = ("n", "references", "srcc", *_FIGURES, "score_2afc")


def result(folder: Path, record: Record, part: str = "test") -> dict[str, object]:
    """One object of `harness run --json`; absent figures are None."""
    figures = msgspec.to_builtins(record.metrics.get(part) or {})
    ci = figures.get("ci") or {}
    over = record if isinstance(record, RepeatsRecord) else None
    return {
        "model": record.model,
        "dataset": record.dataset,
        "protocol": record.protocol,
        "split": part,
        "seed": record.seed,
        **{k: whole_number(figures.get(k)) for k in ("n", "references")},
        **{k: figures.get(k) for k in ("srcc", *_FIGURES, "score_2afc", "discrimination")},
        "ci": {k: ci.get(k) for k in ("srcc", "plcc", *(("score_2afc",) if "score_2afc" in ci else ()))},
        "range": figures.get("range"),
        "seconds": record.seconds,
        "pairs_per_second": record.pairs_per_second,
        "run": str(folder),
        "key": record.key,
        "repeats": msgspec.to_builtins(over.repeats) if over else None,
        "all_images": msgspec.to_builtins(over.all_images) if over and over.all_images else None,
        "seen": record.seen,
        "contaminated_by": record.contaminated_by,
        "partial": record.partial,
        "incomplete": record.incomplete,
        "controls": msgspec.to_builtins(record.controls),
        "note": record.note,
        "notes": list(figures.get("notes") or ()),
    }


_DROPS = ("pairs/s", "SRCC within refs", "RMSE", "marks", "KRCC", "PLCC fitted", "refs", "n", "PLCC", "2AFC", "main")
"""Columns that are left out of a narrow terminal, the first one first; marks are then explained below the table."""


def run_table(results: Sequence[Mapping[str, Any]], width: int | None = None) -> str:
    """Results grouped by dataset and protocol, with control rows and notes below.

    `width`: characters in a line of the terminal; None: all columns.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in results:
        groups.setdefault((row["dataset"], row["protocol"]), []).append(row)
    return "\n\n".join(_group(dataset, protocol, rows, width) for (dataset, protocol), rows in groups.items())


def _group(dataset: str, protocol: str, results: Sequence[Mapping[str, Any]], width: int | None) -> str:
    by_model: dict[str, list[Mapping[str, Any]]] = {}
    for one in results:
        by_model.setdefault(one["model"], []).append(one)
    rows = []
    for same in by_model.values():
        several = len({r["seed"] for r in same}) > 1
        rows += [_mean(same)] if several else []
        rows += [_row(f"· seed {r['seed']}" if several else r["model"], r, r["pairs_per_second"], marked=True) for r in same]
    controls: Mapping[str, Any] = next((r["controls"] for r in results if r["controls"]), {})
    rows += [_row(CONTROLS.get(name, name), figures) for name, figures in controls.items()]
    heads = ["model", "2AFC", "SRCC", _RANGE, _INTERVAL, _WHOLE, *_FIGURES.values(), "n", "refs", "pairs/s", "marks"]
    if not any(row[heads.index(_RANGE)] for row in rows):
        # Only where no row has a range may the interval be in the figure's own column.
        heads[2] = f"SRCC [{_INTERVAL}]"
        rows = [[*row[:2], f"{row[2]} [{row[4]}]" if row[4] else row[2], "", "", *row[5:]] for row in rows]
    optional = [i for i, head in enumerate(heads) if head in ("2AFC", _RANGE, _INTERVAL, _WHOLE)]
    shown = [i for i in range(len(heads)) if i not in optional or any(row[i] for row in rows)]
    headers, rows = [heads[i] for i in shown], [[row[i] for i in shown] for row in rows]
    align = ["left" if header in ("model", "marks") else "right" for header in headers]
    table = text_table(headers, rows, align, width=width, drops=_DROPS, shortens=("model",))
    seeds = list(dict.fromkeys(r["seed"] for r in results))
    named = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    counts = sorted({len(r["repeats"]) for r in results if r["repeats"]})
    tested = f"test parts of {' or '.join(map(str, counts))} splits" if counts else f"{results[0]['split']} part"
    lines = [f"{dataset} · {protocol} · {tested}, {named}", "", table.text]
    blind = dict.fromkeys(r["model"] for r in results if r["n"] is None)
    notes = [f"{', '.join(blind)}: no figures, because labels of the test images are missing"] if blind else []
    if "marks" in table.dropped:
        notes += dict.fromkeys(f"{row[0]}: {row[-1]}" for row in rows if row[-1])
    # A note says why a figure has no interval.
    notes += dict.fromkeys(f"{r['model']}: {note}" for r in results for note in r["notes"] if note.startswith("no interval"))
    if counts:
        notes.append(
            "over several splits: the median of the splits' test parts, its range from the smallest to the largest SRCC (no "
            "interval: splits share images), n and refs of one split"
        )
    notes += dict.fromkeys(r["note"] for r in results if r["note"])
    return "\n".join([*lines, "", *notes] if notes else lines)


def _mean(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The mean over seeds of the figures that all seeds have, with the smallest and largest SRCC."""
    known: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in _AVERAGED}
    means: dict[str, float] = {name: sum(values) / len(rows) for name, values in known.items() if None not in values}
    for name in ("n", "references"):
        if name in means and len(set(known[name])) == 1:
            means[name] = int(means[name])
        else:
            means.pop(name, None)
    shown = _row(f"{rows[0]['model']}, {len(rows)} seeds", means)
    if "srcc" in means:
        shown[3] = _ends((min(known["srcc"]), max(known["srcc"])), " to ")
    return shown


def _row(name: str, figures: Mapping[str, Any], speed: float | None = None, *, marked: bool = False) -> list[str]:
    """A row's cells; `marked`: `figures` are a result, with its marks in the last cell."""
    ci, spread, whole = (figures.get(k) or {} for k in ("ci", "range", "all_images"))
    afc = with_interval(figures.get("score_2afc"), ci.get("score_2afc"))
    everything = with_interval(whole.get("srcc"), (whole.get("ci") or {}).get("srcc"))
    srcc = [number(figures.get("srcc")), _ends(spread.get("srcc"), " to "), _ends(ci.get("srcc"), ", "), everything]
    others = [figure(k, figures.get(k)) for k in _FIGURES]
    counts = [count(figures.get(k)) for k in ("n", "references")]
    words: list[str] = []
    if marked:
        known = ", ".join(figures["contaminated_by"])
        # Medians over splits have no interval; the figure over all images has one.
        references = (whole if figures["repeats"] else figures).get("references")
        holds = {
            "seen: its weights were trained on this dataset": figures["seen"],
            f"contaminated: trained on {known}, which shares images or labels with this one": figures["contaminated_by"],
            "partial": figures["partial"],
            "incomplete: the dataset lacks pairs here": figures["incomplete"],
            "labels withheld": figures["n"] is None,
            "few references": references is not None and references < 10,
        }
        words = [word for word, true in holds.items() if true]
    return [name, afc, *srcc, *others, *counts, "" if speed is None else f"{speed:.1f}", ", ".join(words)]


def _ends(ends: Sequence[float] | None, between: str) -> str:
    return between.join(map(number, ends)) if ends else ""


def number(value: float | None, digits: int = 3) -> str:
    """A correlation as .853 or -.104, other sizes as they are; blank where there is none."""
    if value is None:
        return ""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and not text.startswith(("1", "-1")) else text


def whole_number(value: float | None) -> float | None:
    """A count as an int where it is one: older records have medians of counts such as 40.0."""
    return int(value) if value is not None and float(value).is_integer() else value


def count(value: float | None) -> str:
    """A count as a whole number; the median of two counts may be half way between them. Blank where there is none."""
    return "" if value is None else str(whole_number(value))


def in_label_units(value: float | None) -> str:
    """An RMSE with three significant digits, in the labels' unit: 8.12, .0571, 1.2e-06; blank where there is none."""
    if value is None:
        return ""
    digits = f"{value:#.3g}"
    if 100 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return digits if "e" in digits else digits.replace("0.", ".", 1) if abs(value) < 1 else digits


def figure(name: str, value: float | None) -> str:
    """A figure of a record by its name: RMSE in the labels' units, all others in the format of correlations."""
    return in_label_units(value) if name == "rmse" else number(value)


def probability(value: float | None) -> str:
    """A p-value as .043 or < .001; blank where there is none."""
    return "" if value is None else "< .001" if value < 0.001 else number(value)


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """`.853 [.801, .892]`."""
    if value is None or interval is None:
        return number(value)
    return f"{number(value)} [{number(interval[0])}, {number(interval[1])}]"


def agreement_text(figures: Agreement) -> str:
    """The figures of one agreement, a line each, with intervals."""
    lines = [f"n            {figures.n}" + (f" of {figures.references} references" if figures.references is not None else "")]
    names = {"srcc": "SRCC", "plcc": "PLCC", "plcc_fitted": "PLCC fitted", "krcc": "KRCC", "main": "main", "rmse": "RMSE"}
    for key, name in names.items():
        value = getattr(figures, key)
        shown = in_label_units(value) if key == "rmse" else with_interval(value, figures.ci.get(key))
        lines.append(f"{name:12} {shown or 'not defined'}")
    lines += [f"fit          {figures.fit}" + (f" failed: {figures.fit_problem}" if figures.fit_problem else "")]
    return "\n".join([*lines, *figures.notes])
