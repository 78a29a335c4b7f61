"""A challenge in miniature for tests: all 1,650 names of NTIRE 2022's test phase over tiny images, labels made up.

How strong an image's noise is depends on a hash of its whole name, so that its type id says nothing about it. Nothing here
comes from the challenge but the names.
"""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from miniatures import generator, noisy, still, write

from harness.cards.loading import find_challenge
from harness.challenges import image_names, readme, score_lines, submission_zip

SIDE = 48
CARD = find_challenge("ntire2022-fr")
NAMES = image_names.all_names(CARD, "test")
assert NAMES is not None
FACTS = readme.Facts(runtime=0.12, cpu=False, extra_data=True, description="a method: with a colon")


def strength(name: str) -> float:
    """The noise of an image, in grey levels: 2 to 40, by its name's hash."""
    return float(2 * 20 ** generator("strength", name).random())


def write_tree(root: Path) -> Path:
    """Folders as the challenge's archives have them: the test set whole, and a handful of the validation set."""
    for name in NAMES:
        reference = name[:5]
        picture = root / "NTIRE2022_FR_Testing_Ref" / f"{reference}.bmp"
        if not picture.is_file():
            write(picture, still(reference, SIDE, SIDE))
        write(root / "NTIRE2022_FR_Testing_Dis" / name, noisy(still(reference, SIDE, SIDE), strength(name), name))
    for number in range(3):
        write(root / "NTIRE2022_FR_Valid_Ref" / f"A0{number}99.bmp", still(f"v{number}", SIDE, SIDE))
        write(root / "NTIRE2022_FR_Valid_Dis" / f"A0{number}99_10_00.bmp", still(f"v{number}", SIDE, SIDE) // 2)
    return root


def made_scores(seed: int = 0, noise: float = 1.0) -> dict[str, float]:
    """Scores that fall with the noise of an image, plus noise of their own, six decimals."""
    draw = generator("scores", seed)
    return {name: round(60 - 12 * np.log(strength(name)) + noise * draw.normal(), 6) for name in NAMES}


SCORES = made_scores()


def made_labels(seed: int = 0) -> dict[str, float]:
    """Labels as one might have them: Elo points."""
    draw = generator("labels", seed)
    return {name: 1500 - 120 * float(np.log(strength(name))) + 40 * draw.normal() for name in NAMES}


def output_text(scores: Mapping[str, float]) -> str:
    return score_lines.written(scores, CARD.lines)


def readme_text() -> str:
    return readme.written(FACTS, CARD.readme)


def good(scores: Mapping[str, float] | None = None) -> dict[str, bytes]:
    """The two files of a submission without fault."""
    return {"output.txt": output_text(scores or SCORES).encode(), "readme.txt": readme_text().encode()}


def save(path: Path, files: Mapping[str, bytes]) -> Path:
    path.write_bytes(submission_zip.zipped(files))
    return path


def raw_zip(path: Path, entries: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip of any entries, also of one name twice."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    path.write_bytes(out.getvalue())
    return path


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return entry


SMALL_CARD = """
name = "small"
title = "Small"
pattern = '(?P<r>[a-z])(?P<type>\\d)\\.png'
image = "{r}{type}.png"
reference = "{r}"
default_phase = "final"

[phases.open]
images = 4
names = ["a1.png", "a2.png", "b1.png", "b2.png"]
start = "2027-01-01 08:00:00"
end = "2027-02-01 08:00:00"
submissions_per_day = 3

[phases.final]
images = 6
listed = "{reference}{type}.png"
references = ["c", "d"]
types = ["1", "2", "3"]
start = "2027-02-01 08:00:00"

[lines]
file = "prediction.csv"
header = "filename,score"
any_decimals = true
sorted = false

[scoring]
main_key = "score"

[[scoring.terms]]
figure = "krcc"

[[scoring.terms]]
figure = "rmse"
weight = -0.1

[[scoring.terms]]
figure = "pairs"
pairs = "different"
key = "apart"

[[scoring.terms]]
figure = "2afc"
pair_list = "chosen"
"""
SMALL_NAMES = [f"{r}{i}.png" for r in "ab" for i in (1, 2)] + [f"{r}{i}.png" for r in "cd" for i in (1, 2, 3)]


def write_small(folder: Path, card: str = SMALL_CARD) -> tuple[str, Path]:
    """A challenge of two phases and four kinds of terms: its card and its folder of labels."""
    draw = generator("small bundle")
    (folder / "labels").mkdir(exist_ok=True)
    rows = "".join(f"{name},{i + draw.random()!r},0.5,{12 + i}\n" for i, name in enumerate(SMALL_NAMES))
    (folder / "labels" / "mos.csv").write_text("name,score,std,raters\n" + rows)
    (folder / "labels" / "pairs-chosen.csv").write_text("a1.png,b2.png,0.25\nc1.png,d3.png,0.125\na2.png,b1.png,0.75\n")
    (folder / "small.toml").write_text(card)
    return str(folder / "small.toml"), folder / "labels"
