"""Scores of several terms: each figure against scipy or a plain count, KVQ's score as its script computes it, bad cards."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from challenge import raw_zip
from miniatures import generator

from harness.cards.challenge import ChallengeCard, Scoring, Term
from harness.cards.loading import find_challenge
from harness.cards.schema import parse_card
from harness.challenges.figures import Figures, Truth, figures, measure, unmet
from harness.challenges.labels import read_truth
from harness.challenges.score import score
from harness.challenges.submission_check import check
from harness.files.atomic import write_text
from harness.runtime.errors import RunError, UsageError
from harness.runtime.findings import errors
from harness.statistics.correlations import numbered

NAMES = [f"r{i // 8}-{i % 8}.png" for i in range(64)]
REFERENCES = [name.partition("-")[0] for name in NAMES]
DRAW = generator("figures")
LABELS = DRAW.normal(50, 12, 64)
SCORES = np.round(LABELS + DRAW.normal(0, 9, 64), 0)
TRUTH = Truth(
    dict(zip(NAMES, map(float, LABELS), strict=True)),
    dict(zip(NAMES, map(float, DRAW.uniform(5, 20, 64)), strict=True)),
    dict.fromkeys(NAMES, 15.0),
    pairs={"chosen": [(NAMES[i], NAMES[63 - i], float(DRAW.random())) for i in range(30)]},
)


HEAD = """
name = 'n'
title = 'N'
pattern = '(?P<r>[a-z])(?P<type>[0-9]).png'
image = '{r}{type}.png'
reference = '{r}'
default_phase = 'p'
"""


def of(*terms: Term, truth: Truth = TRUTH, scores: Any = SCORES) -> Figures:
    return figures(Scoring(terms), scores, truth, NAMES, REFERENCES)


def test_every_figure_is_scipys_or_a_plain_count():
    from scipy import stats

    error = {n: TRUTH.deviations[n] ** 2 / 15 for n in NAMES}
    apart = right = 0
    for a, b in itertools.combinations(range(64), 2):
        if stats.norm.cdf(abs(LABELS[a] - LABELS[b]) / np.sqrt(error[NAMES[a]] + error[NAMES[b]])) >= 0.95:
            apart += 1
            right += (SCORES[a] - SCORES[b]) * (LABELS[a] - LABELS[b]) > 0
    chosen = [(SCORES[NAMES.index(a)] - SCORES[NAMES.index(b)], share) for a, b, share in TRUTH.pairs["chosen"]]
    expected = {
        Term("srcc"): stats.spearmanr(SCORES, LABELS).statistic,
        Term("plcc"): stats.pearsonr(SCORES, LABELS).statistic,
        Term("krcc"): stats.kendalltau(SCORES, LABELS).statistic,
        Term("rmse"): np.sqrt(np.mean((SCORES - LABELS) ** 2)),
        Term("rmse", fit="poly3"): np.sqrt(np.mean((np.polyval(np.polyfit(SCORES, LABELS, 3), SCORES) - LABELS) ** 2)),
        Term("pairs", pairs="different", ties="wrong"): right / apart,
        Term("2afc", pair_list="chosen"): np.mean([s if d > 0 else 1 - s if d < 0 else 0.5 for d, s in chosen]),
    }
    assert 0 < apart < 64 * 63 / 2
    for term, value in expected.items():
        (found,) = of(term).terms.values()
        assert found == pytest.approx(value, abs=1e-12), term


def test_the_main_score_is_the_weighted_sum_and_every_interval_holds_its_figure():
    terms = (Term("srcc", 0.5), Term("rmse", -0.02, fit="logistic4"), Term("pairs", 0.3), Term("krcc", 0.2))
    found = of(*terms)
    assert found.main == pytest.approx(sum(t.weight * v for t, v in zip(terms, found.terms.values(), strict=True)), abs=1e-15)
    for name, value in {"main": found.main, **found.terms}.items():
        low, high = found.ci[name]
        assert low < value < high
    assert min(found.ci["pairs"]) >= 0
    assert max(found.ci["pairs"]) <= 1


def test_what_equal_scores_of_a_pair_count_is_the_cards_choice():
    truth = Truth(TRUTH.scores, pairs={"two": [(NAMES[0], NAMES[1], 1.0), (NAMES[2], NAMES[3], 0.0)]})
    flat = SCORES.copy()
    flat[:4] = 50
    values = {
        ties: of(Term("pairs", pairs="listed", pair_list="two", ties=ties), truth=truth, scores=flat).main
        for ties in ("half", "wrong", "first")
    }
    assert values == {"half": 0.5, "wrong": 0.0, "first": 0.5}
    one = Truth(TRUTH.scores, pairs={"two": [(NAMES[0], NAMES[1], 1.0)]})
    assert of(Term("pairs", pairs="listed", pair_list="two", ties="first"), truth=one, scores=flat).main == 1.0


@pytest.mark.parametrize(
    "term",
    [
        Term("srcc"),
        Term("plcc"),
        Term("krcc"),
        Term("rmse"),
        Term("pairs"),
        Term("2afc", pair_list="chosen"),
        Term("pairs", pairs="different"),
    ],
)
def test_a_figure_without_a_reference_is_that_of_the_other_images(term: Term):
    unit, ids = numbered(REFERENCES)
    (whole,) = measure(Scoring((term,)), SCORES, TRUTH, NAMES, unit, len(ids))
    rest = [i for i in range(64) if unit[i] != 3]
    names = [NAMES[i] for i in rest]
    (left,) = measure(
        Scoring((term,)), SCORES[rest], TRUTH, names, *(lambda u, k: (u, len(k)))(*numbered(REFERENCES[i] for i in rest))
    )
    assert whole.without_each()[3] == pytest.approx(left.value, abs=1e-12)
    ones = np.ones((1, len(ids)))
    assert whole.under(ones)[0] == pytest.approx(whole.value, abs=1e-12)
    ones[0, 3] = 0
    assert whole.under(ones)[0] == pytest.approx(left.value, abs=1e-12)


# -- KVQ 2024 --------------------------------------------------------------------------------------------------------


def kvq(folder: Path) -> tuple[Path, Path, dict[str, float], dict[str, float], dict[str, list[tuple[str, str, int]]]]:
    """A made-up submission to KVQ's test phase, and labels with two lists of pairs."""
    draw = generator("kvq")
    names = [f"video_{i:04d}.mp4" for i in range(854)]
    labels = {name: round(float(draw.uniform(1, 5)), 2) for name in names}
    scores = {name: round(label + float(draw.normal()), 1) for name, label in labels.items()}
    pairs = {
        kind: [
            (a, b, 1 if labels[a] >= labels[b] else 2)
            for a, b in (draw.choice(names, 2, replace=False) for _ in range(200))
        ]
        for kind in ("nonsource", "source")
    }  # fmt: skip
    (folder / "labels").mkdir()
    write_text(folder / "labels" / "truth.csv", "filename,score\n" + "".join(f"{n},{v}\n" for n, v in labels.items()))
    for kind, rows in pairs.items():
        write_text(folder / "labels" / f"pairs-{kind}.csv", "a,b,rank\n" + "".join(f"{a},{b},{r}\n" for a, b, r in rows))
    text = "filename,score\n" + "".join(f"{n},{v}\n" for n, v in reversed(scores.items()))
    return raw_zip(folder / "kvq.zip", [("prediction.csv", text.encode())]), folder / "labels", labels, scores, pairs


