"""From a model or a run to a zip: the path through the command line on a miniature of the challenge's test set."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from challenge import CARD, NAMES, write_tree
from miniatures import noisy, still, write
from small import write_network, write_table

from harness import models
from harness.cards.loading import find_challenge, find_dataset
from harness.cards.overrides import apply_set
from harness.challenges import submit as submitting
from harness.cli.main import main
from harness.files.atomic import write_text
from harness.models import find_model
from harness.models import weights as weight_files
from harness.results.mlflow_mirror import Tracker

pytestmark = pytest.mark.slow  # its tests train, or start commands

METRICS = '''
import numpy as np


class Distance:
    """Mean absolute difference: lower is better, between 0 and `scale`."""

    higher_is_better = False

    def __init__(self, scale=1.0):
        self.scale = scale

    def score_uint8(self, reference, distorted):
        return self.scale * float(np.abs(reference.astype(float) - distorted).mean()) / 255

    score = score_uint8


class Blind:
    higher_is_better = True

    def score_uint8(self, reference, distorted):
        return 1.0

    score = score_uint8
'''
CARDS = {
    "distance": 'name = "distance"\ntitle = "Mean absolute difference — naïve"\nclass = "own_metrics:Distance"\n'
    'higher_is_better = false\nextra_data = true\n\n[model]\nscale = 1.0\n',
    "blind": 'name = "blind"\ntitle = "Blind"\nclass = "own_metrics:Blind"\nhigher_is_better = true\n',
}  # fmt: skip


class World:
    """The challenge's test set, cards of one's own and a folder of runs."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str] | None = None) -> None:
        self.folder, self.capsys = folder, capsys
        self.root, self.cards, self.runs = folder / "mini", folder / "cards", folder / "runs"

    def call(self, *words: str, status: int = 0, runs: str = "runs") -> tuple[str, str]:
        options = ["--runs", str(self.folder / runs), "--cards", str(self.cards), "--workers", "1"]
        if words[0] in ("submission", "leaderboard"):
            options = options[:4]
        else:
            options += ["--mlflow-uri", "off"]
        with pytest.raises(SystemExit) as left:
            main([*words, *options])
        assert self.capsys is not None
        out, err = self.capsys.readouterr()
        assert int(left.value.code or 0) == status, out + err
        return out, err

    def submit(self, model: str, *words: str, phase: str = "test", status: int = 0, runs: str = "runs") -> dict[str, Any]:
        zipped = self.folder / "x.zip"
        zipped.unlink(missing_ok=True)
        reported = ["--challenge", "ntire2022-fr", "--phase", phase, "--root", str(self.root), "--out", str(zipped), "--json"]
        out, _ = self.call("submit", model, *reported, *words, status=status, runs=runs)
        return {**json.loads(out), "bytes": zipped.read_bytes()}

    def refused(self, model: str, *words: str, phase: str = "test", status: int = 2, runs: str = "runs") -> str:
        reported = [
            "--challenge",
            "ntire2022-fr",
            "--phase",
            phase,
            "--root",
            str(self.root),
            "--out",
            str(self.folder / "no.zip"),
        ]
        _, err = self.call("submit", model, *reported, *words, status=status, runs=runs)
        assert not (self.folder / "no.zip").exists()
        return err


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("challenge"))
    write_tree(world.root)
    write_network(world.cards)
    write_text(world.cards / "own_metrics.py", METRICS)
    for name, text in CARDS.items():
        write_text(world.cards / f"{name}.toml", text)
    return world


@pytest.fixture
def world(made: World, capsys: pytest.CaptureFixture[str]) -> World:
    return World(made.folder, capsys)


def lines_of(data: dict[str, Any]) -> list[str]:
    return text_of(data, "output.txt").splitlines()


def text_of(data: dict[str, Any], name: str) -> str:
    return zipfile.ZipFile(io.BytesIO(data["bytes"])).read(name).decode("ascii")


