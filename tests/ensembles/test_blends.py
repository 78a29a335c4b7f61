"""Ensembles without Ray: figures, scalings, blends, chains of candidates, cards, and how a model of models is scored."""

from __future__ import annotations

import functools
import json
import tomllib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import picture, write_network, write_table

from harness.cards.schema import Cropping, ModelCard, parse_card
from harness.engine.scorer import Scorer, pairs_of
from harness.ensembles import blends, card, objective, weight_candidates, weight_search
from harness.ensembles.assess import out_of_fold
from harness.models import load_model, score_scaling
from harness.models.ensemble import Ensemble
from harness.runtime.errors import UsageError
from harness.statistics.correlations import midranks, pearson, spearman

KINDS = score_scaling.KINDS
numbers = st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0, 1e6]), min_size=3, max_size=30)


def members(seed: int = 0, n: int = 120) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Three members whose errors are independent, on unlike scales: scores (3, n), labels (n,), references of ten images."""
    draw = np.random.default_rng(seed)
    labels = draw.normal(size=n)
    noisy = labels + draw.normal(0, [[0.5], [0.6], [1.5]], (3, n))
    return np.stack([noisy[0], np.exp(noisy[1]), 1000 * noisy[2] ** 3]), labels, [f"r{i // 10}" for i in range(n)]


# Figures


@pytest.mark.slow
@given(st.lists(numbers, min_size=1, max_size=4).filter(lambda rows: len({len(r) for r in rows}) == 1))
def test_ranks_of_many_rows_are_the_mid_ranks_of_each(rows: list[list[float]]):
    values = np.array(rows)
    assert objective.ranks(values).tolist() == [midranks(row).tolist() for row in values]


@given(numbers)
def test_the_objective_is_the_sum_of_the_figures_of_statistics(row: list[float]):
    values, labels = np.array([row]), np.arange(len(row)) ** 1.5
    expected = spearman(values[0], labels) + pearson(values[0], labels)
    found = objective.objective_values("main", values, labels)[0]
    assert found == pytest.approx(expected) if np.isfinite(expected) else found == -np.inf


# Scalings


@pytest.mark.parametrize("kind", KINDS)
def test_a_scaling_never_falls_and_survives_its_card(kind: str):
    scores, labels, _ = members()
    for row in scores:
        fitted = score_scaling.fit(kind, row, labels)
        assert fitted is not None
        wide = np.linspace(row.min() - 5, row.max() + 5, 500)
        assert (np.diff(fitted(wide)) >= 0).all()
        again = score_scaling.of_table(tomllib.loads(card.toml({"s": fitted.table()}))["s"], "a card")
        assert again == fitted
        assert again(wide).tolist() == fitted(wide).tolist()


def test_scalings_are_what_they_are_called():
    scores, labels, _ = members()
    z = score_scaling.fit("z", scores[0], labels)
    assert z is not None
    assert (z(scores[0]).mean(), z(scores[0]).std()) == (pytest.approx(0, abs=1e-12), pytest.approx(1))
    few = np.array([3.0, 1.0, 1.0, 2.0])
    ecdf = score_scaling.fit("ecdf", few, few)
    assert ecdf is not None
    assert ecdf(few).tolist() == [0.875, 0.25, 0.25, 0.625]
    logistic = score_scaling.fit("logistic", scores[1], labels)
    assert logistic is not None
    assert pearson(logistic(scores[1]), labels) > pearson(scores[1], labels)
    assert score_scaling.fit("z", np.ones(5), np.arange(5.0)) is None


@pytest.mark.parametrize(
    "table", [{"kind": "zz"}, {"kind": "z", "parameters": [1.0]}, {"kind": "z", "parameters": [1.0, 0.0]}, {"kind": "logistic"},
              {"kind": "ecdf", "parameters": [1, 2, 3]}, {"kind": "raw", "parameters": ["x"]}],
)  # fmt: skip
def test_a_damaged_scaling_is_refused_with_its_place(table: dict):
    with pytest.raises(UsageError, match=r"best\.toml"):
        score_scaling.of_table(table, "best.toml")


# Blends that need no search


def test_least_squares_has_no_negative_weight_and_leaves_a_useless_member_out():
    scores, labels, _ = members()
    misleading = -labels + np.random.default_rng(5).normal(0, 0.3, len(labels))
    blend = blends.least_squares(blends.Fits(np.vstack([scores, misleading[None]]), labels), [0, 1, 2, 3])
    assert all(w > 0 for w in blend.weights)
    alone = [pearson(s, labels) for s in scores]
    assert pearson(blend(np.vstack([scores, misleading[None]])), labels) > max(alone)


def test_greedy_selection_is_never_worse_than_its_best_member_when_fitted():
    """Greedy selection is never worse than its best member on what it was fitted to."""
    for seed in range(3):
        scores, labels, _ = members(seed)
        fitted = [score_scaling.fit("logistic", row, labels) for row in scores]
        best = max(pearson(f(row), labels) + spearman(f(row), labels) for f, row in zip(fitted, scores, strict=True) if f)
        blended = blends.greedy(blends.Fits(scores, labels), [0, 1, 2], "main")(scores)
        assert pearson(blended, labels) + spearman(blended, labels) >= best - 1e-12


def test_a_calibrated_blend_is_in_the_labels_units_and_ranks_as_before():
    scores, labels, _ = members()
    blend = blends.Blend((0, 1), (score_scaling.Scaling("raw"), score_scaling.Scaling("raw")), (2.0, 3.0))
    calibrated = blend.calibrated(scores, 7 + 3 * labels)
    assert calibrated(scores).mean() == pytest.approx((7 + 3 * labels).mean())
    assert spearman(calibrated(scores), labels) == spearman(blend(scores), labels)


# Candidates and chains


@given(st.integers(1, 5000))
def test_a_plan_judges_exactly_as_many_candidates_as_were_asked_for(trials: int):
    assert weight_candidates.planned(trials).total == trials


def walked(chain: weight_candidates.Chain) -> weight_candidates.Chain:
    while not chain.done:
        chain.advance()
    return chain


@functools.cache
def samples_of(seed: int) -> list[weight_candidates.Sample]:
    scores, labels, references = members()
    samples = [weight_candidates.sample(scores, labels, [0, 1, 2], KINDS, "main")]
    for fold in weight_candidates.folds(references, seed):
        rows = np.setdiff1d(np.arange(len(labels)), fold)
        samples.append(weight_candidates.sample(scores[:, rows], labels[rows], [0, 1, 2], KINDS, "main"))
    return samples


def chain_of(number: int = 0, seed: int = 0) -> weight_candidates.Chain:
    return weight_candidates.Chain(seed, number, weight_candidates.planned(200), samples_of(0), "main")


@pytest.mark.slow
def test_a_chain_is_a_function_of_the_seed_wherever_it_is_cut_off():
    whole = walked(chain_of(1))
    first = chain_of(1)
    first.advance()
    second = chain_of(1)
    second.take_up(weight_candidates.ChainState(**json.loads(json.dumps(asdict(first.state())))))
    assert walked(second).state() == whole.state()
    assert walked(chain_of(1, seed=1)).state() != whole.state()
    assert walked(chain_of(2)).state() != whole.state()


def test_a_judged_candidate_is_the_blend_that_it_becomes():
    chain = walked(chain_of())
    scores, labels, _ = members()
    blend = weight_candidates.as_blend(chain.best[0], chain.samples[0].columns)
    assert objective.objective_values("main", blend(scores)[None], labels)[0] == pytest.approx(chain.figures[0], abs=1e-12)
    assert max(map(max, chain.trace)) == chain.figures[0]


def test_the_first_chain_is_at_least_as_good_as_all_that_needs_no_search():
    chain = walked(chain_of())
    scores, labels, _ = members()
    for blend in chain.samples[0].simple.values():
        assert chain.figures[0] >= objective.objective_values("main", blend(scores)[None], labels)[0] - 1e-12


def test_the_search_is_never_below_least_squares_nor_powell():
    """What the search finds is never below least squares over all scalings nor Powell's method."""
    columns, labels, simple = samples_of(0)[0]
    every = blends.nonnegative(columns.values, labels) @ columns.values
    closed = objective.objective_values("plcc", every[None], labels)[0]
    scores, _, _ = members()
    assert objective.objective_values("plcc", simple["least-squares"](scores)[None], labels)[0] == pytest.approx(closed, abs=1e-9)
    better = weight_candidates.powell(simple["least-squares"], columns, labels, "main")
    figures = objective.objective_values("main", np.stack([simple["least-squares"](scores), better(scores)]), labels)
    assert figures[1] >= figures[0]
    for trials in (1, 200):
        chain = walked(weight_candidates.Chain(0, 0, weight_candidates.planned(trials), samples_of(0), "main"))
        assert chain.figures[0] >= figures[1] - 1e-12


