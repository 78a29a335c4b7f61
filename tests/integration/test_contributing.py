"""What CONTRIBUTING.md shows does what it says: cards and a class in a folder outside the project, used by `--cards` alone.

Under tox the `harness` that runs is the one of the installed wheel.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from miniatures import tree
from small import write_table

TEXT = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


def block(first: str) -> str:
    """The indented block that begins with the line `first`."""
    lines = TEXT.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip() == first)
    depth = len(lines[start]) - len(lines[start].lstrip())
    end = next(i for i in range(start, len(lines)) if lines[i].strip() and len(lines[i]) - len(lines[i].lstrip()) < depth)
    written = textwrap.dedent("\n".join(lines[start:end]))
    return written.partition("\nharness ")[0] + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outside")
    (folder / "cards").mkdir()
    (folder / "cards" / "contrast.py").write_text(block("import torch"))
    (folder / "cards" / "contrast.toml").write_text(block('name = "contrast"'))
    (folder / "cards" / "mine.toml").write_text(block('name = "mine"'))
    (folder / "cards" / "multiply.toml").write_text(block('name = "multiply"'))
    write_table(folder / "pictures").rename(folder / "pictures" / "pairs.csv")
    return folder


def harness(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "harness", *words, "--cards", "cards"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_model_and_a_dataset_of_ones_own_are_run_from_a_folder_of_cards(folder: Path):
    words = ["run", "contrast", "psnr", "--dataset", "mine", "--root", "pictures", "--protocol", "full"]
    results = json.loads(harness(folder, *words, "--mlflow-uri", "off", "--json"))
    assert [(r["model"], r["dataset"], r["n"]) for r in results] == [("contrast", "mine", 36), ("psnr", "mine", 36)]
    # The card says that lower labels are better, while this table's fall with the distortion: a wrong sign is shown.
    assert results[1]["srcc"] < -0.5
    assert {"contrast", "mine"} <= {row["name"] for row in json.loads(harness(folder, "list", "--json"))}


def test_a_dataset_in_a_known_layout_is_one_card_and_no_code(folder: Path):
    root = str(tree("mdid"))
    report = json.loads(harness(folder, "data", "check", "multiply", "--root", root, "--allow-incomplete", "--json"))
    assert report["ok"]
    assert any("the card says 1,600" in problem["what"] for problem in report["problems"])
    (result,) = json.loads(
        harness(folder, "run", "psnr", "--dataset", "multiply", "--root", root, "--mlflow-uri", "off", "--json")
    )
    assert (result["n"], result["references"]) == (50, 5)
    assert result["srcc"] > 0.9
