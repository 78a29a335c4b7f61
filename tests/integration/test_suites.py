"""Suites through the command line: four miniatures, absent datasets, user's tables, real scores of nine metrics."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner
from miniatures import tree
from PIL import Image
from scipy import stats

from harness.cards.loading import find_suite, load_cards
from harness.cards.schema import parse_card
from harness.cards.suite import SuiteCard
from harness.cli.main import cli
from harness.cli.options import show_message
from harness.datasets.suites import load_suite
from harness.runtime import logs
from harness.runtime.errors import UsageError

CLASSIC = ("live", "csiq", "tid2013", "kadid10k")
TIMES = 14
"""12x16 pixels become 168x224, which MS-SSIM's five scales need."""


class Said(NamedTuple):
    status: int
    out: str
    err: str


def harness(*words: str, cwd: Path, data: Path | None = None) -> Said:
    """The command in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HARNESS_DATA": str(data or cwd / "nothing")}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-m", "harness", *words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return Said(done.returncode, done.stdout, done.stderr)


def enlarged(name: str, target: Path) -> None:
    """A miniature with every pixel `TIMES` times as wide and high."""
    source = tree(name)
    for file in source.rglob("*"):
        place = target / file.relative_to(source)
        if file.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            kind = {".bmp": "BMP", ".png": "PNG"}.get(file.suffix.lower())
            if kind is None:
                shutil.copy(file, place)
                continue
            with Image.open(file) as image:
                pixels = np.kron(np.asarray(image.convert("RGB")), np.ones((TIMES, TIMES, 1), np.uint8))
            Image.fromarray(pixels).save(place, kind, **({"compress_level": 1} if kind == "PNG" else {}))


@pytest.fixture(scope="module")
def classic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """Four miniatures, and what `harness run psnr ssim ms-ssim --suite classic` said."""
    work = tmp_path_factory.mktemp("classic")
    for name in CLASSIC:
        enlarged(name, work / "data" / name)
    words = ("run", "psnr", "ssim", "ms-ssim", "--suite", "classic", "--mlflow-uri", "off", "--device", "cpu")
    said = harness(*words, cwd=work, data=work / "data")
    shutil.rmtree(work / "data")
    return work, said


def matrix_of(text: str) -> dict[str, str]:
    """The matrix's lines by their model."""
    table = text[text.index("classic: LIVE") :].partition("\ndataset live")[0]
    return {words[0]: line for line in table.splitlines()[4:] if (words := line.split())}


def test_three_metrics_on_four_miniatures_print_the_matrix(classic: tuple[Path, Said]) -> None:
    work, said = classic
    assert said.status == 0, said.err
    rows = matrix_of(said.out)
    assert set(rows) >= {"psnr", "ssim", "ms-ssim"}
    for model in ("psnr", "ssim", "ms-ssim"):
        figures = []
        for dataset in CLASSIC:
            (record,) = (work / "runs" / dataset / model).glob("*/record.json")
            test = json.loads(record.read_text())["metrics"]["test"]
            figures += [f"{test[f]:.3f}".replace("0.", ".") for f in ("srcc", "plcc")]
        shown = re.findall(r"(?<!\S)\.\d{3}", rows[model])
        # Only LIVE's miniature is whole: the others are shown, and neither ranked nor averaged.
        assert shown == figures
    assert "mark a: incomplete (the dataset lacked pairs or references" in said.out


def test_the_leaderboards_suite_compiles(classic: tuple[Path, Said]) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not on this machine")
    work, said = classic
    shown = harness("leaderboard", "--suite", "classic", cwd=work)
    assert matrix_of(shown.out)["psnr"] == matrix_of(said.out)["psnr"]
    for name, words in (("suite", ("--suite", "classic", "--intervals")), ("boards", ("--columns", "srcc,plcc,rmse,references"))):
        text = harness("leaderboard", *words, "--latex", "--standalone", cwd=work).out
        (work / f"{name}.tex").write_text(text, encoding="utf-8")
        command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, errors="replace", timeout=120, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        assert "Overfull \\hbox" not in (work / f"{name}.log").read_text(errors="replace")


