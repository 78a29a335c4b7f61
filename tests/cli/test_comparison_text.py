"""The text output of `harness agreement` and `harness compare`: every figure of their JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau, pearsonr, spearmanr

from harness.results.tables import number, probability

pytestmark = pytest.mark.slow

REFERENCES, KINDS, LEVELS = 8, ("blur", "noise"), 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of 64 images, and the scores of two models, of which `near` agrees better."""
    folder = tmp_path_factory.mktemp("files")
    draw = np.random.default_rng(0)
    names = [f"r{r}_{kind}_{level}.png" for r in range(REFERENCES) for kind in KINDS for level in range(1, LEVELS + 1)]
    people = np.array([5.0 - int(name[-5]) + draw.normal(0, 0.3) for name in names])
    rows = [f"{name},{score!r},{name[:2]}" for name, score in zip(names, people.tolist(), strict=True)]
    (folder / "labels.csv").write_text("\n".join(["name,score,reference_id", *rows]) + "\n")
    for model, noise in (("near", 0.4), ("far", 1.5)):
        scores = (people + draw.normal(0, noise, len(people))).tolist()
        lines = [f"{name},{score!r}" for name, score in zip(names, scores, strict=True)]
        (folder / f"{model}.csv").write_text("\n".join(["name,score", *lines]) + "\n")
    return folder


def _said(place: Path, *words: str) -> str:
    command = [sys.executable, "-m", "harness", *words]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=True).stdout


def _column(path: Path) -> list[float]:
    return [float(line.split(",")[1]) for line in path.read_text().splitlines()[1:]]


@pytest.mark.slow
def test_agreement_is_a_line_for_each_figure(place: Path):
    lines = dict(line.split(maxsplit=1) for line in _said(place, "agreement", "near.csv", "labels.csv").splitlines())
    scores, people = _column(place / "near.csv"), _column(place / "labels.csv")
    expected = {"SRCC": spearmanr, "KRCC": kendalltau}
    assert lines["n"] == "64 of 8 references"
    for name, figure in expected.items():
        assert lines[name].startswith(number(float(figure(scores, people).statistic)) + " ["), name
    figures = json.loads(_said(place, "agreement", "near.csv", "labels.csv", "--json"))
    low, high = figures["ci"]["srcc"]
    assert lines["SRCC"] == f"{number(figures['srcc'])} [{number(low)}, {number(high)}]"
    assert lines["main"].startswith(number(figures["plcc"] + figures["srcc"]))
    assert lines["fit"] == "logistic4"
    assert lines["RMSE"] == f"{figures['rmse']:.3f}".replace("0.", ".", 1)


@pytest.mark.slow
def test_agreement_says_what_is_not_defined(place: Path, tmp_path: Path):
    rows = (place / "labels.csv").read_text().splitlines()[1:]
    (tmp_path / "constant.csv").write_text("name,score\n" + "".join(f"{row.split(',')[0]},1\n" for row in rows))
    text = _said(place, "agreement", str(tmp_path / "constant.csv"), "labels.csv")
    assert "SRCC         not defined" in text
    assert "KRCC         not defined" in text


@pytest.mark.slow
def test_scores_of_which_lower_is_better_agree_the_other_way_round(place: Path):
    text = _said(place, "agreement", "near.csv", "labels.csv", "--lower-is-better", "scores")
    plcc = float(pearsonr(_column(place / "near.csv"), _column(place / "labels.csv")).statistic)
    assert f"PLCC         {number(-plcc)} [" in text


@pytest.fixture(scope="module")
def compared(place: Path) -> tuple[list[str], dict[str, Any]]:
    words = ("compare", "near.csv", "far.csv", "--labels", "labels.csv", "--quiet")
    return _said(place, *words).splitlines(), json.loads(_said(place, *words, "--json"))


@pytest.mark.slow
def test_compare_says_first_what_is_compared(compared: tuple[list[str], dict[str, Any]]):
    lines, figures = compared
    assert lines[0] == f"{figures['a']} against {figures['b']}: 64 images of 8 references"
    assert lines[2].split() == [figures["a"], figures["b"], "difference", "95", "%", "p", "method"]
    assert set(lines[3]) == {"-", " "}


def test_compare_has_a_row_for_each_figure_with_its_p_value(compared: tuple[list[str], dict[str, Any]]):
    lines, figures = compared
    names = {"srcc": "SRCC", "plcc": "PLCC", "krcc": "KRCC", "main": "main"}
    for key, name in names.items():
        one = figures["differences"][key]
        row = next(line for line in lines[4:] if line.startswith(f"{name} "))
        interval = f"[{number(one['ci'][0])}, {number(one['ci'][1])}]"
        shown = [number(one["a"]), number(one["b"]), number(one["difference"]), interval, probability(one["p_value"])]
        assert [cell.strip() for cell in row.split("  ") if cell.strip()][1:6] == shown, row
        assert one["difference"] == pytest.approx(one["a"] - one["b"])
        assert one["difference"] > 0


def test_compare_shows_the_images_on_which_the_two_disagree(compared: tuple[list[str], dict[str, Any]]):
    lines, figures = compared
    start = lines.index("images on which they disagree most (ranks as shares, 1 is best):")
    assert lines[start + 1].split() == ["image", figures["a"], figures["b"], "labels"]
    shown = [line.split() for line in lines[start + 3 : start + 13]]
    expected = [
        [one["name"], *(f"{one[rank]:.2f}" for rank in ("rank_a", "rank_b", "rank_label"))]
        for one in figures["disagreements"][:10]
    ]
    assert shown == expected


def test_compare_ends_with_how_many_references_would_show_a_difference(compared: tuple[list[str], dict[str, Any]]):
    lines, figures = compared
    planned = [f"{one['references']} references for {one['difference']:g}" for one in figures["planning"]]
    assert lines[-1] == f"to show a true difference in SRCC with 80 % power: {', '.join(planned)}"
