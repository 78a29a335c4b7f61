"""The challenge's scoring against scipy, the leak audit with planted leaks, and the board with scored submissions."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from challenge import CARD, NAMES, SCORES, good, made_labels, made_scores, save, strength, write_tree
from miniatures import generator

from harness.cards.challenge import ChallengeCard
from harness.cards.loading import find_challenge
from harness.cards.schema import ModelCard, parse_card
from harness.challenges import factsheet, image_names, standings
from harness.challenges.figures import Figures, Truth
from harness.challenges.figures import figures as term_figures
from harness.challenges.labels import read_truth
from harness.challenges.leak_audit import audit, explained_by_type
from harness.challenges.score import score, score_folder
from harness.challenges.submission_check import check
from harness.cli.main import main
from harness.files.atomic import write_text
from harness.runtime.errors import RunError, UsageError

LABELS = made_labels()


def write_labels(path: Path, labels: Mapping[str, float] = LABELS, header: str = "name,score\n") -> Path:
    write_text(path, header + "".join(f"{name},{label!r}\n" for name, label in labels.items()))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    save(folder / "x.zip", good())
    write_labels(folder / "labels.csv")
    return folder


def figures(card: ChallengeCard, x: np.ndarray, y: np.ndarray, references: list[str]) -> Figures:
    names = [str(i) for i in range(len(x))]
    return term_figures(card.scoring, x, Truth(dict(zip(names, y, strict=True))), names, references)


def columns(scores: Mapping[str, float] = SCORES) -> tuple[np.ndarray, np.ndarray]:
    return np.array([scores[n] for n in NAMES]), np.array([LABELS[n] for n in NAMES])


@pytest.mark.slow
def test_the_score_of_2022_is_scipys_spearman_and_raw_pearson(files: Path):
    from scipy import stats

    scored = score(files / "x.zip", files / "labels.csv")
    x, y = columns()
    assert scored.whole.srcc == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert scored.whole.plcc == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert scored.whole.main == pytest.approx(scored.whole.srcc + scored.whole.plcc, abs=1e-15)
    assert scored.whole.n == 1650
    for name in ("main", "srcc", "plcc"):
        low, high = scored.whole.ci[name]
        assert low < getattr(scored.whole, name) < high
        assert high - low < 0.1
    assert list(scored.classes) == ["10"]
    assert scored.classes["10"] == scored.whole


def test_the_score_of_2021_takes_plcc_after_numpys_third_order_polynomial(tmp_path: Path):
    from scipy import stats

    card = find_challenge("ntire2021")
    listed = image_names.all_names(card, "validation")
    assert listed is not None
    truth = {name: float(np.log(strength(name))) for name in listed}
    scores = {name: round(float(np.exp(-value) + 0.05 * generator("2021", name).normal()), 6) for name, value in truth.items()}
    labels = {name: 1500 - 100 * value for name, value in truth.items()}
    scored = score(save(tmp_path / "x.zip", good(scores)), write_labels(tmp_path / "l.csv", labels))
    assert (scored.report.card.name, scored.report.phase) == ("ntire2021", "validation")
    x, y = np.array([scores[n] for n in listed]), np.array([labels[n] for n in listed])
    fitted = np.polyval(np.polyfit(x, y, 3), x)
    assert scored.whole.plcc == pytest.approx(stats.pearsonr(fitted, y).statistic, abs=1e-9)
    assert abs(scored.whole.plcc - stats.pearsonr(x, y).statistic) > 0.01
    assert scored.whole.srcc == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_classes_are_scored_each_on_its_own_images():
    from scipy import stats

    card = find_challenge("ntire2022-fr")
    text = Path(card.path).read_text(encoding="utf-8").replace("(?P<kind>10)_(?P<type>\\d", "10_(?P<kind>\\d)(?P<type>")
    text = text.replace("_{kind}_", "_10_{kind}")
    parsed = parse_card(ChallengeCard, tomllib.loads(text), "x")
    kinds = {name: image_names.parts_of(parsed, name).kind for name in NAMES}
    assert set(kinds.values()) == set("01234567")
    chosen = [name for name in NAMES if kinds[name] == "3"]
    x, y = np.array([SCORES[n] for n in chosen]), np.array([LABELS[n] for n in chosen])
    own = figures(parsed, x, y, [n[:5] for n in chosen])
    assert (own.n, own.srcc) == (len(chosen), pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12))


def test_absolute_values_are_taken_where_the_card_says_so_and_a_wrong_sign_is_noted(tmp_path: Path):
    x, y = columns()
    ids = [name[:5] for name in NAMES]
    right, wrong = figures(CARD, x, y, ids), figures(CARD, -x, y, ids)
    assert wrong.main == pytest.approx(right.main, abs=1e-12)
    assert wrong.ci["main"] == pytest.approx(right.ci["main"], abs=1e-9)
    assert "SRCC is negative" in wrong.note
    assert not right.note
    terms = tuple(dataclasses.replace(term, absolute=False) for term in CARD.scoring.terms)
    signed = dataclasses.replace(CARD, scoring=dataclasses.replace(CARD.scoring, terms=terms))
    assert figures(signed, -x, y, ids).main == pytest.approx(-right.main, abs=1e-12)
    constant = figures(CARD, x, np.zeros_like(y), ids)
    assert (constant.main, constant.srcc, constant.n) == (None, None, 1650)
    assert "constant" in constant.note


def test_labels_come_with_or_without_a_header_in_one_file_or_one_for_each_reference(tmp_path: Path):
    write_labels(tmp_path / "with.csv")
    write_labels(tmp_path / "without.txt", header="")
    (tmp_path / "each").mkdir()
    for reference in {name[:5] for name in NAMES}:
        rows = [f"{name},{label!r}" for name, label in LABELS.items() if name.startswith(reference)]
        write_text(tmp_path / "each" / f"{reference}.txt", "\n".join(rows))
    for place in ("with.csv", "without.txt", "each"):
        assert read_truth(tmp_path / place)[0].scores == LABELS
    write_text(tmp_path / "each" / "again.txt", "A0000_10_00.bmp,1\nA0000_10_01.bmp,x\n")
    with pytest.raises(UsageError, match=r"names labelled twice: A0000_10_00.bmp(.|\n)*") as refused:
        read_truth(tmp_path / "each")
    assert "line 2" in str(refused.value)


def test_a_defective_submission_and_missing_labels_give_no_score(tmp_path: Path, files: Path):
    defective = good() | {"output.txt": good()["output.txt"].replace(b"A0000_10_00", b"A9000_10_00")}
    with pytest.raises(RunError, match="a server would refuse it"):
        score(save(tmp_path / "x.zip", defective), files / "labels.csv")
    few = {name: label for name, label in LABELS.items() if name != NAMES[7]}
    with pytest.raises(UsageError, match=rf"no labels for 1 of 1,650 images: {NAMES[7]}"):
        score(files / "x.zip", write_labels(tmp_path / "few.csv", few))


def organisers(folder: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    words = ["submission", "score", "--input", str(folder / "input"), "--output", str(folder / "output")]
    done = subprocess.run([sys.executable, "-m", "harness", *words], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.slow
def test_a_server_calls_it_with_input_and_output_folders_and_reads_scores_txt(tmp_path: Path, files: Path):
    for name, data in good().items():
        (tmp_path / "input" / "res").mkdir(parents=True, exist_ok=True)
        (tmp_path / "input" / "res" / name).write_bytes(data)
    (tmp_path / "input" / "ref").mkdir()
    organisers_labels = write_labels(tmp_path / "input" / "ref" / "truth.txt", header="")
    (tmp_path / "input" / "res" / "metadata").write_text("the server's own")
    organisers(tmp_path)
    text = (tmp_path / "output" / "scores.txt").read_text()
    read = dict(line.split(": ") for line in text.splitlines())
    whole = score(files / "x.zip", organisers_labels).whole
    assert {k: float(v) for k, v in read.items()} == {"MainScore": whole.main, "SRCC": whole.srcc, "PLCC": whole.plcc}

    (tmp_path / "output" / "scores.txt").unlink()
    path = tmp_path / "input" / "res" / "output.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert "line ends are CRLF" in organisers(tmp_path, status=1).stderr
    assert not (tmp_path / "output" / "scores.txt").exists()
    path.unlink()
    with pytest.raises(RunError, match=r"no output.txt: the zip must hold output.txt, readme.txt at its root"):
        score_folder(tmp_path / "input", tmp_path / "output")
    path.write_bytes(b"\n" * (2 << 20))
    with pytest.raises(RunError, match="larger than"):
        score_folder(tmp_path / "input", tmp_path / "output")
    with pytest.raises(UsageError, match="expected the folders ref"):
        score_folder(tmp_path, tmp_path / "output")


# -- the leak audit --------------------------------------------------------------------------------------------------


def shifted(scores: Mapping[str, float], kind: str, by: float, references: int = 25) -> dict[str, float]:
    some = sorted({name[:5] for name in NAMES})[:references]
    return {n: round(s + by * (n[-6:-4] == kind and n[:5] in some), 6) for n, s in scores.items()}


def flagged(submitted: Mapping[str, float], own: Mapping[str, float]) -> list[str]:
    result = audit(CARD, [submitted[n] for n in NAMES], [own[n] for n in NAMES], NAMES)
    return sorted(shift.type for shift in result.flagged)


UNIT = {name: round(score / 60, 6) for name, score in SCORES.items()}


def test_a_tenth_added_to_one_id_is_flagged_and_nothing_else():
    leaky = shifted(UNIT, "46", 0.1)
    result = audit(CARD, [leaky[n] for n in NAMES], [UNIT[n] for n in NAMES], NAMES)
    (shift,) = result.flagged
    assert (shift.type, shift.references) == ("46", 25)
    assert shift.mean == pytest.approx(0.1, abs=1e-5)
    assert shift.spread < 1e-5
    assert shift.p_value <= 0.01
    assert (result.slope, result.constant) == (pytest.approx(1, abs=1e-5), pytest.approx(0, abs=1e-5))


@pytest.mark.slow
@pytest.mark.parametrize("by", [0.1, -0.1, 0.005])
def test_a_leak_is_found_on_any_scale_and_under_a_models_own_noise(by: float):
    noise = generator("again").normal(0, 0.02 * abs(by), len(UNIT))
    again = {name: score + e for (name, score), e in zip(UNIT.items(), noise, strict=True)}
    leaky = {name: 300 * score - 7 for name, score in shifted(again, "46", by).items()}
    assert flagged(leaky, UNIT) == ["46"]


@pytest.mark.slow
def test_several_leaky_ids_are_all_flagged():
    leaky = UNIT
    for kind in ("04", "46", "75"):
        leaky = shifted(leaky, kind, 0.1)
    assert flagged(leaky, UNIT) == ["04", "46", "75"]
    many = [f"{i:02d}" for i in range(4, 13)]
    for kind in many:
        leaky = shifted(leaky, kind, 0.3)
    assert flagged(leaky, UNIT) == sorted({*many, "46", "75"})


def test_honest_submissions_are_not_flagged():
    assert flagged(UNIT, UNIT) == []
    assert flagged({n: round(-3 * s + 2, 6) for n, s in UNIT.items()}, UNIT) == []
    assert flagged({n: round(s, 3) for n, s in UNIT.items()}, UNIT) == []
    for seed in range(3):
        noise = generator("honest", seed).normal(0, 0.05, len(UNIT))
        noisy = {n: s + e for (n, s), e in zip(UNIT.items(), noise, strict=True)}
        assert flagged(noisy, UNIT) == []
        assert flagged({n: s / 60 for n, s in made_scores(seed + 1).items()}, UNIT) == []


def test_a_shift_of_an_id_that_differs_between_references_is_no_leak():
    """A shift of an id that differs from reference to reference is quality and no leak."""
    by = {name[:5]: 0.1 * (1 + 0.5 * generator("reference", name[:5]).normal()) for name in NAMES}
    other = {n: s + (by[n[:5]] if n[-6:-4] == "46" else 0) for n, s in UNIT.items()}
    assert flagged(other, UNIT) == []
    assert flagged(shifted(UNIT, "46", 0.1, references=12), UNIT) == []


def test_variance_explained_by_the_type_is_information_and_never_a_warning(tmp_path: Path):
    by_type = {n: float(n[-6:-4]) + 0.01 * generator("t", n).normal() for n in NAMES}
    assert explained_by_type(CARD, by_type) == pytest.approx(1, abs=1e-3)
    assert explained_by_type(CARD, SCORES) < 0.1
    report = check(save(tmp_path / "x.zip", good(by_type)))
    assert [(f.severity, f.kind) for f in report.findings] == [("information", "types")]
    assert "alone proves nothing" in report.findings[0].what


# -- the command line: audit, inversion, board -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the challenge's tree and PSNR submitted."""
    folder = tmp_path_factory.mktemp("board")
    write_tree(folder / "mini")
    words = ["submit", "psnr", "--challenge", "ntire2022-fr", "--root", str(folder / "mini"), "--out", str(folder / "psnr.zip")]
    with pytest.raises(SystemExit) as left:
        main([*words, "--runs", str(folder / "runs"), "--mlflow-uri", "off", "--quiet", "--json"])
    assert not left.value.code
    return folder