def recorded(run: str) -> tuple[dict[str, Any], dict[str, float]]:
    with open(Path(run) / "scores.csv", newline="", encoding="utf-8") as stream:
        scores = {row["name"]: float(row["score"]) for row in csv.DictReader(stream)}
    return json.loads((Path(run) / "record.json").read_text(encoding="utf-8")), scores


def test_the_cards_names_are_those_of_the_datasets_and_the_boards_figures_add_up():
    for challenge, phase, dataset, part in (
        ("ntire2022-fr", "test", "pipal-ntire2022", "test"),
        ("ntire2021", "validation", "pipal", "ntire2021-validation"),
    ):
        about = find_challenge(challenge).phases[phase]
        layout = find_dataset(dataset).layout["parts"][part]
        assert (about.dataset, list(about.references), list(about.types)) == (dataset, layout["references"], layout["types"])
        assert about.protocol in find_dataset(dataset).protocols
    assert len(NAMES) == 1650
    assert len(CARD.board) == 8
    for row in CARD.board:
        assert row.main == pytest.approx(row.plcc + row.srcc, abs=0.0021)


def test_psnr_submitted_twice_gives_the_same_bytes_and_passes_the_check(world: World):
    """PSNR submitted twice gives the same bytes and the check finds nothing wrong."""
    first = world.submit("psnr")
    record, scores = recorded(first["run"])
    stamp = (Path(first["run"]) / "scores.csv").stat().st_mtime_ns
    second = world.submit("psnr")
    assert first["bytes"] == second["bytes"]
    assert stamp == (Path(first["run"]) / "scores.csv").stat().st_mtime_ns
    names = zipfile.ZipFile(world.folder / "x.zip").namelist()
    assert names == ["output.txt", "readme.txt"]
    assert lines_of(first) == [f"{name},{scores[name]:.6f}" for name in NAMES]
    assert first["images"] == 1650
    assert first["sha256"] == hashlib.sha256(first["bytes"]).hexdigest()
    assert first["size"] == len(first["bytes"])
    world.call("submission", "check", str(world.folder / "x.zip"))
    assert record["runtime_per_image"] > 0
    readme = text_of(first, "readme.txt").splitlines()
    assert float(readme[0].partition(" : ")[2]) == pytest.approx(record["runtime_per_image"], rel=0.006)
    assert readme[1:3] == ["CPU[1] / GPU[0] : 1", "Extra Data [1] / No Extra Data [0] : 0"]
    assert readme[3].startswith("Other description : PSNR (RGB): Peak signal-to-noise ratio")


def test_a_zip_is_a_function_of_the_record_and_the_card_wherever_they_lie(world: World, tmp_path: Path):
    first = world.submit("psnr")
    shutil.copytree(first["run"], tmp_path / "elsewhere")
    assert world.submit(str(tmp_path / "elsewhere"))["bytes"] == first["bytes"]


def test_a_plain_call_says_size_sha256_and_the_next_step(world: World):
    data = world.submit("psnr")
    reported = ["--challenge", "ntire2022-fr", "--root", str(world.root), "--out", str(world.folder / "y.zip")]
    out, _ = world.call("submit", "psnr", *reported)
    assert f"{data['size']:,} bytes, sha256 {data['sha256']}" in out
    assert "next: upload it at https://codalab.lisn.upsaclay.fr/competitions/1567" in out


def test_a_submission_that_was_cut_off_is_taken_up_and_ends_with_the_same_scores(world: World):
    whole = world.submit("psnr", runs="cut")
    run = Path(whole["run"])
    (run / "record.json").unlink()
    scores = (run / "scores.csv").read_text().splitlines(keepends=True)
    (run / "scores.csv").write_text("".join(scores[:900])[:-5])
    reported = ["--challenge", "ntire2022-fr", "--root", str(world.root), "--out", str(world.folder / "x.zip")]
    _, err = world.call("submit", "psnr", *reported, runs="cut")
    assert "of 1650 scores exist already" in err
    again = {"bytes": (world.folder / "x.zip").read_bytes()}
    assert lines_of(again) == lines_of(whole)
    (run / "record.json").unlink()
    world.call("submit", "psnr", *reported, runs="cut")
    assert recorded(str(run))[0]["runtime_per_image"] > 0