def test_kvqs_score_is_what_its_script_computes(tmp_path: Path):
    from scipy import stats

    zipped, place, labels, scores, pairs = kvq(tmp_path)
    scored = score(zipped, place, challenge="kvq2024")
    x, y = [scores[n] for n in labels], list(labels.values())
    accuracy = {k: np.mean([(1 if scores[a] >= scores[b] else 2) == r for a, b, r in rows]) for k, rows in pairs.items()}
    expected = (
        0.45 * stats.spearmanr(y, x)[0]
        + 0.45 * stats.pearsonr(y, x)[0]
        + 0.05 * accuracy["nonsource"]
        + 0.05 * accuracy["source"]
    )
    assert scored.whole.main == pytest.approx(expected, abs=1e-12)
    assert any(scores[a] == scores[b] for rows in pairs.values() for a, b, _ in rows)
    assert list(scored.whole.terms) == ["srcc", "plcc", "acc_non_source", "acc_source"]
    assert "0.45 SROCC" in str(scored)
    assert "0.05 acc_source" in str(scored)


def test_kvqs_correlations_are_signed(tmp_path: Path):
    zipped, place, *_ = kvq(tmp_path)
    right = score(zipped, place).whole
    lines = (line.split(",") for line in "".join(open_text(zipped)).splitlines()[1:])
    turned = raw_zip(
        tmp_path / "t.zip", [("prediction.csv", ("filename,score\n" + "".join(f"{n},{-float(v)}\n" for n, v in lines)).encode())]
    )
    wrong = score(turned, place).whole
    assert wrong.srcc == pytest.approx(-right.srcc, abs=1e-12)
    assert wrong.main < 0


