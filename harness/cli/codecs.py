"""`harness codecs`: compares codecs by Bjontegaard's rate difference (BD rate) from a table of scores; `compare --by`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import click

from harness.cli import options as o
from harness.cli.options import Argument, Option, echo, options

if TYPE_CHECKING:
    from harness.engine.codecs import CodecComparison
    from harness.statistics.bd_rate import MeanOver

_log = logging.getLogger(__package__)


class _Table(NamedTuple):
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    notes: Sequence[str]


_DROPS = ("left out", "need less", "images", "95 %", "from the best")
"""Columns that are left out of a narrow terminal, the first one first."""
_RATE = "Take rates from this column; default: bits per pixel from the files' bytes and pixels."
_BY = {"default": "codec", "show_default": True, "metavar": "COLUMN", "help": "Take the codec's name from this column."}
_SETTING = "Take the codec's setting from this column; default: quality, qp, crf, ..."
_IMAGE = "Take the image's name from this column; default: reference_id, image or reference."
_METRICS = "Compare by these columns of scores; default: those with a model's name."
_LOWER = "Lower values of this metric are better (for metrics without a card); repeatable."
_METHOD = {"type": click.Choice(["akima", "pchip"]), "default": "akima", "show_default": True}
_FORM = {"type": click.Choice(["table", "csv", "markdown", "latex"]), "default": "table", "show_default": True}


@dataclass(frozen=True)
class CodecsOptions(o.TableOutput):
    """Options of `harness codecs`."""

    scores: Annotated[str, Argument(metavar="SCORES.csv")]
    anchor: Annotated[str, Option(required=True, metavar="CODEC", help="Compare the other codecs with this one.")]
    rate: Annotated[str | None, Option(metavar="COLUMN", help=_RATE)]
    by: Annotated[str, Option("--codec", **_BY)]
    setting: Annotated[str | None, Option(metavar="COLUMN", help=_SETTING)]
    image: Annotated[str | None, Option(metavar="COLUMN", help=_IMAGE)]
    metrics: Annotated[tuple[str, ...], Option(help=_METRICS, **o.METRICS)]
    lower: Annotated[tuple[str, ...], Option("--lower-is-better", metavar="METRIC", help=_LOWER)]
    method: Annotated[Literal["akima", "pchip"], Option(help="Interpolate the curves by this method.", **_METHOD)]
    inner: Annotated[bool, Option(help="Use the images that all codecs have.")]
    report: Annotated[str | None, Option(metavar="FILE.html", help="Write a page with the curves.")]
    form: Annotated[str, Option("--format", help="Print the tables in this format.", **_FORM)]
    cards: o.Cards


@click.command("codecs")
@options(CodecsOptions)
def codecs_(chosen: CodecsOptions) -> None:
    """Compare codecs by Bjontegaard's rate difference, from a table of `harness score --out`.

    A negative difference means that the codec needs less rate than the anchor for the same quality. Nothing is extrapolated.
    """
    from harness.engine import codecs
    from harness.results import score_report

    table = codecs.read_score_table(
        chosen.scores,
        by=chosen.by,
        rate=chosen.rate,
        setting=chosen.setting,
        image=chosen.image,
        metrics=chosen.metrics,
        lower=chosen.lower,
        cards=chosen.cards,
        anchor=chosen.anchor,
        inner=chosen.inner,
    )
    found = codecs.compare_codecs(table, chosen.anchor, chosen.method)
    tables = _tables(found)
    if chosen.report:
        from harness.results import plots

        drawn = {
            metric: plots.rate_curves({c: [(x, y) for _, x, y in images] for c, images in by_codec.items()}, table.rate, metric)
            for metric, by_codec in codecs.curves(found).items()
        }
        by_image = [
            [r.metric, r.codec, i.image, _percent(i.percent), f"{i.overlap:.0%}" if i.percent is not None else "", i.reason]
            for r in found.results
            for i in r.images
        ]
        heading = ["metric", "codec", "image", "rate", "overlap of the curves", "left out because"]
        shown = [
            one._replace(rows=[["" if v is None else str(v) for v in row] for row in one.rows])._asdict()
            for one in [*tables, _Table("By image", heading, by_image, [])]
        ]
        title = f"{', '.join(table.codecs)}: rate against {chosen.anchor}"
        score_report.write_codec_page(chosen.report, title, shown, drawn, o.own_command())
        _log.info(f"report written to {chosen.report}")
    if chosen.as_json:
        echo(o.json_text(found.json()))
        return
    width = o.table_width(chosen.wide)
    for number, (caption, header, rows, notes) in enumerate(tables):
        text = score_report.formatted(header, rows, chosen.form, width, _DROPS)
        if chosen.form != "csv":
            text = "\n".join([*([""] if number else []), caption, "", text, *([""] if notes else []), *notes])
        echo(text)


def _tables(found: CodecComparison) -> list[_Table]:
    rows: list[list[object]] = []
    notes = []
    for r in found.results:
        counts = [f"{r.rate.n} of {len(r.images)}", f"{r.gaining} of {r.rate.n}", len(r.left_out)]
        rows.append([r.metric, r.codec, _percent(r.rate.mean), _interval(r.rate, "{:+.2f}"), *counts])
        # A line for each reason for which images are left out of the mean.
        for reason, count in Counter(image.reason.partition(":")[0] for image in r.left_out).items():
            images = [f"{i.image} ({i.reason})" for i in r.left_out if i.reason.partition(":")[0] == reason]
            shown = "; ".join(images[:5]) + (f"; and {count - 5} more" if count > 5 else "")
            notes.append(f"{r.metric}, {r.codec}: left out of the mean: {shown}")
    turned = [m.name for m in found.table.metrics if not m.higher_is_better]
    notes += [f"lower is better, with the sign changed for the curves: {', '.join(turned)}"] if turned else []
    name = {"akima": "Akima", "pchip": "PCHIP"}[found.method]
    caption = f"Bjontegaard's rate difference from {found.anchor} ({found.table.rate}, {name}); negative: needs less rate"
    tables = [_Table(caption, ["metric", "codec", "rate", "95 %", "images", "need less", "left out"], rows, notes)]
    at = [
        [r.metric, r.codec, s.setting, *_difference(s.quality), _percent(s.rate_percent.mean), s.quality.n]
        for r in found.results
        for s in r.at_settings
    ]
    if at:
        setting = found.table.setting or "setting"
        text = f"Differences from {found.anchor} at equal {setting}, paired by image"
        tables.append(_Table(text, ["metric", "codec", setting, "difference", "95 %", "rate", "images"], at, []))
    return tables


def _percent(value: float | None) -> str:
    return "not defined" if value is None else f"{value:+.2f} %"


def _difference(mean: MeanOver) -> list[str]:
    return ["" if mean.mean is None else f"{mean.mean:+.4f}", _interval(mean, "{:+.4f}")]


def _interval(mean: MeanOver, form: str) -> str:
    return "" if mean.ci is None else f"[{form.format(mean.ci[0])}, {form.format(mean.ci[1])}]"


def compare_by(path: str, by: str, how: Mapping[str, Any], as_json: bool, width: int | None) -> None:
    """`harness compare TABLE --by COLUMN`: the column's values ranked by every metric, paired by image."""
    from harness.engine import codecs
    from harness.results.score_report import formatted
    from harness.results.tables import probability
    from harness.statistics.best_group import FEWEST_REFERENCES

    rankings = codecs.rank(codecs.read_score_table(path, by=by, rates=False, **how))
    if as_json:
        echo(o.json_text([asdict(ranking) for ranking in rankings]))
        return
    for number, ranking in enumerate(rankings):
        rows: list[list[object]] = []
        for p in ranking.places:
            best = "best group" if p.best and ranking.images >= FEWEST_REFERENCES else ""
            away = ["", ""] if p.difference is None else _difference(p.difference)
            rows.append([p.name, f"{p.mean:.4f}", *away, probability(p.p_adjusted), best])
        polarity = "higher" if ranking.higher_is_better else "lower"
        echo(
            ("\n" if number else "")
            + f"{ranking.metric} ({polarity} is better): {ranking.images} images, paired; {ranking.cells} rows of each {by}\n"
        )
        echo(formatted([by, "mean", "from the best", "95 %", "p", ""], rows, "table", width, _DROPS))
    if rankings and rankings[0].images < FEWEST_REFERENCES:
        echo(f"\n{rankings[0].images} images: a group of the best needs at least {FEWEST_REFERENCES} images")