@pytest.mark.slow
def test_on_every_resampling_some_chain_starts_from_powell():
    samples, plan = samples_of(0), weight_candidates.planned(200)
    firsts = [weight_candidates.Chain(0, number, plan, samples, "main") for number in range(len(plan.sizes))]
    for chain in firsts:
        chain.advance()
    for place, (columns, labels, simple) in enumerate(samples):
        better = weight_candidates.shares_of(weight_candidates.powell(simple["least-squares"], columns, labels, "main"), columns)
        assert better is not None
        reached = weight_candidates.judge(better[None], columns, labels, "main")[0]
        assert max(chain.figures[place] for chain in firsts) >= reached - 1e-12


def test_a_member_under_several_scalings_survives_its_card():
    simple = samples_of(0)[0].simple
    found = [s for s in simple["least-squares"].scalings if s.kind == "sum"]
    assert found
    scores, _, _ = members()
    for scaling in found:
        again = score_scaling.of_table(tomllib.loads(card.toml({"scaling": scaling.table()}))["scaling"], "here")
        assert again == scaling
        total = sum(weight * part(scores[0]) for part, weight in score_scaling.weighted(scaling))
        np.testing.assert_allclose(again(scores[0]), total)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "sum", "parameters": [1.0]}, "needs scaling.parts"),
        ({"kind": "sum", "parameters": [1.0, 2.0], "parts": [{"kind": "raw"}]}, "one weight of at least 0"),
        ({"kind": "sum", "parameters": [-1.0], "parts": [{"kind": "raw"}]}, "one weight of at least 0"),
        ({"kind": "sum", "parameters": [1.0], "parts": [{"kind": "sum"}]}, "cannot be part of a sum"),
        ({"kind": "sum", "parameters": ["a"], "parts": [{"kind": "raw"}]}, "should be numbers"),
    ],
)
def test_a_damaged_sum_of_scalings_is_refused_with_its_place(table: dict, message: str):
    with pytest.raises(UsageError, match=f"here: .*{message}"):
        score_scaling.of_table(table, "here")


