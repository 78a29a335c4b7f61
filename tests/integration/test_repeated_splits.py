"""Repeated splits are records like any other: run, compare, ensemble, verify, leaderboard, MLflow and report by the default
protocol, on a small data set of the tests' own and on a miniature of TID2013 with its real labels."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniatures import noisy, still, write
from scipy import stats
from small import write_network, write_table

from harness import leaderboard
from harness.cli.main import main
from harness.engine.compare import as_json, compare_members
from harness.engine.verify import measure_again, verify
from harness.leaderboard.formats import markdown
from harness.leaderboard.rows import board
from harness.results.marks import NOT_COMPARED, PARTIAL
from harness.results.record import RepeatsRecord, read_record
from harness.results.run_scores import ScoreFile
from harness.runtime.errors import UsageError

SPLITS = 5
CARD = f"""
name = "pictures"
title = "Made images"
reader = "harness.datasets:read_table"
higher_is_better = true
label = "MOS"
default_protocol = "by-reference"

[layout]
table = "table.csv"

[protocols.by-reference]
split = "random"
train = 0.6
validation = 0.2
test = 0.2
repeats = {SPLITS}

[protocols.full]
split = "full"
"""


@dataclass
class World:
    """A data set with repeated splits by default, three models run on it, and what the command said."""

    folder: Path
    dataset: str
    root: str
    splits: int
    out: str = ""
    err: str = ""
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def cards(self) -> str:
        return str(self.folder / "cards")

    @property
    def runs(self) -> str:
        return str(self.folder / "runs")

    def call(self, *words: str, status: int = 0) -> tuple[str, str]:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.chdir(self.folder)
            patch.setenv("HARNESS_CACHE", str(self.folder / "cache"))
            with pytest.raises(SystemExit) as ended:
                main(list(words))
        assert int(ended.value.code or 0) == status, err.getvalue()
        return out.getvalue(), err.getvalue()

    def run(self, *words: str, mlflow: str = "off") -> tuple[str, str]:
        asked = ["--dataset", self.dataset, "--root", self.root, "--cards", self.cards, "--runs", self.runs]
        return self.call("run", *words, *asked, "--mlflow-uri", mlflow)

    def record(self, model: str) -> RepeatsRecord:
        found = read_record(Path(self.results[model]["run"]))
        assert isinstance(found, RepeatsRecord)
        return found


def network(folder: Path) -> None:
    """The tests' small network, trained for one epoch."""
    card = write_network(folder) / "small.toml"
    card.write_text(card.read_text(encoding="utf-8").replace("epochs = 6", "epochs = 1"), encoding="utf-8")


def own_pictures(folder: Path) -> World:
    write_table(folder / "data", references=10, levels=2, height=40, width=48)
    network(folder / "cards")
    (folder / "cards" / "pictures.toml").write_text(CARD, encoding="utf-8")
    return World(folder, "pictures", str(folder / "data"), SPLITS)


def tid2013(folder: Path, shared: Path) -> World:
    """All 3,000 names and labels of TID2013 over made images of 32x32."""
    root = folder / "tid2013"
    for number in range(1, 26):
        pixels = still(f"tid{number}", 32, 32)
        write(root / "reference_images" / f"I{number:02d}.BMP", pixels)
        for kind in range(1, 25):
            for level in range(1, 6):
                name = f"i{number:02d}_{kind:02d}_{level}.bmp"
                write(root / "distorted_images" / name, noisy(pixels, 3 * level + kind % 5, name))
    shutil.copy(shared / "data" / "labels" / "tid2013_original_mos_with_names.txt", root / "mos_with_names.txt")
    network(folder / "cards")
    return World(folder, "tid2013", str(root), 10)