def test_ahiq_tiny_is_submitted_with_weights_twice_with_the_same_bytes(world: World):
    smaller = {"model.vit_depth": "1", "model.cnn_planes": "8", "model.fusion_width": "16"}
    model = models.build(apply_set(find_model("ahiq-tiny"), smaller), None, seed=3)
    weights = world.folder / "tiny.safetensors"
    weight_files.save_state(weights, model.state_dict(), {"trained_on": "pipal"})
    words = ["ahiq-tiny", "--weights", str(weights), "--batch", "66"]
    words += [word for key, value in smaller.items() for word in ("--set", f"{key}={value}")]
    first = world.submit(*words)
    assert len(lines_of(first)) == 1650
    assert "Extra Data [1] / No Extra Data [0] : 0" in text_of(first, "readme.txt")
    world.call("submission", "check", str(world.folder / "x.zip"))
    sheet = world.folder / "sheet.md"
    assert world.submit(*words, "--factsheet", str(sheet), "--team", "The House")["bytes"] == first["bytes"]
    text = sheet.read_text(encoding="utf-8")
    assert f"- Parameters: {sum(p.numel() for p in model.parameters()):,} (" in text
    assert "- Team: The House\n" in text
    assert "GFLOP per image: 36 crops of " in text
    for title in ("Team", "Submission", "Method", "Training", "Test", "Cost", "Environment"):
        assert f"\n## {title}\n" in text
    assert str(world.folder) not in text


def test_an_ensemble_is_submitted_and_its_fact_sheet_counts_its_members(world: World, tmp_path: Path):
    """An ensemble is submitted like any model and its fact sheet names and counts its members."""
    member = 'name = "{0}"\nclass = "{1}"\nhigher_is_better = true\nweight = {2}\nscaling = {{ kind = "raw", parameters = [] }}\n'
    network = member.format("small", "small_network:Small", 0.5) + 'model = { width = 4 }\nprotocol = { crops = "five" }\n'
    psnr = member.format("psnr", "harness.models.psnr:PSNR", 2.0) + "identical = 120.0\n"
    card = world.cards / "both.toml"
    head = 'name = "both"\ntitle = "Both"\nclass = "harness.models.ensemble:Ensemble"\nhigher_is_better = true\n'
    write_text(card, f"{head}[[model.members]]\n{psnr}[[model.members]]\n{network}")
    sheet = tmp_path / "sheet.md"
    first = world.submit(str(card), "--factsheet", str(sheet))
    card.unlink()
    _, scores = recorded(first["run"])
    assert lines_of(first) == [f"{name},{scores[name]:.6f}" for name in NAMES]
    _, alone = recorded(world.submit("psnr")["run"])
    assert len({round(scores[name] - 2 * alone[name], 9) for name in NAMES}) > 1
    assert "Other description : Both; an ensemble of 2: psnr, small\n" in text_of(first, "readme.txt")
    text = sheet.read_text(encoding="utf-8")
    assert "- Ensemble: of 2: psnr, small" in text
    # 3 x 4 filters of 5 x 5 and their biases, two for each of four channels of the norm, and the head.
    assert "- Parameters: 317 " in text


def test_an_ensemble_that_was_built_here_is_submitted_by_its_card(world: World, tmp_path: Path):
    table, card = write_table(tmp_path / "data"), world.cards / "built.toml"
    words = ["psnr", "distance", "--dataset", str(table), "--trials", "2", "--out", str(card)]
    world.call("ensemble", *words)
    data = world.submit(str(card))
    card.unlink()
    assert len(lines_of(data)) == 1650
    assert "an ensemble of " in text_of(data, "readme.txt")
    world.call("submission", "check", str(world.folder / "x.zip"))