def messages(world: Path, capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> Any:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([*words, "--runs", str(world / "runs"), "--json"])
    out, err = capsys.readouterr()
    assert int(left.value.code or 0) == status, err
    return json.loads(out)


def submitted(world: Path) -> dict[str, float]:
    return dict(check(world / "psnr.zip").scores)


@pytest.mark.slow
def test_check_against_the_run_flags_a_tenth_on_one_id_and_passes_the_honest_zip(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = next((world / "runs" / "pipal-ntire2022" / "psnr").iterdir())
    honest = messages(world, capsys, "submission", "check", str(world / "psnr.zip"), "--against", str(run))
    assert not [f for f in honest["findings"] if f["severity"] != "information"]
    assert not any(shift["flagged"] for shift in honest["leak"]["shifts"])
    leaky = save(tmp_path / "leaky.zip", good(shifted(submitted(world), "46", 0.1)))
    for against in (str(run), "psnr"):
        report = messages(world, capsys, "submission", "check", str(leaky), "--against", against)
        (leak,) = [f for f in report["findings"] if f["severity"] == "warning"]
        assert (leak["kind"], leak["line"], leak["count"]) == ("leak", NAMES.index("A0000_10_46.bmp") + 1, 25)
        assert "type id 46: shifted by +0.1 against" in leak["what"]
        assert report["ok"]
    messages(world, capsys, "submission", "check", str(leaky), "--against", str(run), "--strict", status=1)


@pytest.mark.slow
def test_inverted_scores_are_a_warning_against_a_run_and_against_psnr(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Inverted scores are a warning against a run and against PSNR of the images."""
    turned = save(tmp_path / "turned.zip", good({name: -score for name, score in submitted(world).items()}))
    for option in (["--against", "psnr"], ["--root", str(world / "mini")]):
        (finding,) = [
            f for f in messages(world, capsys, "submission", "check", str(turned), *option)["findings"] if f["kind"] == "inverted"
        ]
        assert (finding["severity"], "SRCC with psnr is -1.000" in finding["what"]) == ("warning", True)
        right = messages(world, capsys, "submission", "check", str(world / "psnr.zip"), *option)
        assert not [f for f in right["findings"] if f["kind"] == "inverted"]


def test_a_run_without_these_images_cannot_be_audited_against(world: Path, tmp_path: Path):
    write_text(tmp_path / "other.csv", "name,score\na.bmp,1\nb.bmp,2\n")
    with pytest.raises(UsageError, match="it has 0 of the 1,650 images"):
        check(world / "psnr.zip", against=str(tmp_path / "other.csv"))


@pytest.mark.slow
def test_the_board_shows_what_was_reported_next_to_what_was_measured(
    world: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = messages(world, capsys, "leaderboard", "ntire2022-fr")
    assert [row["name"] for row in rows if row["reported"]][:2] == ["AHIQ (ensemble)", "Netease OPDAI"]
    assert len([row for row in rows if row["reported"]]) == 8
    assert [(row["name"], row["measured"], row["status"]) for row in rows if not row["reported"]] == [
        ("psnr", None, "not scored here")
    ]
    whole = messages(world, capsys, "submission", "score", str(world / "psnr.zip"), "--labels", str(files / "labels.csv"))
    words = ["submission", "score", str(files / "x.zip"), "--labels", str(files / "labels.csv"), "--name", "theirs"]
    messages(world, capsys, *words)
    rows = messages(world, capsys, "leaderboard", "ntire2022-fr")
    own = {row["name"]: row["measured"] for row in rows if row["measured"]}
    assert set(own) == {"psnr", "theirs"}
    assert {k: own["psnr"][k] for k in ("main", "srcc", "plcc", "n")} == {k: whole[k] for k in ("main", "srcc", "plcc", "n")}
    assert all(row["reported"] is None for row in rows if row["measured"])
    heights = [(row["reported"] or row["measured"])["main"] for row in rows]
    assert heights == sorted(heights, reverse=True)
    shown = standings.show("ntire2022-fr", world / "runs")
    psnr = next(line for line in shown.splitlines() if line.startswith("psnr "))
    assert f"{own['psnr']['main']:.3f}"[:5] in psnr
    assert "main reported" in shown
    assert "main measured" in shown
    (file,) = (world / "runs" / "submissions" / "ntire2022-fr").glob(f"test-{whole['sha256'][:16]}.json")
    entry = json.loads(file.read_text())
    assert (entry["model"], entry["scored"]["main"]) == ("psnr", whole["main"])


def test_a_challenge_whose_board_has_no_main_scores_is_ordered_by_the_sum(world: Path, capsys: pytest.CaptureFixture[str]):
    rows = [row for row in messages(world, capsys, "leaderboard", "ntire2021") if row["phase"] == "validation"]
    assert [row["name"] for row in rows][:3] == ["RADN ensemble", "PieAPP", "DISTS"]
    assert rows[0]["reported"] == {"main": None, "srcc": 0.8655, "plcc": 0.8666}


# -- the fact sheet's operations -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_operations_are_counted_with_those_that_torchs_counter_misses():
    import torch
    from torch import nn
    from torchvision.ops import DeformConv2d

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3, padding=1)
            self.offsets = nn.Conv2d(8, 18, 3, padding=1)
            self.deform = DeformConv2d(8, 5, 3, padding=1)
            self.linear = nn.Linear(8, 24)

        def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
            features = self.first(distorted)
            moved = self.deform(features, self.offsets(features))
            tokens = self.linear(features.flatten(2).transpose(1, 2))
            query, key, value = (t.reshape(1, -1, 2, 4).transpose(1, 2) for t in tokens.chunk(3, -1))
            mixed = nn.functional.scaled_dot_product_attention(query, key, value)
            bags = nn.functional.embedding_bag(
                torch.zeros(7, 4, dtype=torch.long), features[0, :, :, 0].T, per_sample_weights=torch.ones(7, 4), mode="sum"
            )
            return moved.mean() + mixed.mean() + bags.mean()

    size = 16 * 12
    expected = 2 * size * (27 * 8 + 72 * 18 + 72 * 5 + 8 * 24) + 2 * 2 * 2 * size * size * 4 + 2 * 28 * 8
    assert factsheet._flop(Net(), 16, 12) == expected


def test_members_of_an_ensemble_are_named_in_the_fact_sheet():
    assert factsheet._ensemble(ModelCard("e", "E", "x:X", True)) == "none, a single model"
    assert factsheet._ensemble(ModelCard("e", "E", "x:X", True, model={"members": ["psnr", "ssim"]})) == "of 2: psnr, ssim"
