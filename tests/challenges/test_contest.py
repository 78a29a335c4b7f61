"""The board of many submissions, and the steps from a template to it."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from challenge import CARD, good, made_labels, made_scores, save, write_small

from harness.cards.challenge import Ranking, Scoring, Term
from harness.challenges import contest
from harness.challenges.contest import board, ranked
from harness.challenges.figures import Truth, measure
from harness.challenges.score import score
from harness.challenges.template import new
from harness.files.atomic import write_text
from harness.runtime.errors import RunError, UsageError

pytestmark = pytest.mark.slow  # its tests train, or start commands

LABELS = made_labels()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty submissions, every two a little worse; one again under another name; three that have no score."""
    place = tmp_path_factory.mktemp("contest")
    write_text(place / "labels.csv", "name,score\n" + "".join(f"{name},{label!r}\n" for name, label in LABELS.items()))
    for i in range(20):
        save(place / f"team{i:02d}.zip", good(made_scores(i, noise=0.6 + 0.25 * (i // 2))))
    save(place / "twin.zip", good(made_scores(4, noise=1.1)))
    (place / "cut.zip").write_bytes(b"PK\x03\x04")
    text = good()["output.txt"]
    save(place / "short.zip", good() | {"output.txt": text[: text.rindex(b"A0249_10_75")]})
    save(place / "constant.zip", good() | {"output.txt": re.sub(rb",\d+", b",1", re.sub(rb"\.\d{6}", b".000000", text))})
    return place


@pytest.fixture(scope="module")
def made(folder: Path) -> contest.Board:
    return board(folder, folder / "labels.csv", draws=300)


def test_twenty_submissions_have_scores_intervals_groups_places_and_their_firmness(folder: Path, made: contest.Board):
    assert (made.card.name, made.phase, made.images, made.references, len(made.rows)) == ("ntire2022-fr", "test", 1650, 25, 21)
    for row in (made.rows[0], made.rows[-1]):
        alone = score(folder / f"{row.name}.zip", folder / "labels.csv").whole
        assert row.figures == alone
    mains = [row.figures.main for row in made.rows]
    assert mains == sorted(mains, reverse=True)
    assert [row.best for row in made.rows] == sorted((row.best for row in made.rows), reverse=True)
    assert made.rows[0].best
    assert not made.rows[-1].best
    for row in made.rows:
        assert row.places[0] <= row.place <= row.places[1]
        assert 0 < row.kept < 1
    assert made.rows[-1].kept > 0.4
    assert set(made.refused) == {"cut", "short", "constant"}
    assert made.refused["short"] == "output.txt: A0249_10_75.bmp has no line"
    assert "constant" in made.refused["constant"]
    assert len(made.reported) == 8


def test_equal_submissions_share_a_place_and_its_firmness(made: contest.Board):
    one, twin = (next(row for row in made.rows if row.name == name) for name in ("team04", "twin"))
    assert (one.place, one.kept, one.places) == (twin.place, twin.kept, twin.places)
    places = [row.place for row in made.rows]
    assert places.count(one.place) == 2
    assert one.place + 1 not in places


def test_firmness_is_the_same_again_and_that_of_scoring_the_drawn_images(folder: Path, made: contest.Board):
    from scipy import stats

    from harness.challenges import image_names, submission_check
    from harness.statistics.correlations import numbered
    from harness.statistics.intervals import cluster_draws

    few = [row.name for row in made.rows[:4]]
    scores = {name: submission_check.check(folder / f"{name}.zip").scores for name in few}
    names = sorted(LABELS)
    unit, ids = numbered(image_names.parts_of(CARD, name).reference for name in names)
    drawn = []
    for weights in cluster_draws(len(ids), 300, 0)[:5].astype(int):
        rows = [i for u, times in enumerate(weights) for i in np.flatnonzero(unit == u).tolist() * times]
        y = [LABELS[names[i]] for i in rows]
        mains = []
        for name in few:
            x = [scores[name][names[i]] for i in rows]
            mains.append(abs(stats.spearmanr(x, y).statistic) + abs(stats.pearsonr(x, y).statistic))
        drawn.append(mains)
    measured = {}
    for name in few:
        x = np.array([scores[name][i] for i in names])
        measured[name] = measure(CARD.scoring, x, Truth(LABELS), names, unit, len(ids))
    weights = cluster_draws(len(ids), 300, 0)[:5]
    ours = np.stack([sum(each.term.weight * each.under(weights) for each in measured[n]) for n in few], axis=1)
    np.testing.assert_allclose(ours, drawn, atol=1e-9)


def test_places_of_equals_are_as_the_card_says():
    values = np.array([[3.0, 1.0, 2.0, 2.0], [1.0, 1.0, 1.0, float("nan")]])
    assert ranked(values, Ranking()).tolist() == [[1, 4, 2, 2], [1, 1, 1, 4]]
    assert ranked(values, Ranking(ties="dense")).tolist() == [[1, 3, 2, 2], [1, 1, 1, 2]]
    assert ranked(values, Ranking(ties="mean")).tolist() == [[1, 4, 2.5, 2.5], [2, 2, 2, 4]]
    close = np.array([[0.8004, 0.8001, 0.7994]])
    assert ranked(close, Ranking(decimals=3)).tolist() == [[1, 1, 3]]


def test_mean_rank_counts_each_term_alike_and_a_lower_error_is_better():
    card = dataclasses.replace(
        CARD, scoring=Scoring((Term("srcc", 1.0), Term("rmse", -0.001))), ranking=Ranking(by="mean-rank", ties="mean")
    )
    terms = [np.array([[0.9, 12.0]]), np.array([[0.8, 10.0]]), np.array([[0.7, 15.0]])]
    place, mean = contest._places(card, terms)
    assert mean.tolist() == [[1.5, 1.5, 3]]
    assert place.tolist() == [[1.5, 1.5, 3]]


def test_few_references_give_no_group_and_unknown_ones_no_firmness(tmp_path: Path):
    card, labels = write_small(tmp_path)
    names = ["c1.png", "c2.png", "c3.png", "d1.png", "d2.png", "d3.png"]
    for team, values in (("a", (1, 2, 3, 4, 5, 6)), ("b", (2, 1, 3, 4, 6, 5))):
        text = "filename,score\n" + "".join(f"{n},{v}\n" for n, v in zip(names, values, strict=True))
        save(tmp_path / f"{team}.zip", {"prediction.csv": text.encode()})
    found = board(tmp_path, labels, challenge=card, draws=50)
    assert [row.best for row in found.rows] == [None, None]
    assert all(row.kept is not None for row in found.rows)
    assert "no group of the best: 2 references" in str(found)
    write_text(tmp_path / "small.toml", (tmp_path / "small.toml").read_text().replace('reference = "{r}"', 'reference = ""'))
    found = board(tmp_path, labels, challenge=card)
    assert [(row.kept, row.figures.ci) for row in found.rows] == [(None, {}), (None, {})]
    assert "no intervals, groups or stability of ranks" in str(found)


def test_a_folder_without_submissions_or_with_none_that_can_be_scored_is_refused(tmp_path: Path):
    write_text(tmp_path / "l.csv", "A0000_10_00.bmp,1\n")
    with pytest.raises(UsageError, match="0 zips"):
        board(tmp_path, tmp_path / "l.csv")
    with pytest.raises(UsageError, match="no such folder"):
        board(tmp_path / "x", tmp_path / "l.csv")
    (tmp_path / "x.zip").write_bytes(b"no")
    with pytest.raises(RunError, match="no submission can be scored"):
        board(tmp_path, tmp_path / "l.csv")


# -- from the template to a board ------------------------------------------------------------------------------------


def harness(folder: Path, *words: str) -> Any:
    done = subprocess.run([sys.executable, "-m", "harness", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands() -> list[list[str]]:
    """The five commands of the guide."""
    text = (Path(__file__).parents[2] / "docs" / "guides" / "hold-a-challenge.md").read_text(encoding="utf-8")
    block = text.partition("## Five commands")[2].split("```")[1]
    return [line.partition("#")[0].split() for line in block.splitlines() if line.startswith("harness ")]


def test_the_guides_five_commands_lead_from_a_template_to_a_board(tmp_path: Path):
    lines = commands()
    assert len(lines) == 5
    for words in lines:
        extra = ["--mlflow-uri", "off", "--workers", "1"] if words[1] == "submit" else []
        messages = harness(tmp_path, *words[1:], *extra)
    assert (tmp_path / "contest" / "competition.zip").is_file()
    assert re.search(r"^1 +psnr|^1 +ssim", messages, re.MULTILINE)
    assert "2 submissions, 488 images, 4 references" in messages


def test_a_template_without_a_dataset_overwrites_nothing(tmp_path: Path):
    (written,) = new("mine", tmp_path)
    text = written.read_text(encoding="utf-8")
    assert text.count("#") > 30
    names = [f"{reference}_{kind}.png" for reference in ("kite", "boat", "lamp") for kind in ("01", "02")]
    labels = "".join(f"{name},{i}\n" for i, name in enumerate(names))
    write_text(tmp_path / "labels.csv", labels)
    messages = json.loads(
        harness(tmp_path, "challenge", "bundle", "mine.toml", "--labels", "labels.csv", "--out", "out", "--json")
    )
    assert messages["phases"] == {"test": 6}
    with pytest.raises(UsageError, match=r"mine.toml: exists already"):
        new("mine", tmp_path)
    with pytest.raises(UsageError, match="challenge 'a/b'"):
        new("a/b", tmp_path)