def test_a_rehearsal_is_marked_and_a_check_calls_it_incomplete(world: World):
    data = world.submit("psnr", "--limit", "30", runs="rehearsed")
    assert (data["rehearsal"], data["images"]) == (True, 30)
    assert "Other description : rehearsal, 30 of 1,650 images: PSNR (RGB)" in text_of(data, "readme.txt")
    out, _ = world.call("submission", "check", str(world.folder / "x.zip"), status=1)
    assert "the zip: incomplete: a rehearsal, 30 of 1,650 images" in out
    assert "1620 in all" in out
    write_text(world.folder / "l.csv", "A0000_10_00.bmp,1\n")
    _, err = world.call("submission", "score", str(world.folder / "x.zip"), "--labels", str(world.folder / "l.csv"), status=1)
    assert "incomplete: a rehearsal" in err
    out, _ = world.call("leaderboard", "ntire2022-fr", runs="rehearsed")
    assert "rehearsal" in out
    assert "only some images were scored" in world.refused(data["run"])
    again = world.submit(data["run"], "--limit", "30", runs="rehearsed")
    assert again["bytes"] == data["bytes"]
    whole = world.submit("psnr", runs="rehearsed")
    assert (whole["rehearsal"], whole["images"]) == (False, 1650)
    assert "--limit is only for a model's name" in world.refused(whole["run"], "--limit", "30")


COLD = """
import os


class Cold:
    higher_is_better = True

    def score_uint8(self, reference, distorted):
        # The first eight images take a hundred seconds each, all others one.
        calls, seconds = os.environ.get("COLD", "0 0").split()
        os.environ["COLD"] = f"{int(calls) + 1} {float(seconds) + (100 if int(calls) < 8 else 1)}"
        return float(distorted.mean())

    score = score_uint8
"""


@pytest.mark.parametrize("limit", [None, "20"])
def test_the_runtime_in_the_readme_is_a_warm_models(world: World, limit: str | None, monkeypatch: pytest.MonkeyPatch):
    from harness.engine import warm_time

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return float(os.environ["COLD"].split()[1])

    monkeypatch.setenv("COLD", "0 0")
    monkeypatch.setattr(warm_time, "time", Clock)
    write_text(world.cards / "cold_metric.py", COLD)
    card = world.cards / "cold.toml"
    write_text(card, 'name = "cold"\ntitle = "Cold"\nclass = "cold_metric:Cold"\nhigher_is_better = true\n')
    try:
        data = world.submit("cold", *(["--limit", limit] if limit else []), runs=f"cold{limit}")
    finally:
        card.unlink()
    runtime = float(text_of(data, "readme.txt").splitlines()[0].partition(" : ")[2])
    assert runtime == pytest.approx(1.0, abs=0.02)


def test_lower_is_better_scores_are_inverted_and_the_card_fills_the_readme(world: World):
    """Scores where lower is better are inverted, and the readme is filled from the card."""
    data = world.submit("distance", "--description", "two\nlines — naïve “quotes”")
    _, scores = recorded(data["run"])
    assert lines_of(data) == [f"{name},{-scores[name]:.6f}" for name in NAMES]
    assert "Extra Data [1] / No Extra Data [0] : 1" in text_of(data, "readme.txt")
    assert 'Other description : two lines - naive "quotes"\n' in text_of(data, "readme.txt")
    assert world.submit("distance")["bytes"] != data["bytes"]
    assert "Mean absolute difference - naive" in text_of(world.submit("distance"), "readme.txt")