@pytest.fixture(scope="module", params=["made", "tid2013"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    own = request.param == "made"
    made = own_pictures(folder) if own else tid2013(folder, request.getfixturevalue("shared"))
    database = f"sqlite:///{folder / 'mlflow.db'}"
    made.out, made.err = made.run("psnr", "ssim", "small", "--wide", mlflow=database)
    found, _ = made.run("psnr", "ssim", "small", "--json")
    made.results = {result["model"]: result for result in json.loads(found)}
    return made


def board_of(world: World) -> Any:
    return next(g for g in board(leaderboard.collect([world.runs]), world.dataset).groups if g.protocol == "by-reference")


def test_the_headline_is_the_median_of_the_same_test_parts_with_its_range(world: World) -> None:
    hashes = {record.hashes.split for record in map(world.record, world.results)}
    assert len(hashes) == 1
    for model, result in world.results.items():
        record = world.record(model)
        values = [repeat.srcc for repeat in record.repeats]
        assert len(values) == world.splits
        assert result["srcc"] == pytest.approx(np.median(values))
        assert result["range"]["srcc"] == [min(values), max(values)]
        assert isinstance(result["n"], int)
        assert isinstance(result["references"], int)
    head = next(line for line in world.out.splitlines() if line.startswith("model"))
    assert re.search(r"SRCC +range +SRCC of all", head)
    assert "[95 %]" not in head.partition("range")[0]
    line = next(line for line in world.out.splitlines() if line.startswith("small"))
    assert "[" not in line  # of a trained model there is no figure over all images
    line = next(line for line in world.out.splitlines() if line.startswith("psnr"))
    assert line.split().count(str(world.results["psnr"]["n"])) == 1


def test_a_model_that_is_not_trained_has_a_figure_over_all_images_with_its_interval(world: World) -> None:
    whole = world.results["psnr"]["all_images"]
    assert whole["n"] == len({name for name, _, part in ScoreFile(Path(world.results["psnr"]["run"])).read() if part == "all"})
    assert whole["ci"]["srcc"][0] < whole["srcc"] < whole["ci"]["srcc"][1]
    assert world.results["small"]["all_images"] is None
    assert f"[{whole['ci']['srcc'][0]:.3f}".replace("0.", ".") in world.out


def test_before_the_first_training_it_says_how_many_how_long_and_what_is_shorter(world: World) -> None:
    (reported,) = [line for line in world.err.splitlines() if "trainings, one for each split of by-reference" in line]
    assert f"small: {world.splits} trainings" in reported
    (time,) = [line for line in world.err.splitlines() if "such trainings" in line]
    assert f"{world.splits} such trainings, one for each split, will take about" in time
    assert "training will take about" in time
    assert "--splits" in time
    assert "--set recipe.epochs=N" in time


def test_compare_tests_the_differences_on_the_same_parts(world: World) -> None:
    found = compare_members("psnr", "small", world.dataset, root=world.root, cards=(world.cards,), runs=world.runs)
    assert found.splits == world.splits
    a, b = ([repeat.srcc for repeat in world.record(model).repeats] for model in ("psnr", "small"))
    d = np.subtract(a, b)
    share = world.record("psnr").test_share
    t = d.mean() / (d.std(ddof=1) * np.sqrt(1 / len(d) + share))
    measured = found.comparison.differences["srcc"]
    assert measured.method == "corrected resampled t"
    assert measured.p_value == pytest.approx(2 * stats.t.sf(abs(t), len(d) - 1))
    assert (measured.a, measured.b, measured.difference) == pytest.approx((np.median(a), np.median(b), d.mean()))
    assert as_json(found)["splits"] == world.splits
    assert len({"noise", "gaussian_blur"} & {group.name for group in found.comparison.by_distortion}) == 1
    said, _ = world.call(
        "compare", "psnr", "ssim", "--dataset", world.dataset, "--root", world.root, "--cards", world.cards, "--runs", world.runs
    )
    assert f"test parts of {world.splits} splits" in said
    assert "corrected resampled t" in said


def test_a_file_of_scores_is_taken_on_every_part(world: World, tmp_path: Path) -> None:
    scores = tmp_path / "theirs.csv"
    rows = [(n, s) for n, s, part in ScoreFile(Path(world.results["ssim"]["run"])).read() if part == "all"]
    scores.write_text("name,score\n" + "".join(f"{n},{s!r}\n" for n, s in rows), encoding="utf-8")
    options = {"root": world.root, "cards": (world.cards,), "runs": world.runs}
    theirs = compare_members("psnr", scores, world.dataset, **options)
    ours = compare_members("psnr", "ssim", world.dataset, **options)
    assert theirs.comparison.differences == ours.comparison.differences


def test_nothing_on_the_board_is_not_compared_even_after_an_ensemble(world: World) -> None:
    out = world.folder / "best.toml"
    asked = ["--dataset", world.dataset, "--root", world.root, "--cards", world.cards, "--runs", world.runs]
    said, _ = world.call(
        "ensemble", "psnr", world.results["ssim"]["run"], *asked, "--trials", "10", "--mlflow-uri", "off", "--out", str(out)
    )
    assert f"of the first of {world.splits} splits of by-reference" in " ".join(said.split())
    assert out.is_file()
    group = board_of(world)
    rows = [row for row in group.rows if row.kind == "measured"]
    assert [row.name for row in rows if row.rank is not None] == [row.name for row in rows]
    assert {row.name for row in rows} == set(world.results)
    assert all(row.repeats == world.splits for row in rows)
    assert not any(NOT_COMPARED in row.marks for row in rows)
    assert group.headline in rows[0].best
    boards = ["--runs", world.runs, "--boards", str(world.folder / "none"), "--wide"]
    shown, _ = world.call("leaderboard", world.dataset, *boards)
    assert NOT_COMPARED not in shown
    head = next(line for line in shown.splitlines() if line.split()[:2] == ["#", "model"])
    assert re.search(r"SRCC +range +SRCC of all images \[95%\]", head)
    assert "corrected resampled t test" in shown


def test_verify_does_the_runs_again_and_finds_what_was_changed(world: World, tmp_path: Path) -> None:
    options = {"root": world.root, "cards": [world.cards]}
    for model in world.results:
        verdict = verify(world.results[model]["run"], sample=40, **options)
        assert verdict.ok, verdict.findings
        assert verdict.checked > 0
    # A committed record has no runs next to it: they are made again.
    (kept,) = leaderboard.add([world.results["psnr"]["run"]], tmp_path / "boards")
    leaderboard.write(tmp_path / "boards")
    assert leaderboard.check(tmp_path / "boards") == []
    verdict = verify(kept, **options)
    assert verdict.ok, verdict.findings
    assert verdict.checked == world.results["psnr"]["all_images"]["n"]
    assert measure_again(kept, **options) == []
    document = json.loads((kept / "record.json").read_text(encoding="utf-8"))
    document["repeats"][1]["krcc"] = 0.5
    document["metrics"]["test"]["srcc"] += 0.01
    (kept / "record.json").write_text(json.dumps(document), encoding="utf-8")
    texts = [finding.text for finding in verify(kept, **options).findings]
    assert texts == [
        "medians: the record's srcc are not those of its scores and labels",
        "split 1: the record's krcc are not those of its scores and labels",
    ]
    assert sorted(line.partition(" was ")[0] for line in measure_again(kept, **options)) == ["repeats[1].krcc", "test.srcc"]
    assert verify(kept, **options).ok


def test_mlflow_shows_a_parent_with_a_child_for_each_split(world: World) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{world.folder / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == f"harness/{world.dataset}"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    for model in ("psnr", "small"):
        (parent,) = [run for run in runs if run.info.run_name == f"{model} on {world.dataset}, repeated"]
        children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        assert sorted(int(run.data.tags["harness.split"]) for run in children) == list(range(world.splits))
        srccs = {int(run.data.tags["harness.split"]): run.data.metrics["test.srcc"] for run in children}
        assert srccs == {repeat.repeat: pytest.approx(repeat.srcc) for repeat in world.record(model).repeats}
        assert parent.data.metrics["test.srcc"] == pytest.approx(world.results[model]["srcc"])
        assert parent.data.metrics["test.srcc_smallest"] == pytest.approx(min(srccs.values()))
        assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
        # What a split's training logged is the child itself, and not a copy of its figures.
        assert all(("epoch.loss" in run.data.metrics) == (model == "small") for run in children)


def test_the_report_labels_ranges_as_ranges(world: World) -> None:
    folder = Path(world.results["psnr"]["run"])
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert {path.name for path in folder.glob("*.png")} >= {"scatter.png", "splits.png"}
    assert f"Medians over {world.splits} splits with their ranges" in page
    assert '<th scope="col">Range</th>' in page
    assert '<th scope="col">All images</th><th scope="col">95% interval</th>' in page
    assert page.count(f"<code>{world.record('psnr').repeats[0].run}</code>") == world.splits
    trained = (Path(world.results["small"]["run"]) / "report.html").read_text(encoding="utf-8")
    assert "All images" not in trained
    assert "95% interval" not in trained
    assert "What training took, all splits together" in trained


def test_fewer_splits_are_a_partial_record_of_their_own(world: World) -> None:
    out, _ = world.run("psnr", "--splits", "2", "--json")
    (some,) = json.loads(out)
    assert (len(some["repeats"]), some["partial"]) == (2, True)
    assert some["key"] != world.results["psnr"]["key"]
    assert some["repeats"] == world.results["psnr"]["repeats"][:2]
    (row,) = [row for row in board_of(world).rows if row.key == some["key"]]
    assert (row.rank, row.marks) == (None, (PARTIAL,))
    found = compare_members("psnr", "ssim", world.dataset, root=world.root, cards=(world.cards,), runs=world.runs)
    assert found.splits == world.splits  # a name means the whole record
    with pytest.raises(UsageError, match="2 splits of seed 0"):
        compare_members(some["run"], "ssim", world.dataset, root=world.root, cards=(world.cards,), runs=world.runs)
    shutil.rmtree(some["run"])


def test_an_older_record_is_read_compared_and_put_together_again(world: World, tmp_path: Path) -> None:
    """Records of the first version know no figures over all images, no numbers of training references, and 40.0 images."""
    places = {}
    for model in ("psnr", "ssim"):
        folder = Path(world.results[model]["run"])
        document = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        document.pop("all_images")
        document["figures"].pop("repeats")
        document["metrics"]["test"]["n"] = float(document["metrics"]["test"]["n"])
        for repeat in document["repeats"]:
            repeat.pop("training_references")
        places[model] = tmp_path / "runs" / world.dataset / model / folder.name
        shutil.copytree(folder, places[model])
        (places[model] / "record.json").write_text(json.dumps(document), encoding="utf-8")
    group = next(iter(board(leaderboard.collect([tmp_path / "runs"]), world.dataset).groups))
    assert [row.rank for row in group.rows] == [1, 2]
    assert not any(row.marks for row in group.rows)
    assert ".0 |" not in markdown(board(leaderboard.collect([tmp_path / "runs"]), world.dataset))
    now = compare_members("psnr", "ssim", world.dataset, root=world.root, cards=(world.cards,), runs=world.runs)
    then = compare_members(*map(str, places.values()), world.dataset, root=world.root, cards=(world.cards,))
    assert then.comparison.differences["srcc"].difference == now.comparison.differences["srcc"].difference
    assert verify(places["psnr"], root=world.root, cards=[world.cards]).ok
