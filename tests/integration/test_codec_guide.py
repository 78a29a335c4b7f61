"""docs/guides/codecs.md: its script and its three commands, run unchanged, in separate processes."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs/guides/codecs.md"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the guide was followed to the end; each command's output is kept."""
    if not GUIDE.is_file():
        pytest.skip("the guide is not in an installed package")
    folder = tmp_path_factory.mktemp("guide")
    text = GUIDE.read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, timeout=120)
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    commands = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    assert len(commands) == 3
    for number, command in enumerate(commands):
        done = called(folder, *shlex.split(command)[1:])
        assert done.returncode == 0, done.stderr
        (folder / f"said{number}").write_text(done.stdout, encoding="utf-8")
    return folder


def called(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, "-m", "harness", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_guides_three_commands_lead_to_a_decision(world: Path):
    table = rows(world / "scores.csv")
    assert len(table) == 50
    assert {row["codec"] for row in table} == {"jpeg", "webp"}
    assert all(int(row["bytes"]) == (world / row["distorted"]).stat().st_size for row in table)
    assert not (world / "scores.csv.partial").exists()
    for page, parts in (
        ("scores.html", ("Distributions", "The worst pairs", "metrics disagree")),
        ("codecs.html", ("psnr", "By image")),
    ):
        text = (world / page).read_text(encoding="utf-8")
        assert all(part in text for part in parts)
        assert "data:image/png" in text
        assert not re.search(r'(src|href)="http', text)
    assert "psnr      webp" in (world / "said1").read_text()
    assert "5 images: a group of the best needs at least 6 images" in (world / "said2").read_text()


def test_the_guide_shows_what_the_commands_print(world: Path):
    guide = GUIDE.read_text(encoding="utf-8")
    for number in (1, 2):  # numbers follow the versions of Pillow's libraries, words do not
        for line in (world / f"said{number}").read_text(encoding="utf-8").splitlines():
            words = re.sub(r"\s+", " ", re.sub(r"[-+]?\.?\d[\d.]*|<", "#", line)).strip()
            shown = {re.sub(r"\s+", " ", re.sub(r"[-+]?\.?\d[\d.]*|<", "#", have)).strip() for have in guide.splitlines()}
            assert re.sub("-{3,}", "---", words) in {re.sub("-{3,}", "---", have) for have in shown}, line


@pytest.mark.parametrize("method", ["akima", "pchip"])
def test_the_same_images_in_ten_percent_more_bytes_cost_ten_percent(world: Path, method: str):
    table = [row for row in rows(world / "scores.csv") if row["codec"] == "jpeg"]
    more = [{**row, "codec": "padded", "bytes": str(round(int(row["bytes"]) * 1.1))} for row in table]
    with open(world / "padded.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(table[0]))
        writer.writeheader()
        writer.writerows([*table, *more])
    document = json.loads(called(world, "codecs", "padded.csv", "--anchor", "jpeg", "--method", method, "--json").stdout)
    assert [result["metric"] for result in document["results"]] == ["psnr", "ssim"]
    for result in document["results"]:
        assert result["rate"]["mean"] == pytest.approx(10.0, abs=0.2)
        assert result["rate"]["n"] == 5
        assert result["gaining"] == 0
        assert all(step["quality"]["mean"] == 0 for step in result["at_settings"])
