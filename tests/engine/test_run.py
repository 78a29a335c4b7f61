"""The whole path through the command line, on a world made in seconds.

Kills, waiting for one another, bad requests and a command's first call are real processes; what only prepares or repeats is
called in this one.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from small import write_network, write_table

from harness.cli.main import main
from harness.engine.request import Request, make_plan
from harness.engine.run import train
from harness.engine.run_all import run_all
from harness.results.tables import number

pytestmark = pytest.mark.slow  # its tests train, or start commands

HARNESS = [sys.executable, "-m", "harness"]


class World:
    """A table, a folder of cards with a trainable model, and a folder of runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table = write_table(folder / "data é")
        self.cards = write_network(folder / "cards")
        self.environment = {**os.environ, "HARNESS_CACHE": str(folder / "cache"), "COLUMNS": "200"}

    def words(self, *words: str, runs: str = "runs") -> list[str]:
        return [*HARNESS, *words, "--runs", str(self.folder / runs), "--cards", str(self.cards), "--mlflow-uri", "off"]

    def call(self, *words: str, runs: str = "runs", status: int = 0, process: bool = False) -> subprocess.CompletedProcess[str]:
        """The command's end, in a process of its own where that is part of the claim."""
        command = self.words(*words, runs=runs)
        if process:
            done = subprocess.run(command, capture_output=True, text=True, env=self.environment, cwd=self.folder)
        else:
            done = self.here(command)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def here(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.chdir(self.folder)
            patch.setenv("HARNESS_CACHE", self.environment["HARNESS_CACHE"])
            with pytest.raises(SystemExit) as ended:
                main(command[len(HARNESS) :])
        return subprocess.CompletedProcess(command, int(ended.value.code or 0), out.getvalue(), err.getvalue())

    def run(self, *words: str, runs: str = "runs", process: bool = False) -> list[dict]:
        return json.loads(self.call("run", *words, "--dataset", str(self.table), "--json", runs=runs, process=process).stdout)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


FIELDS = {
    "model", "dataset", "protocol", "split", "seed", "n", "references", "srcc", "plcc", "plcc_fitted", "krcc", "rmse", "main",
    "ci", "seconds", "pairs_per_second", "run", "key", "repeats",
}  # fmt: skip


def test_metrics_are_scored_measured_and_recorded_with_every_field(world: World):
    results = world.run("psnr", "ssim", process=True)
    assert [r["model"] for r in results] == ["psnr", "ssim"]
    for result in results:
        assert set(result) >= FIELDS
        assert result["n"] == 36
        assert result["references"] == 6
        assert result["main"] == pytest.approx(result["srcc"] + result["plcc"])
        assert result["ci"]["srcc"][0] <= result["srcc"] <= result["ci"]["srcc"][1]
        folder = Path(result["run"])
        assert folder == world.folder / "runs" / "table" / result["model"] / result["key"]
        lines = (folder / "scores.csv").read_text().splitlines()
        assert lines[0] == "name,score,part"
        assert len(lines) == 37


def test_scores_are_those_of_scipy_and_of_the_function(world: World):
    import pandas as pd
    from scipy import stats

    (result,) = world.run("psnr")
    scores = pd.read_csv(Path(result["run"]) / "scores.csv").set_index("name")["score"]
    labels = pd.read_csv(world.table).set_index("distorted")["score"]
    joined = pd.concat([scores, labels], axis=1, keys=["s", "l"])
    assert result["srcc"] == pytest.approx(stats.spearmanr(joined.s, joined.l).statistic, abs=1e-12)
    assert result["plcc"] == pytest.approx(stats.pearsonr(joined.s, joined.l).statistic, abs=1e-12)
    assert result["krcc"] == pytest.approx(stats.kendalltau(joined.s, joined.l).statistic, abs=1e-12)


def test_asking_again_finds_the_finished_record_and_does_no_work(world: World):
    (first,) = world.run("ssim")
    before = {p: p.stat().st_mtime_ns for p in Path(first["run"]).iterdir()}
    done = world.call("run", "ssim", "--dataset", str(world.table), process=True)
    assert "found" in done.stderr
    assert before == {p: p.stat().st_mtime_ns for p in Path(first["run"]).iterdir()}
    world.call("run", "ssim", "--dataset", str(world.table), "--force")
    assert before != {p: p.stat().st_mtime_ns for p in Path(first["run"]).iterdir()}
    assert world.run("ssim") == [
        {**first, "seconds": world.run("ssim")[0]["seconds"], "pairs_per_second": world.run("ssim")[0]["pairs_per_second"]}
    ]


def test_a_shuffled_table_has_the_same_key_and_the_same_scores(world: World):
    order = list(range(36))
    random.Random(1).shuffle(order)
    other = write_table(world.folder / "shuffled", order=order)
    (first,) = world.run("psnr")
    second = json.loads(world.call("run", "psnr", "--dataset", str(other), "--json", runs="runs-shuffled").stdout)[0]
    assert first["key"] == second["key"]
    rows = [sorted((Path(r["run"]) / "scores.csv").read_text().splitlines()) for r in (first, second)]
    assert rows[0] == rows[1]


def test_a_model_of_the_users_own_trains_and_is_tested_from_its_folder_of_cards(world: World):
    (result,) = world.run("small", "--protocol", "parts", process=True)
    assert result["n"] == 12
    record = json.loads((Path(result["run"]) / "record.json").read_text())
    assert record["training"]["steps"] == 60
    assert record["trained_on"] == ["table"]
    assert record["metrics"]["validation"]["n"] == 6
    left = {path.name for path in Path(result["run"]).iterdir()}
    assert "weights.safetensors" in left
    assert "checkpoint.safetensors" not in left
    parts = [line.split(",")[2] for line in (Path(result["run"]) / "scores.csv").read_text().splitlines()[1:]]
    assert parts.count("validation") == 6
    again = world.run("small", "--protocol", "parts", "--weights", str(Path(result["run"]) / "weights.safetensors"))
    assert again[0]["srcc"] == result["srcc"]
    assert again[0]["key"] != result["key"]


def test_the_training_of_a_finished_run_is_read_from_its_record(world: World):
    (result,) = world.run("small", "--protocol", "parts")
    request = Request(
        "small", str(world.table), protocol="parts", runs=str(world.folder / "runs"), cards=(str(world.cards),), mlflow_uri="off"
    )
    trained = train(make_plan(request), lambda entry: pytest.fail("trained again"))
    assert (trained.steps, len(trained.history)) == (60, 6)
    assert not (Path(result["run"]) / "checkpoint.safetensors").exists()


def test_scores_from_batches_of_one_and_eight_agree_and_share_their_key(world: World):
    def scored(batch: str) -> tuple[str, dict[str, float]]:
        (result,) = world.run("small", "--protocol", "parts", "--weights", weights, "--batch", batch, runs=f"runs-{batch}")
        lines = (Path(result["run"]) / "scores.csv").read_text().splitlines()[1:]
        return result["key"], {line.split(",")[0]: float(line.split(",")[1]) for line in lines}

    weights = str(Path(world.run("small", "--protocol", "parts")[0]["run"]) / "weights.safetensors")
    (key, one), (other, eight) = scored("1"), scored("8")
    assert key == other
    assert one == pytest.approx(eight, abs=1e-5)


def test_a_seed_and_a_setting_change_the_key_and_workers_do_not(world: World):
    (base,) = world.run("psnr")
    assert world.run("psnr", "--workers", "1", runs="runs-w")[0]["key"] == base["key"]
    assert world.run("psnr", "--seed", "1")[0]["key"] != base["key"]
    assert world.run("psnr", "--set", "protocol.crops=five", "--set", "protocol.crop_size=32")[0]["key"] != base["key"]
    assert world.run("psnr", "--limit", "10")[0]["key"] != base["key"]


def test_a_damaged_score_file_is_taken_up_at_the_last_whole_chunk(world: World):
    (whole,) = world.run("psnr", runs="cut", process=True)
    folder = Path(whole["run"])
    rows = (folder / "scores.csv").read_bytes()
    (folder / "record.json").unlink()
    (folder / "scores.csv").write_bytes(rows[: len(rows) // 2])
    done = world.call("run", "psnr", "--dataset", str(world.table), runs="cut", process=True)
    assert "exist already" in done.stderr
    assert (folder / "scores.csv").read_bytes() == rows


def test_a_run_begun_under_other_conditions_starts_again_and_says_so(world: World):
    (whole,) = world.run("psnr", runs="conditions")
    folder = Path(whole["run"])
    (folder / "record.json").unlink()
    state = json.loads((folder / "state.json").read_text())
    state["conditions"]["libraries"]["numpy"] = "1.0"
    (folder / "state.json").write_text(json.dumps(state))
    done = world.call("run", "psnr", "--dataset", str(world.table), runs="conditions")
    assert "numpy was 1.0" in done.stderr
    assert "exist already" not in done.stderr


def test_two_processes_on_one_run_do_its_work_once(world: World):
    words = world.words("run", "small", "--dataset", str(world.table), "--protocol", "parts", runs="two")
    both = [
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=world.environment)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [p.returncode for p in both] == [0, 0]
    assert sorted("recorded in" in text for text in said) == [False, True]


BAD = {
    "an unknown model": (["run", "psnrr", "--dataset", "TABLE"], "psnr"),
    "an unknown dataset": (["run", "psnr", "--dataset", "demoo"], "demo"),
    "an unknown protocol": (["run", "psnr", "--dataset", "TABLE", "--protocol", "ful"], "'full'"),
    "an unknown setting": (["run", "psnr", "--dataset", "TABLE", "--set", "protocol.crop=five"], "protocol.crops"),
    "a setting of another type": (["run", "small", "--dataset", "TABLE", "--set", "recipe.epochs=ten"], "whole number"),
    "a setting without a value": (["run", "psnr", "--dataset", "TABLE", "--set", "seed"], "KEY=VALUE"),
    "a protocol without training": (["run", "small", "--dataset", "TABLE"], "no training part"),
    "a device that is not there": (["run", "small", "--dataset", "TABLE", "--protocol", "parts", "--device", "cuda:7"], "cuda:7"),
    "a table that is not there": (["run", "psnr", "--dataset", "none.csv"], "no such file"),
    "an image for a table": (["run", "psnr", "--dataset", "PICTURE"], "not a table"),
    "two images too few": (["score", "psnr"], "REFERENCE DISTORTED"),
    "an unknown option": (["run", "psnr", "--data", "x"], "--data"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_request_gets_one_clear_message_and_status_2(world: World, kind: str, tmp_path: Path):
    words, message = BAD[kind]
    places = {"TABLE": str(world.table), "PICTURE": str(world.folder / "data é" / "r0.png")}
    words = [places.get(word, word) for word in words]
    done = subprocess.run(
        [*HARNESS, *words, *(["--runs", str(tmp_path)] if words[0] == "run" else []), "--cards", str(world.cards)],
        capture_output=True, text=True, env=world.environment, cwd=world.folder,
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("record.json"))


def test_a_runs_folder_that_is_a_file_or_of_another_version_has_status_2(world: World):
    (world.folder / "a file").write_text("")
    done = world.call("run", "psnr", "--dataset", str(world.table), runs="a file", status=2)
    assert "a file/table/psnr" in done.stderr
    assert "cannot be written" in done.stderr
    (whole,) = world.run("psnr", runs="another")
    record = Path(whole["run"]) / "record.json"
    record.write_text(record.read_text().replace('"format": 2', '"format": 99', 1))
    done = world.call("run", "psnr", "--dataset", str(world.table), runs="another", status=2)
    assert "another version of the harness (format 99" in done.stderr
    assert '"format": 99' in record.read_text()


def test_a_truncated_image_stops_its_run_alone_and_keeps_what_was_scored(world: World):
    table = write_table(world.folder / "broken")
    victim = world.folder / "broken" / "r5_fade_3.png"
    victim.write_bytes(victim.read_bytes()[:100])
    done = world.call("run", "psnr", "--dataset", str(table), runs="broken-runs", status=2, process=True)
    assert "r5_fade_3.png" in done.stderr
    (scores,) = (world.folder / "broken-runs").rglob("scores.csv")
    assert len(scores.read_text().splitlines()) > 20


def test_score_gives_one_pairs_crops_and_a_tables_scores(world: World):
    data = world.folder / "data é"
    base = [*HARNESS, "score", "ssim"]
    one = subprocess.run(
        [*base, str(data / "r0.png"), str(data / "r0_fade_1.png"), "--json", "--set", "protocol.crops=five",
         "--set", "protocol.crop_size=32"],
        capture_output=True, text=True, check=True, env=world.environment,
    )  # fmt: skip
    (result,) = json.loads(one.stdout)
    assert len(result["crops"]) == 5
    assert result["score"] == pytest.approx(sum(c["score"] for c in result["crops"]) / 5)
    out = world.folder / "scores out.csv"
    subprocess.run(
        [*base, "--pairs", str(world.table), "--out", str(out)], check=True, env=world.environment, capture_output=True
    )
    recorded = (Path(world.run("ssim")[0]["run"]) / "scores.csv").read_text().splitlines()[1:]
    header, *written = out.read_text().splitlines()
    assert header == "name,score,distorted,reference,label,reference_id,distortion,level,part"  # other columns are kept
    assert [",".join(line.split(",")[:2]) for line in written] == [line.rsplit(",", 1)[0] for line in recorded]


def test_agreement_of_two_files_is_that_of_the_run(world: World):
    (result,) = world.run("ssim")
    labels = world.folder / "labels.csv"
    rows = [line.split(",") for line in world.table.read_text().splitlines()[1:]]
    labels.write_text("name,score,reference_id\n" + "".join(f"{r[0]},{r[2]},{r[3]}\n" for r in rows))
    scores = world.folder / "ssim.csv"
    lines = (Path(result["run"]) / "scores.csv").read_text().splitlines()
    scores.write_text("\n".join(line.rsplit(",", 1)[0] for line in lines) + "\n")
    done = subprocess.run([*HARNESS, "agreement", str(scores), str(labels), "--json"], capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert {k: figures[k] for k in ("n", "srcc", "krcc", "ci")}["srcc"] == result["srcc"]
    turned = subprocess.run(
        [*HARNESS, "agreement", str(scores), str(labels), "--json", "--lower-is-better", "scores"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(turned.stdout)["srcc"] == pytest.approx(-result["srcc"])
    scores.write_text("name,score\nr0_fade_1.png,1\nextra,2\n")
    bad = subprocess.run([*HARNESS, "agreement", str(scores), str(labels)], capture_output=True, text=True)
    assert bad.returncode == 2
    assert "extra" in bad.stderr
    assert "35 names" in bad.stderr


def test_two_runs_are_compared_on_the_images_that_both_scored(world: World, tmp_path: Path):
    psnr, ssim = world.run("psnr", "ssim")
    base = [*HARNESS, "compare", "--json", "--quiet"]
    done = subprocess.run([*base, psnr["run"], ssim["run"]], capture_output=True, text=True, check=True, cwd=world.folder)
    figures = json.loads(done.stdout)
    assert (figures["a"], figures["b"], figures["n"], figures["references"]) == ("psnr", "ssim", 36, 6)
    assert figures["differences"]["srcc"]["difference"] == pytest.approx(psnr["srcc"] - ssim["srcc"])
    assert {group["name"] for group in figures["by_distortion"]} == {"noise", "fade"}
    assert figures["disagreements"][0]["name"].endswith(".png")
    assert figures["discrimination"]["a"]["monotonicity"]["count"] == 12
    assert figures["discrimination"]["a"]["pair_analysis"] is None
    assert [entry["difference"] for entry in figures["planning"]] == [0.01, 0.02, 0.05]
    said = subprocess.run(
        [*HARNESS, "compare", psnr["run"], ssim["run"], "--difference", "0.1"], capture_output=True, text=True, cwd=world.folder
    ).stdout
    assert "references for 0.1" in said
    assert "not defined" in said
    assert "assumes independent images" in said
    # The same from bare files, with scores turned round and said so.
    labels, files = tmp_path / "labels.csv", []
    rows = [line.split(",") for line in world.table.read_text(encoding="utf-8").splitlines()[1:]]
    labels.write_text("name,score,reference_id\n" + "".join(f"{r[0]},{r[2]},{r[3]}\n" for r in rows))
    for result, sign in ((psnr, 1), (ssim, -1)):
        scores = [line.split(",") for line in (Path(result["run"]) / "scores.csv").read_text().splitlines()[1:]]
        files.append(tmp_path / f"{result['model']}.csv")
        files[-1].write_text("name,score\n" + "".join(f"{s[0]},{sign * float(s[1])!r}\n" for s in scores))
    words = [*base, *map(str, files), "--labels", str(labels), "--lower-is-better", "b"]
    again = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert again["differences"] == figures["differences"]


def test_seeds_give_a_run_each_and_their_spread_and_idle_ones_are_left_out(world: World):
    words = ["psnr", "small", "--protocol", "parts", "--seeds", "0,1,2"]
    results = world.run(*words)
    assert [(r["model"], r["seed"]) for r in results] == [("psnr", 0), ("small", 0), ("small", 1), ("small", 2)]
    assert len({r["key"] for r in results}) == 4
    (alone,) = world.run("small", "--protocol", "parts", "--seed", "1")
    assert alone["run"] == results[2]["run"]
    done = world.call("run", *words, "--dataset", str(world.table))
    assert "psnr: seed 1 would give the results of seed 0; left out" in done.stderr
    srccs = [r["srcc"] for r in results[1:]]
    (mean,) = [line for line in done.stdout.splitlines() if line.startswith("small, 3 seeds")]
    shown = [number(v) for v in (sum(srccs) / 3, min(srccs), max(srccs))]
    assert f"{shown[0]}  {shown[1]} to {shown[2]}" in mean
    assert "[95 %]" not in done.stdout
    assert done.stdout.count("· seed ") == 3
    boards = ["--boards", str(world.folder / "no boards"), "--runs", str(world.folder / "runs")]
    board = subprocess.run([*HARNESS, "leaderboard", "table", *boards], capture_output=True, text=True, check=True).stdout
    assert "3 seeds: 0, 1, 2" in board
    for bad in (["--seeds", "0,x"], ["--seeds", "0,1", "--seed", "2"]):
        refused = world.call("run", "psnr", "--dataset", str(world.table), *bad, status=2)
        assert "such as 0,1,2" in refused.stderr


def test_a_score_file_becomes_a_record_like_any_other(world: World, tmp_path: Path):
    (ssim,) = world.run("ssim")
    lines = (Path(ssim["run"]) / "scores.csv").read_text().splitlines()
    scores = tmp_path / "theirs.csv"
    scores.write_text("\n".join(line.rsplit(",", 1)[0] for line in lines) + "\n")
    (result,) = world.run("--scores", str(scores), "--name", "theirs")
    assert result["model"] == "theirs"
    assert {k: result[k] for k in ("srcc", "plcc", "krcc", "n", "ci")} == {
        k: ssim[k] for k in ("srcc", "plcc", "krcc", "n", "ci")
    }
    assert result["pairs_per_second"] is None
    (turned,) = world.run("--scores", str(scores), "--name", "theirs", "--lower-is-better")
    assert turned["srcc"] == pytest.approx(-ssim["srcc"])
    scores.write_text("\n".join([*(line.rsplit(",", 1)[0] for line in lines[:-2]), "more,1"]) + "\n")
    refused = world.call("run", "--scores", str(scores), "--name", "theirs", "--dataset", str(world.table), status=2)
    assert "more" in refused.stderr
    assert "2 names that" in refused.stderr
    (some,) = world.run("--scores", str(scores), "--name", "theirs", "--inner")
    assert some["n"] == 34


def test_repeats_give_medians_and_ranges_and_no_interval(world: World):
    (result,) = world.run("psnr", "--protocol", "by-reference")
    assert len(result["repeats"]) == 10
    srccs = sorted(repeat["srcc"] for repeat in result["repeats"])
    assert result["srcc"] == pytest.approx((srccs[4] + srccs[5]) / 2)
    assert result["ci"] == {"srcc": None, "plcc": None}
    rows = (Path(result["run"]) / "scores.csv").read_text().splitlines()[1:]
    assert {row.rsplit(",", 1)[1] for row in rows} == {*(f"test@{r}" for r in range(10)), "all"}
    assert result["range"]["srcc"] == [srccs[0], srccs[-1]]
    (whole,) = world.run("psnr", "--protocol", "full")
    assert {k: result["all_images"][k] for k in ("n", "srcc", "plcc")} == {k: whole[k] for k in ("n", "srcc", "plcc")}
    assert result["all_images"]["ci"]["srcc"] == whole["ci"]["srcc"]
    assert isinstance(result["n"], int)
    boards = ["--boards", str(world.folder / "boards of repeats")]
    subprocess.run([*HARNESS, "leaderboard", "add", *boards, result["run"]], check=True, capture_output=True)
    assert subprocess.run([*HARNESS, "leaderboard", "check", *boards]).returncode == 0


def test_a_trained_model_is_tested_on_other_datasets_without_trained_content(world: World):
    """A trained model is tested on further datasets without the content it was trained on."""
    other = write_table(world.folder / "other", references=8)
    results = world.run("small", "--protocol", "parts", "--test-on", str(other))
    assert [r["protocol"] for r in results] == ["parts", "full"]
    assert results[1]["n"] == 24
    assert "without 4 of 8 references (24 of 48 pairs)" in results[1]["note"]
    record = json.loads((Path(results[1]["run"]) / "record.json").read_text())
    assert record["trained_on"] == ["table"]
    kept = world.run("small", "--protocol", "parts", "--test-on", str(other), "--keep-shared")
    assert kept[1]["n"] == 48
    assert kept[1]["key"] != results[1]["key"]


def test_the_leaderboard_ranks_the_runs_and_the_check_sees_an_edited_table(world: World):
    psnr, ssim = world.run("psnr", "ssim")
    boards = ["--boards", str(world.folder / "boards")]
    runs = ["--runs", str(world.folder / "runs")]
    shown = subprocess.run([*HARNESS, "leaderboard", "table", *boards, *runs], capture_output=True, text=True, check=True).stdout
    assert psnr["key"] in shown
    assert ssim["key"] in shown
    added = [*HARNESS, "leaderboard", "add", *boards, psnr["run"], ssim["run"]]
    subprocess.run(added, check=True, capture_output=True)
    board = world.folder / "boards" / "table.md"
    check = [*HARNESS, "leaderboard", "check", *boards]
    assert subprocess.run(check, capture_output=True).returncode == 0
    board.write_text(board.read_text().replace(psnr["key"], "0" * 16))
    assert subprocess.run(check, capture_output=True).returncode == 1


def test_what_several_models_meet_is_said_once(tmp_path: Path):
    table = str(write_table(tmp_path / "data"))
    places = {"runs": str(tmp_path / "runs"), "mlflow_uri": "off"}
    requests = [Request(model, table, protocol="full", **places) for model in ("psnr", "ssim")]
    outcomes, faults = run_all(requests, ["csiq"])
    assert [outcome.record.model for outcome in outcomes] == ["psnr", "ssim"]
    assert len(faults) == 1
    assert str(faults[0]).startswith("psnr, ssim: csiq was not found")
