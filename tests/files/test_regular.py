"""Pipes and devices are refused before they are opened, because opening could wait without end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small import write_table

from harness.files.atomic import write_text
from harness.files.regular import require_regular
from harness.runtime.errors import Unwritable

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")


def test_a_regular_file_a_folder_and_what_is_not_there_are_left_to_the_opening(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    for path in ("file", ".", "nothing"):
        require_regular(tmp_path / path)


def test_pipes_devices_and_links_to_them_are_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path, kind in ((tmp_path / "pipe", "a pipe"), (tmp_path / "link", "a pipe"), (Path("/dev/zero"), "a device")):
        with pytest.raises(OSError, match=f"it is {kind}, not a regular file"):
            require_regular(path)


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path):
    os.mkfifo(tmp_path / "out.csv")
    with pytest.raises(Unwritable, match="it is a pipe"):
        write_text(tmp_path / "out.csv", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    assert (tmp_path / "out.csv").is_fifo()


COMMANDS = {
    "an image": "score psnr {pipe} {image}",
    "a distorted image": "score psnr {image} {pipe}",
    "a device": "score psnr /dev/zero {image}",
    "a table of pairs": "score psnr --pairs {pipe}",
    "a dataset's table": "run psnr --dataset {pipe}.csv --mlflow-uri off",
    "a dataset's image": "run psnr --dataset {table} --mlflow-uri off",
    "score files": "agreement {pipe} {pipe}",
    "scores": "run --scores {pipe} --name x --dataset {table} --mlflow-uri off",
    "weights": "score ahiq-tiny {image} {image} --weights {pipe}",
    "trained weights": "run ahiq-tiny --dataset demo --weights {pipe} --mlflow-uri off",
    "init weights": "run ahiq-tiny --dataset demo --init {pipe} --mlflow-uri off",
    "a card": "show x --cards {cards}",
    "a card's path": "show {cards}/x.toml",
    "a zip": "submission check {pipe} --challenge ntire2022-fr",
    "labels of a zip": "submission score {pipe} --challenge ntire2022-fr --labels {pipe}",
    "a record": "verify {run}",
    "a compared record": "compare {run} {run}",
    "a member": "ensemble {pipe} {pipe} --dataset {table} --out card.toml --mlflow-uri off",
    "the output": "score psnr --pairs {pairs} --out {pipe}",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", COMMANDS)
def test_a_pipe_in_place_of_a_file_is_one_line_and_the_command_ends(tmp_path: Path, what: str):
    pipe, cards, run = tmp_path / "pipe", tmp_path / "cards", tmp_path / "run"
    table = write_table(tmp_path / "data")
    images = sorted((tmp_path / "data").glob("*.png"))
    (tmp_path / "pairs.csv").write_text(f"reference,distorted\n{images[0]},{images[0]}\n")
    cards.mkdir(), run.mkdir()
    for path in (pipe, tmp_path / "pipe.csv", cards / "x.toml", run / "record.json"):
        os.mkfifo(path)
    if what == "a dataset's image":
        images[-1].unlink()
        os.mkfifo(images[-1])
    line = COMMANDS[what].format(pipe=pipe, image=images[0], table=table, cards=cards, run=run, pairs=tmp_path / "pairs.csv")
    words = [sys.executable, "-m", "harness", *line.split()]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode in (1, 2), done.stderr
    assert "defect" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "pipe" in done.stderr or "device" in done.stderr or images[-1].name in done.stderr or "x.toml" in done.stderr, (
        done.stderr
    )
