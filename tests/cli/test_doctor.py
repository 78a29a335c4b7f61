"""`harness doctor`: its output, and the libraries that it does not import."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cards.loading import load_cards
from harness.cli import doctor


def test_doctor_says_versions_devices_and_folders(tmp_path: Path):
    result = CliRunner().invoke(doctor.doctor, ["--runs", str(tmp_path / "runs"), "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.output)
    assert facts["folders"]["runs"] == str(tmp_path / "runs")
    assert facts["versions"]["torch"]
    assert facts["missing"] == []
    assert facts["device"][-1].startswith("cpu, ")
    assert all(facts["ok"].values())
    text = CliRunner().invoke(doctor.doctor, ["--runs", str(tmp_path / "runs")]).output
    assert f"runs             {tmp_path / 'runs'}" in text
    assert "FAULT" not in text


def test_doctor_marks_what_stops_work_and_exits_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cards = tmp_path / "cards"
    cards.mkdir()
    (cards / "broken.toml").write_text("name = ", encoding="utf-8")
    monkeypatch.setenv("HARNESS_CARDS", str(cards))
    monkeypatch.setattr(doctor, "REQUIRED", (*doctor.REQUIRED, "no_such_package"))
    result = CliRunner().invoke(doctor.doctor, ["--runs", str(tmp_path)])
    assert result.exit_code == 1
    assert "FAULT            dependencies" in result.output
    assert "FAULT            cards" in result.output
    assert "broken.toml" in result.output


def test_doctor_as_a_process_says_what_it_found_and_ends_with_its_verdict(tmp_path: Path):
    command = [sys.executable, "-m", "harness", "doctor", "--runs", "absent/runs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if not line.startswith("ok"))
    assert said["runs"] == str(tmp_path / "absent" / "runs")
    assert said["cards"].startswith(f"{len(load_cards('models'))} models, ")
    assert said["processor"].endswith(f"{os.cpu_count()} cores")
    assert {line[17:] for line in done.stdout.splitlines() if line.startswith("ok ")} == {
        "dependencies", "cards", "runs folder writable", "free space",
    }  # fmt: skip
    assert not (tmp_path / "absent").exists()


def test_doctor_marks_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12 - 10**8, 10**8))
    result = CliRunner().invoke(doctor.doctor, ["--runs", str(tmp_path)])
    assert result.exit_code == 1
    assert "FAULT            free space" in result.output
    assert "0.1 GB" in result.output


def test_doctor_imports_no_torch_where_no_gpu_is():
    if any(Path(driver).exists() for driver in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")) or sys.platform == "darwin":
        pytest.skip("a GPU's driver is there, so torch is asked")
    call = "try: main(['doctor'])\nexcept SystemExit: print('torch' in sys.modules)"
    code = f"import sys; from harness.cli.main import main\n{call}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
