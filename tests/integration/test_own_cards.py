"""A user's own model and dataset: the examples of the guides and README work from a folder outside the project.

Under tox the `harness` that runs is the one of the installed wheel.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from miniatures import tree
from small import write_table

ROOT = Path(__file__).resolve().parents[2]
MODEL, DATASET, README = ROOT / "docs/guides/own-model.md", ROOT / "docs/guides/own-dataset.md", ROOT / "README.md"


def block(document: Path, first: str) -> str:
    """The block of code in a document, fenced or indented, that begins with the line `first`."""
    text = document.read_text(encoding="utf-8")
    fenced = re.findall(r"^```\w+\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    indented = [textwrap.dedent(found) for found in re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)]
    (found,) = (code for code in [*fenced, *indented] if re.match(rf"{re.escape(first)} *(#.*)?\n", code))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outside")
    (folder / "cards").mkdir()
    (folder / "cards" / "contrast.py").write_text(block(MODEL, "import torch"))
    (folder / "cards" / "contrast.toml").write_text(block(MODEL, 'name = "contrast"'))
    (folder / "cards" / "mine.toml").write_text(block(DATASET, 'name = "mine"'))
    (folder / "cards" / "multiply.toml").write_text(block(DATASET, 'name = "multiply"'))
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


def test_the_readmes_model_and_dataset_are_run_by_its_command(tmp_path: Path):
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "contrast.py").write_text(block(README, "class Contrast:"))
    (tmp_path / "cards" / "contrast.toml").write_text(block(README, 'name = "contrast"'))
    (tmp_path / "cards" / "mine.toml").write_text(block(README, 'name = "mine"'))
    write_table(tmp_path).rename(tmp_path / "pairs.csv")
    (result,) = json.loads(harness(tmp_path, "run", "contrast", "--dataset", "mine", "--mlflow-uri", "off", "--json"))
    assert (result["model"], result["dataset"], result["n"]) == ("contrast", "mine", 36)


def test_a_model_without_a_card_is_an_object_in_a_script(tmp_path: Path):
    (script,) = (
        code for code in re.findall(r"```python\n(.*?)```", MODEL.read_text(encoding="utf-8"), re.DOTALL) if "evaluate" in code
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert -1 <= float(done.stdout) <= 1