def test_a_member_with_several_croppings_takes_part_with_one_of_them():
    scores, labels, _ = members()
    columns = blends.columns(blends.Fits(scores, labels), [0, 1, 1], ("z", "ecdf"))
    batch = weight_candidates.first(0, 0, 500, columns)
    batch = weight_candidates.varied(0, 0, 1, 500, columns, batch[0])
    for row in range(500):
        blend = weight_candidates.as_blend(batch[row], columns)
        assert not {1, 2} <= set(blend.sources)
        assert blend.sources
        assert sum(batch[row]) == pytest.approx(1)


def test_folds_hold_out_whole_references_each_once():
    references = [f"r{i % 7}" for i in range(70)]
    held_out = weight_candidates.folds(references, 0)
    assert sorted(int(i) for fold in held_out for i in fold) == list(range(70))
    assert len(held_out) == 5
    for fold in held_out:
        inside = {references[i] for i in fold}
        assert not inside & {references[i] for i in range(70) if i not in fold}
    assert weight_candidates.folds(["r"] * 5, 0) == []


@pytest.mark.slow
def test_an_images_own_label_takes_no_part_in_its_out_of_fold_score():
    scores, labels, references = members()
    held_out = weight_candidates.folds(references, 0)

    def estimated(people: np.ndarray) -> np.ndarray:
        everything = np.arange(len(people))
        outside = [np.setdiff1d(everything, fold) for fold in held_out]
        samples = [weight_candidates.sample(scores[:, rows], people[rows], [0, 1, 2], KINDS, "main") for rows in outside]
        chain = walked(weight_candidates.Chain(0, 0, weight_candidates.Plan(((40, 40),)), samples, "main"))
        found = [weight_candidates.as_blend(best, s.columns) for best, s in zip(chain.best, samples, strict=True)]
        return out_of_fold(found, held_out, scores).values

    changed = labels.copy()
    changed[held_out[2]] = np.random.default_rng(9).permutation(changed[held_out[2]]) + 100
    before, after = estimated(labels), estimated(changed)
    assert before[held_out[2]].tolist() == after[held_out[2]].tolist()
    assert before[held_out[0]].tolist() != after[held_out[0]].tolist()


# Cards


finite = st.floats(allow_nan=False, allow_infinity=False)
plain = st.one_of(st.booleans(), st.integers(-(2**53), 2**53), finite, st.text(), st.lists(finite, max_size=40))
keys = st.text(min_size=1, max_size=8)


def nested(inner: st.SearchStrategy) -> st.SearchStrategy:
    filled = inner.filter(bool)
    return st.dictionaries(keys, st.one_of(plain, filled, st.lists(filled, min_size=1, max_size=3)), max_size=4)


tables = st.recursive(st.dictionaries(keys, plain, max_size=4), nested, max_leaves=8)


@given(tables)
def test_what_is_written_as_toml_is_read_back_as_it_was(table: dict):
    assert tomllib.loads(card.toml(table)) == table


def ensemble_of(*tables: dict, **more: object) -> Ensemble:
    return Ensemble(list(tables), **more)