def test_scores_of_a_tiny_scale_are_enlarged_so_that_they_stay_different(world: World):
    data = world.submit("distance", "--set", "model.scale=1e-9")
    _, scores = recorded(data["run"])
    written = [float(line.partition(",")[2]) for line in lines_of(data)]
    assert len(set(written)) >= 0.99 * len(set(scores.values()))
    order = sorted(NAMES, key=lambda name: -scores[name])
    assert [written[NAMES.index(name)] for name in order] == sorted(written)


def test_a_model_that_gives_all_images_one_score_makes_no_submission(world: World):
    err = world.refused("blind", status=1)
    assert "all 1,650 scores are 1" in err
    assert "was not written" in err


def test_a_trained_run_of_another_dataset_scores_the_challenge_with_its_weights(world: World):
    err = world.refused("small")
    assert "has to be trained first" in err
    table = write_table(world.folder / "data")
    words = ["--protocol", "parts", "--set", "recipe.epochs=1", "--set", "protocol.crops=random1", "--json"]
    out, _ = world.call("run", "small", "--dataset", str(table), *words)
    run = json.loads(out)[0]["run"]
    by_run = world.submit(run)
    by_name = world.submit("small", "--set", "protocol.crops=random1")
    assert by_run["bytes"] != b""
    assert lines_of(by_run) == lines_of(by_name)
    record, _ = recorded(by_run["run"])
    assert (record["dataset"], record["trained_on"]) == ("pipal-ntire2022", ["table"])
    assert "Extra Data [1] / No Extra Data [0] : 1" in text_of(by_run, "readme.txt")
    assert "no settings" not in world.refused(run, "--set", "model.width=8")
    assert "is only for a model's name" in world.refused(run, "--seed", "3")


def test_records_that_cannot_be_submitted_are_refused_with_the_reason(world: World, tmp_path: Path):
    words = ["--dataset", "pipal-ntire2022", "--protocol", "test", "--root", str(world.root), "--json"]
    out, _ = world.call("run", "psnr", *words, "--limit", "20")
    assert "only some images were scored" in world.refused(json.loads(out)[0]["run"])
    write_text(tmp_path / "s.csv", "name,score\n" + "".join(f"{name},{i}\n" for i, name in enumerate(NAMES)))
    out, _ = world.call("run", *words, "--scores", str(tmp_path / "s.csv"), "--name", "theirs")
    assert "no runtime per image was measured (its scores came from a file)" in world.refused(json.loads(out)[0]["run"])
    assert "did you mean 'test'" in world.refused("psnr", phase="tset")
    assert "no model called 'psnrr'" in world.refused("psnrr")


def test_a_folder_that_lacks_images_of_the_phase_makes_no_submission(world: World):
    assert "3 images, phase validation has 1,650" in world.refused("psnr", phase="validation", status=1)


def test_warnings_are_reported_and_change_the_status_only_when_asked(world: World, tmp_path: Path):
    root = tmp_path / "twins"
    shutil.copytree(world.root, root)
    for name in NAMES[6:25]:
        shutil.copy(root / "NTIRE2022_FR_Testing_Dis" / NAMES[5], root / "NTIRE2022_FR_Testing_Dis" / name)
    twins = World(world.folder, world.capsys)
    twins.root = root
    data = twins.submit("psnr", runs="twins")
    assert [(w["kind"], w["line"]) for w in data["warnings"]] == [("ties", 6)]
    twins.submit("psnr", "--strict", status=1, runs="twins")


