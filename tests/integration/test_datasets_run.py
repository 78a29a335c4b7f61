"""Whole runs on miniature datasets: metrics under every protocol, and further test sets with the shared-content rule."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import small
from click.testing import CliRunner
from miniatures import copy, tree

from harness.cards.loading import find_dataset
from harness.cli.main import cli
from harness.datasets import load_dataset, splits
from harness.datasets.completeness import missing
from harness.datasets.overlap import related
from harness.engine.request import Request
from harness.engine.run_all import run_all
from harness.leaderboard.rows import board
from harness.results import tables
from harness.results.marks import CONTAMINATED, INCOMPLETE
from harness.results.record import read_record
from harness.results.run_scores import ScoreFile

NAMES = ["tid2013", "tid2008", "kadid10k", "live", "live-first", "csiq", "pipal", "pipal-ntire2022", "pieapp", "mdid", "bapps"]
CASES = [(name, protocol) for name in NAMES for protocol in find_dataset(name).protocols]
CASES.remove(("live-first", "by-reference"))  # the images and the splits of live


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def root_of(name: str, protocol: str) -> Path:
    small = name == "pipal" and protocol in ("by-reference", "full")
    return tree("pipal, a tenth of the training set" if small else name)


def record(name: str, protocol: str, model: str, folder: Path, limit: int | None = None) -> dict[str, object]:
    root, runs = str(root_of(name, protocol)), str(folder)
    request = Request(model, name, root, protocol, limit=limit, runs=runs, mlflow_uri="off", workers=1)
    outcomes, faults = run_all([request])
    assert not faults
    return outcomes[0].record.to_json()


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_psnr_runs_on_every_miniature_under_every_protocol(name, protocol, folder):
    done = record(name, protocol, "psnr", folder)
    spec = find_dataset(name).protocols[protocol]
    frame = load_dataset(name, root_of(name, protocol)).table
    parts = splits.split(frame, spec)
    figures = done["metrics"]["test"]
    if frame["score"][parts == "test"].isna().all():
        assert figures is None
    else:
        assert figures["n"] == (parts == "test").sum()
        assert figures["srcc"] > 0.3 or name == "bapps"
    assert bool(done.get("repeats")) == (spec.repeats > 1)
    if spec.repeats > 1:
        assert len(done["repeats"]) == spec.repeats
        assert figures["range"]["srcc"][0] <= figures["srcc"] <= figures["range"]["srcc"][1]


def test_a_run_on_a_part_of_a_dataset_says_so_and_marks_its_record_and_its_tables(folder, logged: list[str]):
    done = record("tid2013", "full", "psnr", folder)
    assert done["incomplete"]
    (place,) = folder.glob(f"tid2013/psnr/{done['key']}")
    assert "incomplete" in tables.run_table([tables.result(place, read_record(place))])
    (group,) = board([(None, read_record(place))], "tid2013").groups
    assert (group.rows[0].rank, INCOMPLETE in group.rows[0].marks) == (None, True)
    assert INCOMPLETE in (place / "report.html").read_text(encoding="utf-8")
    request = Request("psnr", "tid2013", str(tree("tid2013")), "full", runs=str(folder), mlflow_uri="off", force=True)
    run_all([request])
    assert any(re.search(r"tid2013: incomplete: \d+ of 3,000 pairs", line) for line in logged)


def test_whether_a_dataset_is_complete_depends_on_what_the_protocol_needs():
    card = find_dataset("pipal")
    frame = load_dataset("pipal", tree("pipal")).table
    validation = frame[frame["part"] == "ntire2021-validation"]
    assert len(validation) == 1000
    assert missing(card, validation, "ntire2021-validation") == ""
    assert missing(card, validation[:-1], "ntire2021-validation") == "999 of 1,000 pairs of part ntire2021-validation"
    assert "of 23,200 pairs" in missing(card, frame, "local")
    assert "ntire2021" not in missing(card, frame, "local")
    repeated_rows = pd.concat([frame[frame["part"] == "train"]] * 100)[:23200]
    assert missing(card, repeated_rows, "full") == ""


def test_bapps_is_measured_by_the_share_of_votes_for_the_preferred_version(folder):
    """BAPPS is measured by the share of votes for the version that the model prefers."""
    done = record("bapps", "validation", "psnr", folder)
    figures, left_out = done["metrics"]["test"], done["without_each_reference"]
    frame = load_dataset("bapps", tree("bapps")).table.set_index("name")
    (place,) = folder.glob(f"bapps/psnr/{done['key']}")
    scores = {name: score for name, score, _ in ScoreFile(place).read()}
    shares = {}
    for triplet in sorted({name.rpartition("/")[0] for name in scores}):
        p0, p1 = (scores[f"{triplet}/{p}"] for p in ("p0", "p1"))
        judge = frame.at[f"{triplet}/p1", "score"]
        shares[triplet] = judge if p1 > p0 else 1 - judge if p0 > p1 else 0.5
    assert len(shares) == 12
    mean = sum(shares.values()) / 12
    assert figures["score_2afc"] == pytest.approx(mean)
    assert figures["ci"]["score_2afc"][0] < mean < figures["ci"]["score_2afc"][1]
    assert left_out["references"] == list(shares)
    assert left_out["score_2afc"] == pytest.approx([(12 * mean - share) / 11 for share in shares.values()])
    result = tables.result(place, read_record(place))
    assert result["score_2afc"] == figures["score_2afc"]
    assert "2AFC" in tables.run_table([result])


def test_pair_analysis_is_defined_where_the_card_knows_how_many_raters_there_were(folder):
    found = record("kadid10k", "full", "psnr", folder)["metrics"]["test"]
    assert found["discrimination"]["not_defined"] == []
    assert found["discrimination"]["pair_analysis"]["better_worse"] > 0.9
    assert found["discrimination"]["pair_analysis"]["pairs"] == found["n"] * (found["n"] - 1) // 2
    assert 0 <= found["discrimination"]["outlier_ratio"] <= 1
    assert found["discrimination"]["monotonicity"]["steps"] == 1.0
    assert found["score_2afc"] is None
    unknown = record("tid2013", "full", "psnr", folder)["metrics"]["test"]["discrimination"]
    assert (unknown["pair_analysis"], unknown["outlier_ratio"]) == (None, None)
    assert unknown["not_defined"] == ["pair analysis and outlier ratio: the dataset does not give the number of raters"]


def test_a_test_part_without_labels_says_so_before_and_after(folder, logged: list[str]):
    root, runs = str(root_of("pipal", "val")), str(folder / "blind")
    request = Request("psnr", "pipal", root, "val", runs=runs, mlflow_uri="off", workers=1)
    (outcome,), faults = run_all([request])
    assert not faults
    assert any("labels of the 1,000 tested images are missing" in line and "val_labels.txt" in line for line in logged)
    table = tables.run_table([tables.result(outcome.folder, outcome.record)])
    assert "psnr: no figures, because labels of the test images are missing" in table
    assert "labels withheld" in table


def test_pipals_srcc_within_references_is_next_to_the_pooled_one(folder):
    request = Request("psnr", "pipal", str(root_of("pipal", "full")), "full", runs=str(folder), mlflow_uri="off")
    (outcome,), _ = run_all([request])
    figures = outcome.record.to_json()["metrics"]["test"]
    table = tables.run_table([tables.result(outcome.folder, outcome.record)])
    assert "SRCC within refs" in table
    assert f" {tables.number(figures['srcc_within'])} " in table
    (group,) = board([(outcome.folder, outcome.record)], "pipal").groups
    assert group.rows[0].figures["srcc_within"] == figures["srcc_within"]


@pytest.mark.parametrize("name", NAMES)
def test_ssim_runs_on_every_miniature(name, folder):
    full = next(p for p, spec in find_dataset(name).protocols.items() if spec.split == "full")
    figures = record(name, full, "ssim", folder, limit=12)["metrics"]["test"]
    assert figures is None or figures["n"] == 12


@pytest.fixture
def network(tmp_path: Path) -> str:
    """A trainable model small enough for the miniatures."""
    cards = small.write_network(tmp_path / "cards")
    code, card = cards / "small_network.py", cards / "small.toml"
    code.write_text(code.read_text().replace("self.crop_size = 32", "self.crop_size = 8"))
    card.write_text(card.read_text().replace("epochs = 6", "epochs = 1").replace("steps_per_epoch = 10", "steps_per_epoch = 2"))
    return str(cards)


def test_further_test_sets_lose_the_references_that_were_trained_on(tmp_path, monkeypatch, network):
    for name in ("tid2013", "csiq", "live"):
        copy(tree(name), tmp_path / "data" / name)
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    words = ["run", "small", "--cards", network, "--dataset", "tid2013", "--test-on", "csiq,live"]
    result = CliRunner().invoke(cli, [*words, "--mlflow-uri", "off", "--quiet", "--json", "--workers", "1"])
    assert result.exit_code == 0, result.output
    rows = {row["dataset"]: row for row in json.loads(result.stdout)}
    data = load_dataset("tid2013")
    parts = splits.split(data.table, data.card.protocols["by-reference"])
    seen = set(data.table["reference_id"][parts.isin(["train", "validation"])])
    kodak = {f"kodim{i[1:]}" for i in seen if i != "I25"}
    live = load_dataset("live")
    shared = {r for r in live.table["reference_id"] if live.card.content.get(r) in kodak}
    assert shared
    assert rows["csiq"]["n"] == 144
    assert rows["live"]["references"] == 29 - len(shared)
    assert rows["live"]["n"] == (~live.table["reference_id"].isin(shared)).sum()


def test_weights_trained_on_the_same_images_or_labels_are_marked_contaminated(tmp_path, monkeypatch, network):
    """Weights trained on a dataset of the same images or labels are marked contaminated."""
    for name in ("tid2013", "tid2008", "csiq"):
        copy(tree(name), tmp_path / "data" / name)
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> list[dict]:
        result = CliRunner().invoke(
            cli, ["run", "small", "--cards", network, *words, "--mlflow-uri", "off", "--quiet", "--json", "--workers", "1"]
        )
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    trained = run("--dataset", "tid2013", "--test-on", "csiq")
    weights = str(Path(trained[0]["run"]) / "weights.safetensors") if trained[0]["repeats"] is None else ""
    weights = weights or str(Path(trained[0]["run"]).parent / trained[0]["repeats"][0]["run"] / "weights.safetensors")
    (tested,) = run("--dataset", "tid2008", "--protocol", "full", "--weights", weights)
    assert (tested["seen"], tested["contaminated_by"]) == (False, ["tid2013"])
    assert [row["contaminated_by"] for row in trained] == [[], []]
    table = tables.run_table([tested])
    assert "contaminated: trained on tid2013" in table
    (group,) = board([(None, read_record(Path(tested["run"])))], "tid2008").groups
    assert (group.rows[0].rank, CONTAMINATED in group.rows[0].marks) == (None, True)
    demo, kadid = find_dataset("demo"), find_dataset("kadid10k")
    assert related(kadid, demo)
    assert related(demo, kadid)
    assert not related(kadid, find_dataset("csiq"))


def test_testing_on_a_superset_of_what_was_trained_on_is_refused(tmp_path, monkeypatch, network):
    for name in ("tid2013", "tid2008"):
        copy(tree(name), tmp_path / "data" / name)
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    card = Path(network) / "tid-all.toml"
    shipped = Path(find_dataset("tid2013").path).read_text()
    everything = shipped.replace('name = "tid2013"', 'name = "tid-all"\nfolder = "tid2013"').replace(
        "train = 0.6\nvalidation = 0.2", "train = 0.8\nvalidation = 0.0"
    )
    card.write_text(everything)
    words = ["run", "small", "--cards", network, "--dataset", "tid-all", "--test-on", "tid2008", "--set", "recipe.selection=last"]
    result = CliRunner().invoke(cli, [*words, "--mlflow-uri", "off", "--quiet", "--json", "--workers", "1"])
    rows = {row["dataset"]: row for row in json.loads(result.stdout)}
    assert rows["tid2008"]["references"] == 1
