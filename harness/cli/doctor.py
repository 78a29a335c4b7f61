"""`harness doctor`: versions, devices and folders, and problems of the installation."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import click

from harness.cards.loading import load_cards
from harness.cards.schema import KINDS
from harness.cli import options as o
from harness.cli.options import echo, options
from harness.results.conditions import libraries
from harness.runtime.errors import HarnessError
from harness.runtime.machine import processor


@dataclass(frozen=True)
class DoctorOptions:
    """Options of `harness doctor`."""

    runs: o.Runs
    as_json: o.Json


@click.command()
@options(DoctorOptions)
def doctor(chosen: DoctorOptions) -> None:
    """Print the installed versions, the devices and the folders in use, and any problems."""
    found = facts(chosen.runs)
    echo(o.json_text(asdict(found)) if chosen.as_json else as_text(found))
    if not all(found.ok.values()):
        raise SystemExit(1)


REQUIRED = tuple("torch torchvision timm pandas scipy ray mlflow PIL tabulate click rich safetensors cv2 openpyxl".split())
EXTRAS = ("pyiqa", "piq", "lpips", "stlpips_pytorch")


@dataclass(frozen=True)
class Facts:
    """Everything that is checked."""

    versions: dict[str, str]
    missing: list[str]
    extras: list[str]
    processor: str
    cores: int | None
    device: list[str]
    cards: dict[str, int]
    card_problem: str
    folders: dict[str, str]
    free_gb: float
    ok: dict[str, bool]
    """By check: whether it passed."""


def facts(runs_folder: str) -> Facts:
    """Check the installation and the folders."""
    from harness.datasets import data_folder
    from harness.models.weights import weights_folder

    cards: dict[str, int] = {}
    try:
        cards = {kind: len(load_cards(kind)) for kind in KINDS}
        card_problem = ""
    except HarnessError as error:
        card_problem = str(error)
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    place = Path(runs_folder)
    nearest = next(p for p in (place, *place.absolute().parents) if p.exists())
    free = shutil.disk_usage(nearest).free
    writable = os.access(nearest, os.W_OK)
    return Facts(
        versions={**libraries(), "ray": _version("ray"), "mlflow": _version("mlflow")},
        missing=missing,
        extras=[name for name in EXTRAS if importlib.util.find_spec(name)],
        processor=processor(),
        cores=os.cpu_count(),
        device=_devices() if "torch" not in missing else [],
        cards=cards,
        card_problem=card_problem,
        folders={"runs": str(place.absolute()), "weights": str(weights_folder()), "data": str(data_folder().absolute())},
        free_gb=round(free / 1e9, 1),
        ok={"dependencies": not missing, "cards": not card_problem, "runs folder writable": writable, "free space": free > 1e9},
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _devices() -> list[str]:
    """The devices that torch would use; torch (a second of imports) is imported only where a GPU's driver is installed."""
    names = []
    if sys.platform == "darwin" or any(Path(driver).exists() for driver in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")):
        import torch

        names = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return [*names, f"cpu, {threads if threads.isdecimal() else os.cpu_count()} threads"]


def as_text(facts: Facts) -> str:
    """The facts as text, with faults marked."""
    lines = [f"{name:16} {version}" for name, version in facts.versions.items()]
    lines += [f"{'extras':16} {', '.join(facts.extras) or 'none'}"]
    lines += [f"{'processor':16} {facts.processor}, {facts.cores} cores", f"{'devices':16} {'; '.join(facts.device)}"]
    lines += [f"{'cards':16} " + ", ".join(f"{count} {kind}" for kind, count in facts.cards.items()) + facts.card_problem]
    lines += [f"{name:16} {path}" for name, path in facts.folders.items()] + [f"{'free space':16} {facts.free_gb} GB"]
    lines += [f"{'ok' if ok else 'FAULT':16} {name}" for name, ok in facts.ok.items()]
    return "\n".join(lines)