def test_a_next_years_challenge_is_one_card_with_its_own_names_and_format(world: World, tmp_path: Path):
    rows = ["distorted,reference,score,reference_id"]
    for reference in ("kite", "boat"):
        write(tmp_path / f"{reference}.png", still(reference))
        for kind in range(5):
            write(tmp_path / f"{reference}-{kind}.png", noisy(still(reference), 4 + 3 * kind, reference, kind))
            rows.append(f"{reference}-{kind}.png,{reference}.png,{9 - kind},{reference}")
    write_text(tmp_path / "pairs.csv", "\n".join(rows) + "\n")
    card = f"""
name = "next"
title = "Next year's"
pattern = '(?P<word>[a-z]+)-(?P<type>\\d)\\.png'
image = "{{word}}-{{type}}.png"
reference = "{{word}}"
default_phase = "final"

[phases.final]
dataset = '{tmp_path / "pairs.csv"}'
protocol = "full"
images = 10

[lines]
file = "answer.txt"
separator = " "
decimals = 3
extension = false
"""
    write_text(world.cards / "next.toml", card)
    reported = ["--challenge", "next", "--out", str(tmp_path / "n.zip")]
    world.call("submit", "psnr", *reported)
    archive = zipfile.ZipFile(tmp_path / "n.zip")
    assert archive.namelist() == ["answer.txt"]
    text = archive.read("answer.txt").decode()
    assert [line.split(" ")[0] for line in text.splitlines()] == [f"{r}-{k}" for r in ("boat", "kite") for k in range(5)]
    assert all(len(line.rpartition(".")[2]) == 3 for line in text.splitlines())
    world.call("submission", "check", str(tmp_path / "n.zip"))
    out, _ = world.call("submission", "check", str(tmp_path / "n.zip"), "--json")
    assert json.loads(out)["challenge"] == "next"
    out, _ = world.call("submission", "score", str(tmp_path / "n.zip"), "--labels", str(labels_of(tmp_path)))
    assert "n = 10" in out
    write_text(world.cards / "next.toml", card.replace("separator", "seperator"))
    _, err = world.call("submit", "psnr", *reported, status=2)
    assert "unknown key 'lines.seperator'; did you mean 'separator'" in err
    write_text(world.cards / "next.toml", card.replace("images = 10", "images = 10\nlisted = 'a'"))
    _, err = world.call("submit", "psnr", *reported, status=2)
    assert "phases.final: images = 10, but it lists 0 references x 0 types" in err
    (world.cards / "next.toml").unlink()


def labels_of(folder: Path) -> Path:
    rows = list(csv.DictReader((folder / "pairs.csv").read_text().splitlines()))
    write_text(folder / "labels.csv", "name,score\n" + "".join(f"{r['distorted']},{r['score']}\n" for r in rows))
    return folder / "labels.csv"


def test_challenges_are_listed_and_shown_like_other_cards(world: World, capsys: pytest.CaptureFixture[str]):
    for words in (["list", "challenges", "--json"], ["show", "ntire2022-fr", "--json"]):
        with pytest.raises(SystemExit):
            main(words)
        shown = json.loads(capsys.readouterr().out)
        if words[0] == "list":
            assert [(row["name"], row["images"]) for row in shown] == [
                ("kvq2024", [420, 854]),
                ("ntire2021", [1000]),
                ("ntire2022-fr", [1650, 1650]),
            ]
        else:
            assert [(t["figure"], t["fit"], t["absolute"]) for t in shown["scoring"]["terms"]] == [
                ("plcc", "raw", True),
                ("srcc", "raw", True),
            ]
            assert "PLCC is taken of the raw scores" in shown["inferred"]


def test_a_submission_is_attached_to_its_mlflow_run_and_nothing_is_when_that_is_off(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    attached: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Tracker, "attach", lambda self, *what: attached.append((self.uri, *what)))
    data = world.submit("psnr")
    ((uri, name, dataset, files, tags),) = attached
    assert (uri, name, dataset) == ("off", "psnr on pipal-ntire2022", "pipal-ntire2022")
    assert [str(file) for file in files] == [data["file"]]
    assert tags == {"submission.ntire2022-fr.test": data["sha256"]}


def test_what_is_read_back_must_be_what_was_written(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(submitting, "sha256_file", lambda path: "0" * 64)
    reported = ["--challenge", "ntire2022-fr", "--root", str(world.root), "--out", str(world.folder / "x.zip")]
    _, err = world.call("submit", "psnr", *reported, status=1)
    assert "the file read back differs from the file written" in err