def open_text(path: Path) -> str:
    import zipfile

    return zipfile.ZipFile(path).read("prediction.csv").decode()


def test_a_header_that_is_asked_for_is_missed_and_mended(tmp_path: Path):
    zipped, *_ = kvq(tmp_path)
    text = open_text(zipped)
    assert check(zipped).ok
    for head, kind in (("", "header-missing"), ("name,score\n", "header-spelling"), ("Filename, Score\n", "header-spelling")):
        data = head + text.partition("\n")[2]
        report = check(raw_zip(tmp_path / "x.zip", [("prediction.csv", data.encode())]))
        assert [(f.kind, f.line, f.mechanical) for f in errors(report.findings)] == [(kind, 1, True)]
        assert report.fixed["prediction.csv"].startswith(b"filename,score\nvideo_")


# -- what cannot be ---------------------------------------------------------------------------------------------------


def test_terms_that_cannot_be_computed_from_the_labels_are_all_named(tmp_path: Path):
    zipped, place, *_ = kvq(tmp_path)
    with pytest.raises(UsageError) as refused:
        score(zipped, place / "truth.csv")
    assert "acc_non_source: no list of pairs 'nonsource': give a folder of labels with pairs-nonsource.csv" in str(refused.value)
    assert "acc_source: no list" in str(refused.value)
    bare = Truth(TRUTH.scores, pairs={"chosen": [("a.png", "b.png", 1.0)]})
    reported = unmet(Scoring((Term("pairs", pairs="different"), Term("2afc", pair_list="chosen"))), bare, NAMES)
    assert len(reported) == 3
    assert "needs a column std; 64 of 64 images have none" in reported[0]
    assert "none of the 1 pairs of 'chosen'" in reported[2]


def test_a_list_of_pairs_names_its_bad_lines(tmp_path: Path):
    write_text(tmp_path / "labels.csv", "a.png,1\nb.png,2\n")
    write_text(tmp_path / "pairs-x.csv", "first,second,better\na.png,b.png,2\na.png,a.png,1\na.png,b.png,3\nb.png\n")
    with pytest.raises(UsageError) as refused:
        read_truth(tmp_path)
    assert [line.split(": ", 1)[1][:7] for line in str(refused.value).splitlines()] == ["line 3 ", "line 5 ", "line 4:"]
    write_text(tmp_path / "pairs-x.csv", "a.png,b.png,0.25\nb.png,a.png,1\n")
    assert read_truth(tmp_path)[0].pairs == {"x": [("a.png", "b.png", 0.25), ("b.png", "a.png", 1.0)]}
    write_text(tmp_path / "pairs-x.csv", "a.png,b.png,1\nb.png,a.png,2\n")
    assert read_truth(tmp_path)[0].pairs == {"x": [("a.png", "b.png", 1.0), ("b.png", "a.png", 0.0)]}


