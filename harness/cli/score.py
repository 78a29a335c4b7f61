"""`harness score`: scores image pairs without labels by one or several models."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from harness.cli import completion
from harness.cli import options as o
from harness.cli.options import Argument, Option, echo, options
from harness.runtime.errors import UsageError, listed

if TYPE_CHECKING:
    import pandas as pd

    from harness.datasets.folders import ImagePair

_log = logging.getLogger(__package__)

FORMS = ("table", "csv", "markdown", "latex", "json")
_BY_SUFFIX = {".csv": "csv", ".md": "markdown", ".tex": "latex", ".json": "json", ".txt": "table"}
_MODELS: Mapping[str, Any] = {"metavar": "MODEL... [REFERENCE DISTORTED]", "shell_complete": completion.cards("models")}
_PATTERN = (
    "Read paths below --distorted by this pattern, such as {codec}/{quality}/{name}.png: {name} is the reference's stem, "
    "other fields become columns. Without an extension it matches all image formats. Default: equal relative paths or stems."
)
_REFERENCE = "Use the references in this folder and its subfolders, or this one image."
_DISTORTED = "Use the distorted images in this folder, or this image; repeatable."
_PAIRS = "Use the pairs of a table with columns reference, distorted and optionally name; other columns are kept."
_OUT = "Write the scores to this file: .csv, .md, .tex, .json or .txt. The same command continues after a kill."
_REPORT = "Write a page: distributions, means, worst pairs, where metrics disagree."


@dataclass(frozen=True)
class ScoreOptions(o.Scoring, o.TableOutput):
    """Options of `harness score`."""

    words: Annotated[tuple[str, ...], Argument(**_MODELS)]
    reference: Annotated[str | None, Option(metavar="DIR|FILE", help=_REFERENCE)]
    distorted: Annotated[tuple[str, ...], Option(metavar="DIR|FILE", help=_DISTORTED)]
    pattern: Annotated[str | None, Option(metavar="P", help=_PATTERN)]
    pairs: Annotated[str | None, Option(metavar="FILE.csv", help=_PAIRS)]
    inner: Annotated[bool, Option(help="Leave out unpaired images instead of refusing them.")]
    out: Annotated[str | None, Option(metavar="FILE", help=_OUT)]
    report: Annotated[str | None, Option(metavar="FILE.html", help=_REPORT)]
    form: Annotated[str | None, Option("--format", type=click.Choice(FORMS), help="Print every pair's scores in this format.")]
    root: o.Root
    weights: o.Weights
    settings: o.Settings

    @property
    def several(self) -> bool:
        """Whether folders or a table give the pairs; else the last two arguments are one pair."""
        return self.reference is not None or self.pairs is not None

    @property
    def models(self) -> list[str]:
        """The arguments that are models."""
        return list(self.words if self.several else self.words[:-2])

    def loading(self) -> Mapping[str, Any]:
        """The options for loading and calling the models, by their names in engine.unlabelled."""
        return {name: getattr(self, name) for name in "weights settings cards device seed offline batch".split()}

    def require_whole(self) -> None:
        """Raise UsageError for options that exclude or need each other."""
        problems = []
        if self.reference is not None and self.pairs is not None:
            problems.append("--reference and --pairs: give one of them")
        if (self.reference is not None) != bool(self.distorted):
            problems.append("--reference and --distorted go together: the references' folder and the distorted images'")
        if self.reference is None and (self.pattern or self.inner):
            problems.append("--pattern and --inner belong to folders: give --reference DIR --distorted DIR")
        if not problems and len(self.words) < (1 if self.several else 3):
            problems.append(
                "give a MODEL with --reference and --distorted, or with --pairs"
                if self.several
                else "give either MODEL... REFERENCE DISTORTED, or --pairs FILE.csv, or --reference DIR --distorted DIR"
            )
        if problems:
            raise UsageError("\n".join(problems))


@click.command()
@options(ScoreOptions)
def score(chosen: ScoreOptions) -> None:
    """Score images without labels: one pair, a table of pairs, or folders, by one model or several.

    \b
    harness score psnr reference.png distorted.png
    harness score psnr ssim --reference REFS --distorted DIST --pattern '{codec}/{quality}/{name}' --out scores.csv
    """
    from harness.engine import unlabelled
    from harness.imaging import remarks
    from harness.results.run_scores import csv_text

    chosen.require_whole()
    models, pairs, out = chosen.models, chosen.pairs, chosen.out
    how = chosen.loading()
    in_pairs_form = out is None or (pairs and out.endswith(".csv"))
    if chosen.reference is not None or len(models) > 1 or chosen.report or chosen.form or not in_pairs_form:
        _score_several(chosen)
        return
    table = unlabelled.read_pairs(pairs, chosen.root) if pairs else unlabelled.one_pair(*chosen.words[-2:])
    journal = Path(f"{out}.partial") if out and chosen.workers < 2 and not chosen.ray else None
    if journal is not None:
        rows = unlabelled.score_all(unlabelled.several(models, table, **how), table, journal=journal)
        results = [(row.pair, row.results[0]) for row in rows]
    else:
        with unlabelled.scorer(models[0], table, workers=chosen.workers, ray=chosen.ray, **how) as scorer:
            results = unlabelled.score(scorer, table)
    for line in remarks.lines(remark for _, scored in results for remark in scored.remarks):
        _log.info(line)
    if out and pairs:
        unlabelled.write_scores(out, results, unlabelled.other_columns(pairs))
        if journal is not None:
            journal.unlink(missing_ok=True)
        _log.info(f"{len(results)} scores written to {out}")
    if chosen.as_json:
        echo(o.json_text([unlabelled.as_json(pair, scored) for pair, scored in results]))
    elif not out:
        cells = [[pair.name, repr(scored.score)] if pairs else [repr(scored.score)] for pair, scored in results]
        echo(csv_text(cells).removesuffix("\n"))


def _score_several(chosen: ScoreOptions) -> None:
    import pandas as pd

    from harness.engine import unlabelled
    from harness.engine.scorer import Pair
    from harness.imaging import remarks
    from harness.results import score_report

    how = chosen.loading()
    out, form, width = chosen.out, "json" if chosen.as_json else chosen.form, o.table_width(chosen.wide)
    suffix = Path(out).suffix.lower() if out else ".csv"
    if suffix not in _BY_SUFFIX:
        raise UsageError(f"--out {out}: its extension gives the format; use one of {', '.join(_BY_SUFFIX)}")
    images, columns = _image_pairs(chosen)
    table = [Pair(i.name, i.distorted, i.reference, i.reference_id) for i in images]
    ready = unlabelled.several(chosen.models, table, **how)
    names = [one.name for one in ready]
    taken = sorted({*columns, *score_report.FIXED} & set(names))
    if taken:
        raise UsageError(f"a column and a model have the same name: {listed(taken)}; rename the column")
    journal = Path(f"{out}.partial") if out else None
    if chosen.workers > 1 or chosen.ray:
        each = []
        for model in chosen.models:
            with unlabelled.scorer(model, table, workers=chosen.workers, ray=chosen.ray, **how) as scorer:
                each.append([scored for _, scored in unlabelled.score(scorer, table)])
        results = [unlabelled.ScoredPair(p, tuple(r[i] for r in each)) for i, p in enumerate(table)]
    else:
        results = unlabelled.score_all(ready, table, journal=journal)
    for line in remarks.lines(remark for row in results for scored in row.results for remark in scored.remarks):
        _log.info(line)
    for number, one in enumerate(ready):
        if same := sum(row.results[number].identical for row in results):
            _log.info(f"{one.name}: {same} pairs are identical and get the card's score for identical images")
    rows = pd.DataFrame(
        {fact: [getattr(i, fact) for i in images] for fact in ("name", "reference", "distorted", "reference_id")}
        | {c: [i.columns[c] for i in images] for c in columns}
        | {fact: [getattr(i, fact) for i in images] for fact in ("bytes", "pixels")}
        | {name: [row.results[n].score for row in results] for n, name in enumerate(names)}
    )
    better = {one.name: one.higher_is_better for one in ready}
    if out:
        from harness.files.atomic import write_text

        write_text(out, _text(rows, names, columns, _BY_SUFFIX[suffix]) + "\n")
        if journal is not None:
            journal.unlink(missing_ok=True)
        _log.info(f"{len(results)} pairs under {len(names)} models written to {out}")
    if chosen.report:
        title = f"{', '.join(names)} on {len(results)} pairs"
        loaded = {one.name: one.scorer.model for one in ready}
        score_report.write_page(chosen.report, title, rows, better, columns, o.own_command(), loaded)
        _log.info(f"report written to {chosen.report}")
    if form or not out:
        echo(_text(rows, names, columns, form or "table", width))
    if form is None:
        found = score_report.means(rows, names, columns)
        echo(("" if out else "\n") + score_report.formatted(*score_report.means_rows(found, names), "table", width))


def _image_pairs(chosen: ScoreOptions) -> tuple[list[ImagePair], tuple[str, ...]]:
    """The pairs with file sizes and numbers of pixels, and the names of their further columns."""
    from harness.datasets.folders import ImagePair, measure_files, pair_images
    from harness.engine import unlabelled

    if chosen.reference is not None:
        pairing = pair_images(chosen.reference, chosen.distorted, chosen.pattern, inner=chosen.inner)
        for line in pairing.left_out:
            _log.info(f"left out: {line}")
        return measure_files(pairing.pairs), pairing.columns
    if chosen.pairs is None:
        pairs, others = unlabelled.one_pair(*chosen.words[-2:]), {}
    else:
        pairs, others = unlabelled.read_pairs(chosen.pairs, chosen.root), unlabelled.other_columns(chosen.pairs)
    known = ("reference", "distorted", "reference_id", "bytes", "pixels")
    others = {name: values for name, values in others.items() if name not in known}
    images = [
        ImagePair(p.name, p.distorted, p.reference, p.reference_id, {name: values[i] for name, values in others.items()})
        for i, p in enumerate(pairs)
    ]
    return measure_files(images), tuple(others)


def _text(rows: pd.DataFrame, models: Sequence[str], columns: Sequence[str], form: str, width: int | None = None) -> str:
    from harness.results.score_report import formatted

    if form == "json":
        given = [c for c in rows.columns if c not in models]
        records = rows.to_dict(orient="records")
        return o.json_text([{**{c: row[c] for c in given}, "scores": {m: row[m] for m in models}} for row in records])
    shown = list(rows.columns) if form == "csv" else ["name", *columns, *models]
    return formatted(shown, rows[shown].to_numpy(dtype=object).tolist(), form, width)