RAW = {"kind": "raw", "parameters": []}
PSNR = {
    "name": "psnr",
    "class": "harness.models.psnr:PSNR",
    "higher_is_better": True,
    "weight": 2.0,
    "scaling": RAW,
    "identical": 120.0,
}
FILE = {"name": "file", "higher_is_better": False, "weight": 3.0, "scaling": {"kind": "z", "parameters": [-2.0, 0.5]}}


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ({**PSNR, "wieght": 1}, "unknown keys wieght"),
        ({k: v for k, v in PSNR.items() if k != "weight"}, "missing keys weight"),
        ({**PSNR, "version": 99}, "make the ensemble again"),
        ({**PSNR, "model": {"colour": "red"}}, "'red' is not one of 'rgb', 'luma'"),
    ],
)
def test_a_members_table_that_cannot_be_followed_is_refused(member: dict, message: str):
    with pytest.raises(UsageError, match=message):
        ensemble_of(member)
    with pytest.raises(UsageError, match="members with the same name"):
        ensemble_of(PSNR, PSNR)


def test_an_ensemble_adds_its_members_scaled_scores_turned_round(tmp_path: Path):
    model = ensemble_of(PSNR, FILE, intercept=1.0)
    # The file's scores are lower-is-better: -5 -> 5 -> (5 + 2) / .5 = 14.
    assert model.combine(np.array([[30.0], [-5.0]])).tolist() == [1 + 2 * 30 + 3 * 14]
    (tmp_path / "scores.csv").write_text("name,score\na.png,-5\n", encoding="utf-8")
    model.load_scores("file/scores", tmp_path / "scores.csv")
    assert model.members[1].known(["a.png"]) == [-5.0]
    with pytest.raises(UsageError, match=r"none for 1 of these images: b\.png"):
        model.members[1].known(["a.png", "b.png"])


def test_each_member_is_scored_under_its_own_cropping_as_if_alone(tmp_path: Path):
    from harness.datasets.table import read_csv

    table = read_csv(write_table(tmp_path / "data", references=2, levels=2))
    cards = write_network(tmp_path / "cards")
    network = {
        "name": "small", "class": "small_network:Small", "higher_is_better": True, "weight": 0.5, "scaling": RAW,
        "model": {"width": 4}, "protocol": {"crops": "five", "crop_size": 0},
    }  # fmt: skip
    text = card.toml(
        {"name": "both", "title": "Both", "class": card.CLASS, "higher_is_better": True, "model": {"members": [PSNR, network]}}
    )
    (cards / "both.toml").write_text(text, encoding="utf-8")
    both = load_model("both", cards=[cards], seed=3)
    pairs = pairs_of(table)

    def scored(model: object, crops: str, identical: float | None = None) -> dict[str, float]:
        scorer = Scorer(model, Cropping(crops), identical, batch=3)
        return {r.name: r.score for chunk in scorer.score(scorer.chunks(pairs)) for r in chunk}

    alone = scored(both.members[0].model, "whole", 120.0), scored(both.members[1].model, "five")
    together = scored(both, "whole")
    assert together == {name: 2.0 * alone[0][name] + 0.5 * alone[1][name] for name in together}
    assert len(set(together.values())) == len(pairs)


def test_identical_images_have_the_members_ceiling(tmp_path: Path):
    from harness.engine.scorer import score_pair

    model = ensemble_of({**PSNR, "weight": 1.0})
    same = picture(0)
    assert score_pair(model, same, same) == 120.0


def test_only_settings_that_exist_and_no_paths_are_part_of_a_cards_key(tmp_path: Path):
    from harness.results.key import card_facts

    table = {"name": "e", "title": "E", "class": card.CLASS, "higher_is_better": True, "model": {"members": [PSNR]}}
    parsed = parse_card(ModelCard, {**table, "weights": [{"name": "psnr/file", "sources": ["beside:a/b"]}]}, "e.toml")
    other = parse_card(ModelCard, {**table, "trained_on": ["x"], "trained_split": "y"}, "elsewhere/e.toml")
    assert card_facts(parsed, trained=False) == card_facts(other, trained=False)
    heavier = {**table, "model": {"members": [{**PSNR, "weight": 2.5}]}}
    changed = parse_card(ModelCard, heavier, "e.toml")
    assert card_facts(parsed, trained=False) != card_facts(changed, trained=False)
    assert "class" not in card_facts(parsed, trained=False)["model"]["members"][0]


def test_a_chain_whose_kept_state_is_damaged_begins_again_and_the_others_go_on(tmp_path: Path):
    plan = weight_candidates.planned(1000, chains=5)
    (tmp_path / weight_search.CHAINS).mkdir()
    whole = weight_candidates.ChainState(2, [[0.5, 0.5]], [-float("inf")], [[0.25]])
    kinds = ("", '{"step": 2', '{"step": 2}', json.dumps(asdict(whole)).replace("2,", '"two",', 1), json.dumps(asdict(whole)))
    for number, text in enumerate(kinds):
        (tmp_path / weight_search.CHAINS / f"{number}.json").write_text(text, encoding="utf-8")
    assert weight_search._kept(tmp_path, plan) == {4: whole}
