"""Identity of runs through the command line: changed images, labels or code never give an old result."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import challenge
import pytest
from PIL import Image
from small import write_network, write_table

HARNESS = [sys.executable, "-m", "harness"]
MODEL = "class Brightness:\n    higher_is_better = True\n\n    def score(self, reference, distorted):\n        return {formula}\n"
ONE, OTHER = "-(distorted - reference).abs().mean((1, 2, 3))", "distorted.mean((1, 2, 3))"
CARD = 'name = "brightness"\ntitle = "B"\nclass = "brightness:Brightness"\nhigher_is_better = true\n'


def call(folder: Path, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*HARNESS, *words], capture_output=True, text=True, cwd=folder, env={**os.environ, "HARNESS_CACHE": str(folder / "cache")}
    )
    assert done.returncode == status, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


def run(folder: Path, *words: str, runs: str = "runs") -> dict[str, Any]:
    return json.loads(call(folder, "run", *words, "--runs", runs, "--mlflow-uri", "off", "--json").stdout)[0]


def damage(folder: Path) -> None:
    """Half of the distorted images become others, in files of the same size and times."""
    for path in sorted(folder.glob("r*_*_3.png")):
        facts = path.stat()
        other = path.with_name(path.name.replace("_3", "_1"))
        mine, theirs = path.read_bytes(), other.read_bytes()
        path.write_bytes(theirs)
        other.write_bytes(mine)
        for file in (path, other):
            os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@pytest.fixture
def table(tmp_path: Path) -> str:
    write_table(tmp_path / "data")
    return "data/table.csv"


def test_images_encoded_again_in_place_give_their_own_number(tmp_path: Path, table: str):
    first = run(tmp_path, "psnr", "--dataset", table)
    damage(tmp_path / "data")
    second, truth = run(tmp_path, "psnr", "--dataset", table), run(tmp_path, "psnr", "--dataset", table, runs="fresh")
    assert second["srcc"] == truth["srcc"] != first["srcc"]
    assert second["key"] == truth["key"] != first["key"]


def test_another_root_is_another_run_only_where_its_images_differ(tmp_path: Path, table: str):
    """Another root with other images is another run and with the same images the same."""
    for name in ("same", "other"):
        shutil.copytree(tmp_path / "data", tmp_path / name)
    damage(tmp_path / "other")
    keys = [run(tmp_path, "psnr", "--dataset", table, "--root", root)["key"] for root in ("data", "same", "other")]
    assert keys[0] == keys[1] != keys[2]


def test_an_edited_formula_is_another_model_and_an_edited_comment_is_not(tmp_path: Path, table: str):
    cards = tmp_path / "cards"
    cards.mkdir()
    (cards / "brightness.toml").write_text(CARD)
    (cards / "brightness.py").write_text(MODEL.format(formula=ONE))
    words = ("brightness", "--dataset", table, "--cards", "cards")
    first = run(tmp_path, *words)
    (cards / "brightness.py").write_text("# a remark\n" + MODEL.format(formula=ONE).replace("    def", "    # another\n    def"))
    (cards / "brightness.toml").write_text(CARD.replace('"B"', '"Another title"') + 'description = "prose"\n')
    assert run(tmp_path, *words)["key"] == first["key"]
    (cards / "brightness.py").write_text(MODEL.format(formula=OTHER))
    second = run(tmp_path, *words)
    assert second["key"] != first["key"]
    assert second["srcc"] == run(tmp_path, *words, runs="fresh")["srcc"] != first["srcc"]


def test_a_module_that_the_models_file_imports_from_its_folder_is_part_of_the_model(tmp_path: Path, table: str):
    cards = tmp_path / "cards"
    (cards / "brightness").mkdir(parents=True)
    (cards / "brightness.toml").write_text(CARD)
    (cards / "brightness" / "__init__.py").write_text(
        "from .formula import value\n\n" + MODEL.format(formula="value(reference, distorted)")
    )
    (cards / "brightness" / "formula.py").write_text(f"def value(reference, distorted):\n    return {ONE}\n")
    words = ("brightness", "--dataset", table, "--cards", "cards")
    first = run(tmp_path, *words)
    (cards / "brightness" / "formula.py").write_text(f"def value(reference, distorted):\n    return {OTHER}\n")
    assert run(tmp_path, *words)["srcc"] != first["srcc"]


def test_a_corrected_polarity_of_the_labels_is_another_run(tmp_path: Path, table: str):
    """A corrected polarity of the labels is another run and is not ranked with the first."""
    card = tmp_path / "mine.toml"
    text = (
        'name = "mine"\ntitle = "Mine"\nreader = "harness.datasets:read_table"\nhigher_is_better = {}\n'
        'default_protocol = "full"\n[layout]\ntable = "table.csv"\n[protocols.full]\nsplit = "full"\n'
    )
    card.write_text(text.format("true"))
    words = ("psnr", "--dataset", "mine.toml", "--root", "data")
    first = run(tmp_path, *words)
    card.write_text(text.format("false"))
    second = run(tmp_path, *words)
    assert second["srcc"] == pytest.approx(-first["srcc"])
    rows = json.loads(call(tmp_path, "leaderboard", "--runs", "runs", "--boards", "none", "--json").stdout)
    assert sorted(row["rank"] is None for row in rows if row["model"] == "psnr") == [False, True]


def test_images_that_change_while_a_run_is_stopped_are_all_scored_again(tmp_path: Path, table: str):
    write_table(tmp_path / "data", references=40)
    words = [*HARNESS, "run", "ssim", "--dataset", table, "--runs", "runs", "--mlflow-uri", "off", "--batch", "1", "--quiet"]
    process = subprocess.Popen(words, cwd=tmp_path, env={**os.environ, "HARNESS_CACHE": str(tmp_path / "cache")})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        scores = list((tmp_path / "runs").rglob("scores.csv"))
        if scores and len(scores[0].read_bytes().splitlines()) > 3:
            break
    process.kill()
    process.wait()
    damage(tmp_path / "data")
    found, truth = run(tmp_path, "ssim", "--dataset", table), run(tmp_path, "ssim", "--dataset", table, runs="fresh")
    assert found["srcc"] == truth["srcc"]
    scores = [(Path(tmp_path / r["run"]) / "scores.csv").read_text() for r in (found, truth)]
    assert scores[0] == scores[1]


def test_images_that_change_while_a_run_reads_them_end_it_and_nothing_is_recorded(tmp_path: Path, table: str):
    cards = tmp_path / "cards"
    cards.mkdir()
    (cards / "brightness.toml").write_text(CARD)
    victim = tmp_path / "data" / "r5_fade_3.png"
    # Whole at any moment, as a tool that encodes again leaves it.
    names = f"{str(victim)[:-5] + '1.png'!r}, {str(tmp_path / 'new')!r}"
    copy = f"        os.replace(shutil.copy({names}), {str(victim)!r})\n        return"
    source = MODEL.format(formula=ONE).replace("        return", copy)
    (cards / "brightness.py").write_text("import os, shutil\n\n\n" + source)
    done = call(
        tmp_path, "run", "brightness", "--dataset", table, "--cards", "cards", "--runs", "runs", "--mlflow-uri", "off", status=1
    )
    assert "1 images changed while the run read them: r5_fade_3.png" in done.stderr
    assert not list((tmp_path / "runs").rglob("record.json"))


def test_a_trained_run_on_changed_training_images_is_trained_again(tmp_path: Path, table: str):
    write_network(tmp_path / "cards")
    words = ("small", "--dataset", table, "--protocol", "parts", "--cards", "cards")
    first = run(tmp_path, *words)
    victim = tmp_path / "data" / "r0_fade_1.png"
    Image.open(tmp_path / "data" / "r0_fade_3.png").save(victim)
    assert run(tmp_path, *words)["key"] != first["key"]


def test_runs_on_images_of_other_content_are_not_compared_or_ranked_together(tmp_path: Path, table: str):
    """Two runs on images of other content are not compared and not ranked together."""
    one = run(tmp_path, "psnr", "--dataset", table)
    damage(tmp_path / "data")
    other = run(tmp_path, "ssim", "--dataset", table)
    done = call(tmp_path, "compare", one["run"], other["run"], status=2)
    assert "images with the same names and different content" in done.stderr
    rows = json.loads(call(tmp_path, "leaderboard", "--runs", "runs", "--boards", "none", "--json").stdout)
    measured = [row for row in rows if row["kind"] == "measured"]
    assert sorted(row["rank"] is None for row in measured) == [False, True]
    assert all("other images" in row["marks"] for row in measured if row["rank"] is None)


def test_a_submission_is_of_the_images_as_they_are(tmp_path: Path):
    root = challenge.write_tree(tmp_path / "tree")
    words = ("--challenge", "ntire2022-fr", "--root", str(root), "--runs", "runs", "--mlflow-uri", "off", "--json")

    def lines(out: str, *more: str) -> str:
        call(tmp_path, "submit", *(more or ("psnr",)), *words, "--out", out)
        return zipfile.ZipFile(tmp_path / out).read("output.txt").decode()

    before = lines("a.zip")
    (folder,) = {path.parent for path in (tmp_path / "runs").rglob("record.json")}
    images = sorted(path for path in root.rglob("*.bmp") if path.name in before)
    one, two = random.Random(0).sample(images, 2)
    mine, theirs = one.read_bytes(), two.read_bytes()
    one.write_bytes(theirs)
    two.write_bytes(mine)
    assert lines("b.zip") != before
    refused = call(tmp_path, "submit", str(folder), *words, "--out", "c.zip", status=2)
    assert one.name in refused.stderr
    assert not (tmp_path / "c.zip").exists()


def test_figures_are_measured_again_from_scores_when_a_column_that_they_use_changes(tmp_path: Path, table: str):
    path = tmp_path / table
    lines = path.read_text().splitlines()
    with_std = [lines[0] + ",std,raters", *(f"{line},{0.5 + i % 3 / 10},20" for i, line in enumerate(lines[1:]))]
    path.write_text("\n".join(with_std) + "\n")
    first = run(tmp_path, "psnr", "--dataset", table)
    scores = (tmp_path / first["run"] / "scores.csv").stat().st_mtime_ns
    path.write_text("\n".join(line.replace(",20", ",5") for line in with_std) + "\n")
    second, truth = run(tmp_path, "psnr", "--dataset", table), run(tmp_path, "psnr", "--dataset", table, runs="fresh")
    assert second["key"] == first["key"] == truth["key"]
    assert second["discrimination"] == truth["discrimination"] != first["discrimination"]
    assert (tmp_path / first["run"] / "scores.csv").stat().st_mtime_ns == scores