def test_published_numbers_are_next_to_ours_after_the_run(classic: tuple[Path, Said]) -> None:
    work, said = classic
    published = said.out[said.out.index("published figures next to ours") :]
    (record,) = (work / "runs" / "live" / "psnr").glob("*/record.json")
    ours = json.loads(record.read_text())["metrics"]["test"]["srcc"]
    line = next(line for line in published.splitlines() if re.search(r"psnr +live +SRCC", line))
    assert f"{ours:.4f}".removeprefix("0") in line
    assert ".8730" in line
    assert f"+{ours - 0.873:.4f}".replace("0.", ".") in line
    assert "01ae427 (PSNR of RGB); may differ because:" in published
    assert "the dataset lacks pairs or references here" in published


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A suite over two tables without images, and score files of two models for each."""
    rng = np.random.default_rng(0)
    (tmp_path / "suite").mkdir()
    for name, references in (("one", 12), ("two", 15)):
        labels = rng.normal(size=references * 6)
        rows = [(f"{name}{i}.png", label, f"{name}-r{i // 6}") for i, label in enumerate(labels)]
        lines = [f"{n},{label},{reference}\n" for n, label, reference in rows]
        (tmp_path / "suite" / f"{name}.csv").write_text("name,score,reference_id\n" + "".join(lines))
        (tmp_path / "scores" / name).mkdir(parents=True)
        for model, noise in (("near", 0.3), ("far", 2.0)):
            scores = labels + rng.normal(0, noise, len(labels))
            lines = [f"{n},{score}\n" for (n, _, _), score in zip(rows, scores, strict=True)]
            (tmp_path / "scores" / name / f"{model}.csv").write_text("name,score\n" + "".join(lines))
    (tmp_path / "suite" / "mine.toml").write_text('name = "mine"\ntitle = "My own"\ndatasets = ["one.csv", "two.csv"]\n')
    return tmp_path


def run_scores(model: str, folder: Path, *words: str) -> str:
    words = (
        *("run", "--scores", str(folder / "scores" / "{dataset}" / f"{model}.csv"), "--name", model),
        *("--suite", str(folder / "suite" / "mine.toml"), "--runs", str(folder / "runs"), "--mlflow-uri", "off", *words),
    )
    with logs.handled(show_message):  # as `main` has it
        return CliRunner().invoke(cli, words, catch_exceptions=False).output


def test_a_suite_of_ones_own_tables_takes_score_files_by_dataset(tables: Path) -> None:
    for model in ("near", "far"):
        assert "My own" in run_scores(model, tables)
    words = ["leaderboard", "--suite", str(tables / "suite" / "mine.toml"), "--runs", str(tables / "runs")]
    words += ["--boards", str(tables / "none")]
    found = json.loads(CliRunner().invoke(cli, [*words, "--json"], catch_exceptions=False).output)
    assert [(d["dataset"], d["n"], d["references"]) for d in found["datasets"]] == [("one", 72, 12), ("two", 90, 15)]
    near, far = found["rows"]
    assert (near["model"], far["model"], near["mean_rank"]["srcc"], far["mean_rank"]["srcc"]) == ("near", "far", 1, 2)
    srcc = {}
    for name in ("one", "two"):
        given = [np.genfromtxt(tables / p, delimiter=",", skip_header=1, usecols=1) for p in (f"suite/{name}.csv",)]
        given += [np.genfromtxt(tables / "scores" / name / "near.csv", delimiter=",", skip_header=1, usecols=1)]
        srcc[name] = stats.spearmanr(*given)[0]
        assert near["figures"][name]["srcc"] == pytest.approx(srcc[name])
        assert near["figures"][name]["best"] == ["srcc", "plcc"]
        assert far["figures"][name]["best"] == []
    assert near["weighted_mean"]["srcc"] == pytest.approx((72 * srcc["one"] + 90 * srcc["two"]) / 162)


def test_one_file_of_scores_may_cover_several_datasets(tables: Path) -> None:
    parts = [(tables / "scores" / name / "near.csv").read_text().splitlines() for name in ("one", "two")]
    (tables / "all.csv").write_text("\n".join(["name,score", *parts[0][1:], *parts[1][1:]]) + "\n")
    words = ["run", "--scores", str(tables / "all.csv"), "--name", "near", "--suite", str(tables / "suite" / "mine.toml")]
    words += ["--runs", str(tables / "runs"), "--mlflow-uri", "off", "--json"]
    refused = CliRunner().invoke(cli, words)
    assert "--inner" in str(refused.exception)
    found = json.loads(CliRunner().invoke(cli, [*words, "--inner"], catch_exceptions=False).stdout)
    assert [(row["dataset"], row["n"], row["partial"]) for row in found] == [("one", 72, False), ("two", 90, False)]


def test_protocols_and_folders_of_a_suite_are_resolved_before_any_work(tmp_path: Path) -> None:
    card = tmp_path / "s.toml"
    text = 'name = "s"\ntitle = "t"\ndatasets = ["live-first", "csiq", "demo"]\nprotocol = "full"\n[protocols]\n'
    card.write_text(text + 'csiq = "by-reference"\ndemo = "held-out-references"\n')
    suite = load_suite(str(card), root=tmp_path)
    assert [entry.protocol for entry in suite.datasets] == ["full", "by-reference", "held-out-references"]
    # Cards over the same files share a folder.
    assert [entry.root for entry in suite.datasets] == [str(tmp_path / name) for name in ("live", "csiq", "demo")]
    card.write_text(text + 'demo = "held-out-references"\n')
    assert {entry.protocol for entry in load_suite(str(card)).datasets} == {"full", "held-out-references"}
    with pytest.raises(UsageError, match=r"live-first has no protocol 'x'.*\n.*csiq has no protocol 'x'"):
        load_suite(str(card), protocol="x")


def test_a_table_that_is_absent_is_named_first_and_the_other_runs(tables: Path) -> None:
    (tables / "suite" / "two.csv").rename(tables / "moved.csv")
    said = run_scores("near", tables)
    assert said.index("two: no such table") < said.index("one · full")
    assert "1 of the suite's 2 datasets" in said


def test_absent_datasets_are_named_first_with_how_to_get_them(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    shutil.copytree(tree("csiq"), data / "csiq")
    words = ("run", "psnr", "--suite", "classic", "--mlflow-uri", "off", "--device", "cpu")
    said = harness(*words, cwd=tmp_path, data=data)
    assert said.status == 0, said.err
    assert said.err.splitlines()[0] == "classic: absent: live, tid2013, kadid10k; the others run: csiq"
    assert "How to get live:" in said.err
    assert "harness data get kadid10k" in said.err
    assert "1 of the suite's 4 datasets" in said.out
    assert "no record here: live, tid2013, kadid10k" in said.out
    (data / "tid2013").mkdir()
    said = harness(*words, "--json", cwd=tmp_path, data=data)
    assert said.status != 0, "a dataset that is there and cannot be read is a fault"
    assert [row["dataset"] for row in json.loads(said.out)] == ["csiq"], "and the others' results are kept"
    assert "tid2013" in said.err
    shutil.rmtree(data)
    said = harness(*words, cwd=tmp_path, data=tmp_path)
    assert said.status == 2
    assert "none of its datasets can be used here" in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "psnr", "--suite", "clasic"], "did you mean 'classic'"),
        (["run", "psnr"], "give --dataset NAME"),
        (["run", "psnr", "--suite", "classic", "--dataset", "demo"], "give --dataset NAME"),
        (["run", "psnr", "--suite", "classic", "--test-on", "demo"], "leave out --test-on"),
        (["run", "psnr", "--suite", "classic", "--protocol", "ful"], "live has no protocol 'ful'; did you mean 'full'"),
        (["leaderboard", "--suite", "classic", "--columns", "x"], "no column x"),
        (["leaderboard", "--suite", "classic", "--json", "--csv"], "choose one form"),
        (["leaderboard", "--columns", "srcc"], "--columns needs --suite or --latex"),
        (["leaderboard", "--standalone"], "--standalone needs --latex"),
        (["leaderboard", "demo", "--suite", "classic"], "leave out demo"),
    ],
)
def test_a_wrong_request_is_one_clear_error(words: list[str], message: str, tmp_path: Path) -> None:
    said = CliRunner().invoke(cli, words)
    assert isinstance(said.exception, UsageError)
    assert message in str(said.exception)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"datasets": []}, "datasets is empty"),
        ({"datasets": ["a", "b", "a"]}, "names a more than once"),
        ({"datasets": ["alpha"], "protocols": {"alpa": "full"}}, "did you mean 'alpha'"),
        ({"datasets": ["a"], "protocl": "full"}, "did you mean 'protocol'"),
    ],
)
def test_a_suites_card_is_checked(table: dict[str, object], problem: str) -> None:
    with pytest.raises(UsageError, match=re.escape(problem)):
        parse_card(SuiteCard, {"name": "s", "title": "t", **table}, "s.toml")


def test_suites_are_listed_shown_and_found_in_a_flat_folder(tmp_path: Path) -> None:
    (tmp_path / "demo.toml").write_text('name = "demo"\ntitle = "Of one\'s own"\ndatasets = ["demo"]\n')
    assert list(load_cards("suites", [tmp_path])) == ["classic", "demo"]
    assert find_suite("demo", [tmp_path]).datasets == ("demo",)
    assert "demo" in load_cards("datasets", [tmp_path])
    listed = json.loads(CliRunner().invoke(cli, ["list", "suites", "--json"]).output)
    assert [(row["name"], row["datasets"]) for row in listed] == [("classic", list(CLASSIC))]
    assert "datasets: live, csiq, tid2013, kadid10k" in CliRunner().invoke(cli, ["show", "classic"]).output


def test_real_scores_of_nine_metrics_give_the_matrix_and_its_groups(shared: Path, tmp_path: Path) -> None:
    values: dict[str, dict[str, list[float]]] = {}
    for name, reference, higher, kept in (("kadid10k", "ref_img", "true", 12), ("csiq", "image", "false", 30)):
        with open(shared / "data" / "crossval" / f"{name}.VQMT.csv", newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        some = list(dict.fromkeys(row[reference] for row in rows))[:kept]  # all of KADID-10k takes a minute and a half
        rows = [row for row in rows if row[reference] in some]
        names = [row.get("dist_img") or f"{row['image']}.{row['dst_type']}.{row['dst_lev']}.png" for row in rows]
        (tmp_path / f"{name}.csv").write_text(
            "name,score,reference_id\n"
            + "".join(f"{n},{row['dmos']},{row[reference]}\n" for n, row in zip(names, rows, strict=True))
        )
        (tmp_path / f"{name}-scores.toml").write_text(
            f'name = "{name}-scores"\ntitle = "{name}"\nreader = "harness.datasets:read_table"\nhigher_is_better = {higher}\n'
            f'default_protocol = "full"\n[layout]\ntable = "{name}.csv"\n[protocols.full]\nsplit = "full"\n'
        )
        metrics = list(rows[0])[6:]
        sign = 1 if higher == "true" else -1
        values[f"{name}-scores"] = {"": [sign * float(row["dmos"]) for row in rows]}
        for metric in metrics:
            values[f"{name}-scores"][metric] = [-float(row[metric]) for row in rows]
            place = tmp_path / f"{name}-scores" / f"{metric}.csv"
            place.parent.mkdir(exist_ok=True)
            lines = [f"{n},{row[metric]}\n" for n, row in zip(names, rows, strict=True)]
            place.write_text("name,score\n" + "".join(lines))
    (tmp_path / "two.toml").write_text('name = "two"\ntitle = "Two sets"\ndatasets = ["kadid10k-scores", "csiq-scores"]\n')
    here = ["--suite", "two", "--cards", str(tmp_path), "--runs", str(tmp_path / "runs")]
    for metric in metrics:
        words = ["--scores", str(tmp_path / "{dataset}" / f"{metric}.csv"), "--name", metric, "--lower-is-better"]
        CliRunner().invoke(cli, ["run", *words, *here, "--mlflow-uri", "off", "--quiet"], catch_exceptions=False)
    said = CliRunner().invoke(cli, ["leaderboard", *here, "--boards", str(tmp_path / "none"), "--json"], catch_exceptions=False)
    found = json.loads(said.output)
    assert len(found["rows"]) == 9
    assert all(row["complete"] for row in found["rows"])
    assert found["rows"][0]["model"] == "DSSIM"
    for dataset, given in values.items():
        for row in found["rows"]:
            cell = row["figures"][dataset]
            assert cell["srcc"] == pytest.approx(stats.spearmanr(given[row["model"]], given[""])[0], abs=1e-12)
            assert cell["plcc"] == pytest.approx(stats.pearsonr(given[row["model"]], given[""])[0], abs=1e-12)
        by_srcc = max(found["rows"], key=lambda row: row["figures"][dataset]["srcc"])
        assert "srcc" in by_srcc["figures"][dataset]["best"]
        marked = {row["model"] for row in found["rows"] if "srcc" in row["figures"][dataset]["best"]}
        assert marked != {row["model"] for row in found["rows"]}, "the worst of nine is below the best"
    for row in found["rows"]:
        ranks = []
        for dataset in values:
            ordered = [other["figures"][dataset]["srcc"] for other in found["rows"]]
            mine = found["rows"].index(row)
            ranks.append(stats.rankdata([-v for v in ordered])[mine])
        assert row["mean_rank"]["srcc"] == pytest.approx(np.mean(ranks))
