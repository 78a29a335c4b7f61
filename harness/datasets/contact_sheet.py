"""`harness data show`: an image of a reference and its distorted images with labels, to check pairing and direction by eye."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from harness.datasets import Dataset
from harness.datasets.table import has_images
from harness.files.atomic import atomic
from harness.imaging import decode
from harness.runtime.errors import UsageError, near

_CELL = 176
_MARGIN = 8
_LINE = 13
_COLUMNS = 6
_INK, _PAPER, _FRAME = (20, 20, 20), (250, 250, 250), (0, 90, 180)


def contact_sheet(data: Dataset, out: str | Path, reference: str | None = None, limit: int = 35) -> Path:
    """Write a PNG of one reference (its id; default: the first) and of its distorted images, best first; returns its path.

    Of more than `limit` images it shows `limit`, spread evenly over the scores. Raises UsageError for an unknown reference
    and for images that cannot be read.
    """
    if not has_images(data.table):
        raise UsageError(f"{data.name}: the table has labels without images, so there is no image to show")
    ids = list(dict.fromkeys(data.table["reference_id"]))
    if reference is None:
        labelled = data.table["reference_id"][data.table["score"].notna()]
        reference = str(labelled.iloc[0]) if len(labelled) else str(ids[0])
    if reference not in ids:
        raise UsageError(f"{data.name} has no reference {reference!r}{near(reference, ids)} ({len(ids)} references)")
    rows = data.table[data.table["reference_id"] == reference]
    shown = rows.sort_values(["score", "name"], ascending=[not data.higher_is_better, True])
    if len(shown) > limit:
        shown = shown.iloc[np.unique(np.linspace(0, len(rows) - 1, limit).round().astype(int))]
    cells = [(str(rows["reference"].iloc[0]), ["reference", reference])]
    columns = [shown[column] for column in ("distorted", "name", "score", "distortion", "level")]
    for path, name, score, kind, level in zip(*columns, strict=True):
        label = "label withheld" if math.isnan(score) else f"{score:.4g}"
        what = kind + ("" if math.isnan(level) else f" {level:g}")
        cells.append((str(path), [label + (f"  {what}" if what else ""), str(name)]))
    direction = "higher" if data.higher_is_better else "lower"
    count = f"{len(shown)} of {len(rows)} images" if len(shown) < len(rows) else f"{len(rows)} images"
    title = f"{data.name}, reference {reference}: {count}, best first by {data.card.label} ({direction} is better)"
    image = _draw(title, cells)
    memory = io.BytesIO()
    image.save(memory, "PNG")
    with atomic(out) as stream:
        stream.write(memory.getvalue())
    return Path(out)


def _draw(title: str, cells: list[tuple[str, list[str]]]) -> Image.Image:
    thumbnails = []
    for path, _ in cells:
        image = Image.fromarray(decode.read(path))
        scale = _CELL / max(image.size)
        # Nearest neighbour: a smoothing enlargement would look like the distortion blur.
        how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
        thumbnails.append(image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), how))
    columns = min(_COLUMNS, len(cells))
    tallest = max(thumbnail.height for thumbnail in thumbnails)
    height = tallest + 2 * _LINE + _MARGIN
    top = _LINE + 2 * _MARGIN
    width = max(columns * (_CELL + _MARGIN) + _MARGIN, 760)
    sheet = Image.new("RGB", (width, top + -(-len(cells) // columns) * height + _MARGIN), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    pen.text((_MARGIN, _MARGIN), _latin(title), _INK, font)
    for place, (thumbnail, (_, caption)) in enumerate(zip(thumbnails, cells, strict=True)):
        x = _MARGIN + place % columns * (_CELL + _MARGIN)
        y = top + place // columns * height
        sheet.paste(thumbnail, (x, y))
        if place == 0:
            pen.rectangle((x - 2, y - 2, x + thumbnail.width + 1, y + thumbnail.height + 1), outline=_FRAME, width=2)
        for line, text in enumerate(map(_latin, caption)):
            # Shortened in the middle to a cell's width: file names differ at their ends.
            words, kept = text, len(text)
            while font.getlength(words) > _CELL and kept > 2:
                kept -= 1
                words = text[: kept - kept // 2] + ".." + text[len(text) - kept // 2 :]
            pen.text((x, y + tallest + 1 + line * _LINE), words, _INK, font)
    return sheet


def _latin(words: str) -> str:
    return words.encode("latin-1", "replace").decode("latin-1")
