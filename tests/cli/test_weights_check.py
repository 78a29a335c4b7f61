"""`harness weights check`: where files of weights are, what is wrong with them, and its exit status."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

pytestmark = pytest.mark.slow

CARD = """
name = "mine"
title = "A network of mine"
class = "mine:Mine"
higher_is_better = true

[[weights]]
name = "trunk"
use = "always"
file = "trunk.safetensors"
sha256 = "{sha256}"
sources = ["https://example.org/trunk.safetensors"]
licence = "MIT"
bytes = {bytes}

[[weights]]
name = "heads"
use = "released"
file = "heads.safetensors"
sources = ["https://example.org/heads.safetensors"]
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the card of a model of two files, of which one is in the folder of weights."""
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    (tmp_path / "cards").mkdir()
    file = tmp_path / "cache" / "weights" / "trunk.safetensors"
    save_file({"w": torch.arange(3.0)}, file)
    data = file.read_bytes()
    card = CARD.format(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    (tmp_path / "cards" / "mine.toml").write_text(card)
    return tmp_path


def _check(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("HARNESS_WEIGHTS", "HF_HOME", "TORCH_HOME")}
    return subprocess.run(
        [sys.executable, "-m", "harness", "weights", "check", *words],
        cwd=place,
        env=environment | {"HARNESS_CACHE": str(place / "cache"), "HOME": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )


def _rows(place: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    done = _check(place, "mine", "--cards", "cards", "--json")
    return done.returncode, {row["part"]: row for row in json.loads(done.stdout)}


@pytest.mark.slow
def test_what_is_there_is_ok_and_what_is_optional_may_be_missing(place: Path):
    done = _check(place, "mine", "--cards", "cards")
    assert (done.returncode, done.stderr) == (0, "")
    trunk, heads = done.stdout.split("heads (released)")
    assert trunk.startswith("trunk (always): ok\n")
    assert f"  file: {place / 'cache' / 'weights' / 'trunk.safetensors'}, 0.0 MB, licence MIT\n" in trunk
    assert heads.startswith(": missing (optional: only --weights released needs it)\n")
    assert "  source: https://example.org/heads.safetensors\n" in heads
    assert f"  looked for: {place / 'cache' / 'weights' / 'heads.safetensors'}\n" in heads
    assert _rows(place)[1]["trunk"]["ok"] is True


def test_a_file_that_is_needed_and_missing_ends_with_status_1(place: Path):
    (place / "cache" / "weights" / "trunk.safetensors").unlink()
    status, rows = _rows(place)
    assert status == 1
    assert (rows["trunk"]["ok"], rows["trunk"]["status"], rows["trunk"]["path"]) == (False, "missing", None)
    assert str(place / "cache" / "weights" / "trunk.safetensors") in rows["trunk"]["looked"]


def test_a_file_of_another_content_is_reported_and_ends_with_status_1(place: Path):
    save_file({"w": torch.arange(4.0)}, place / "cache" / "weights" / "trunk.safetensors")
    done = _check(place, "mine", "--cards", "cards")
    assert done.returncode == 1
    first = done.stdout.splitlines()[0]
    assert first.startswith("trunk (always): ")
    assert "ok" not in first
    assert "sha256" in first


@pytest.mark.slow
def test_models_without_weights_and_with_carried_ones_are_ready(place: Path):
    none = _check(place, "psnr")
    assert (none.returncode, none.stdout) == (0, "this model needs no weights\n")
    carried = _check(place, "lpips-alex")
    assert carried.returncode == 0
    assert carried.stdout.startswith("network (always): ok\n")


def test_an_unknown_model_is_refused_with_a_near_name(place: Path):
    done = _check(place, "lpips-alx")
    assert done.returncode == 2
    assert "'lpips-alx'" in done.stderr
    assert "lpips-alex" in done.stderr