def test_a_card_names_all_its_problems_at_once():
    table = tomllib.loads(Path(find_challenge("ntire2022-fr").path).read_text(encoding="utf-8"))
    table["phases"]["validation"] |= {"images": 0, "start": "2027-02-01", "end": "2027-01-01 12:00:00"}
    table["phases"]["test"] |= {"start": "2026-12-01", "end": "soon"}
    table["scoring"]["terms"] = [{"figure": "srcc", "fit": "poly3"}, {"figure": "srcc"}, {"figure": "2afc", "weight": 0}]
    table["ranking"] = {"limits": [{"figure": "operations", "most": 20}]}
    with pytest.raises(UsageError) as refused:
        parse_card(ChallengeCard, table, "x.toml")
    reported = str(refused.value)
    for part in (
        "phases.validation: images = 0: a phase needs images",
        "phases.validation ends (2027-01-01 12:00:00) before it starts (2027-02-01)",
        "phases.test.end = 'soon' should be a date",
        "phases.test starts (2026-12-01) before validation ends",
        "scoring.terms[0]: fit = 'poly3' has no effect on srcc",
        "scoring.key 'SRCC' is used 2 times",
        "scoring.terms[2]: weight = 0",
        "scoring.terms[2]: 2afc needs pair_list",
        "ranking.limits: operations is limited, but no line of the readme gives it",
    ):
        assert part in reported


def test_a_phase_can_name_its_images_in_the_card_or_in_a_file(tmp_path: Path):
    write_text(tmp_path / "n.toml", HEAD + "[phases.p]\nimages = 4\nnames_file = 'names.txt'\n[lines]\nany_decimals = true\n")
    write_text(tmp_path / "names.txt", "a1.png\na2.png\nb1.png\nb2.png\n")
    zipped = raw_zip(tmp_path / "x.zip", [("output.txt", b"a1.png,1\na2.png,2.5\nb1.png,3\n")])
    report = check(zipped, challenge=str(tmp_path / "n.toml"))
    assert [(f.kind, f.what) for f in report.findings] == [("missing", "b2.png has no line")]
    write_text(tmp_path / "names.txt", "a1.png\na1.png\nb1.png\nb2.png\n")
    with pytest.raises(UsageError, match=r"3 different names in 4 lines, n, phase p has 4 images"):
        check(zipped, challenge=str(tmp_path / "n.toml"))
    write_text(tmp_path / "n.toml", HEAD + "[phases.p]\nimages = 2\nnames = ['a1.png', 'a1.png']\n")
    with pytest.raises(UsageError, match=r"phases.p: names: a1.png is listed twice"):
        check(zipped, challenge=str(tmp_path / "n.toml"))


def test_a_submission_above_a_limit_is_refused(tmp_path: Path):
    card = HEAD
    card += "[phases.p]\nimages = 2\nnames = ['a1.png', 'a2.png']\n[lines]\nany_decimals = true\n"
    card += "[[readme]]\nlabel = 'GFLOP'\nfact = 'operations'\n"
    write_text(tmp_path / "n.toml", card + "[[ranking.limits]]\nfigure = 'operations'\nmost = 20.0\n")
    write_text(tmp_path / "l.csv", "a1.png,1\na2.png,2\n")
    for value, kinds in (("19.5", []), ("20.5", ["over-limit"]), ("2e1 GFLOP", ["readme-unit"])):
        zipped = raw_zip(
            tmp_path / "x.zip", [("output.txt", b"a1.png,1\na2.png,2\n"), ("readme.txt", f"GFLOP : {value}\n".encode())]
        )
        assert [f.kind for f in check(zipped, challenge=str(tmp_path / "n.toml")).findings if f.severity == "error"] == kinds
    zipped = raw_zip(tmp_path / "x.zip", [("output.txt", b"a1.png,1\na2.png,2\n"), ("readme.txt", b"GFLOP : 20.5\n")])
    with pytest.raises(RunError, match=r"operations is 20.5 GFLOP per image, the challenge allows 20"):
        score(zipped, tmp_path / "l.csv", challenge=str(tmp_path / "n.toml"))
