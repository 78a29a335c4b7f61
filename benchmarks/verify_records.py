"""Whether the records behind the committed leaderboards repeat, and whether one changed byte is noticed and named.

    python benchmarks/verify_records.py                    # `harness verify` on every record; trained ones are trained again
    python benchmarks/verify_records.py --no-training --sample 40        # minutes: networks' scores on a sample, none trained
    python benchmarks/verify_records.py --damage           # one byte of an image, a label, a card, a weight file: each is named

The damage is done in a scratch copy of the code, the cards, the demonstration's images and ST-LPIPS's weights. Exit status 1
when a record does not repeat, or a damaged one does.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parents[1]
RECORDS = HOME / "leaderboards" / "records"
FOLDERS = ("harness", "models", "datasets")


def verify(record: Path, code: Path, words: Sequence[str] = (), **environment: str) -> tuple[int, dict[str, Any]]:
    """Exit status and document of `harness verify`, by the code under `code`."""
    path = os.pathsep.join(filter(None, (environment.pop("first", ""), str(code), os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, "-m", "harness", "verify", str(record), "--json", "--offline", "--quiet", *words],
        capture_output=True, text=True, cwd=code, env={**os.environ, "PYTHONPATH": path, **environment}, check=False,
    )  # fmt: skip
    if not done.stdout:
        raise SystemExit(done.stderr)
    return done.returncode, json.loads(done.stdout)


def flip(path: Path, at: int = -1) -> None:
    """Another byte in the file's place, leaving files linked to it as they were."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.unlink()
    path.write_bytes(data)


def replace(path: Path, old: str, new: str) -> None:
    """One character of a text changed."""
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path}: no {old!r}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def intact(words: Sequence[str]) -> bool:
    """Every committed record, as it is."""
    good = True
    for path in sorted(RECORDS.glob("*/*/*/record.json")):
        status, verdict = verify(path.parent, HOME, words)
        good &= status == 0
        said = "; ".join(f"{f['what']}: {f['text']}" for f in verdict["findings"]) or "repeats"
        remarks = "".join(f" ({remark})" for remark in verdict["remarks"])
        print(f"{path.parent.relative_to(RECORDS)}: {said}, {verdict['checked']} images scored again{remarks}", flush=True)
    return good


def damaged() -> bool:
    """One byte at a time; the first finding is printed."""
    from harness import datasets
    from harness.datasets.demo import cache_folder

    psnr, lpips = (next((RECORDS / "demo" / model).glob("*")) for model in ("psnr", "st-lpips"))
    tested = [line.split(",")[0] for line in (psnr / "scores.csv").read_text().splitlines() if line.endswith(",test")]
    place = Path(datasets.load_dataset("demo").table.set_index("name").at[tested[0], "distorted"])
    package = importlib.util.find_spec("stlpips_pytorch")
    assert package is not None
    assert package.origin is not None

    def image(scratch: Path) -> dict[str, str]:
        # Hard links: only the damaged image is a file of its own.
        shutil.copytree(cache_folder(), scratch / "cache" / "harness", copy_function=os.link)
        flip(scratch / "cache" / "harness" / place.relative_to(cache_folder()))
        return {"HARNESS_CACHE": str(scratch / "cache")}

    def label(scratch: Path) -> dict[str, str]:
        labels = scratch / "harness" / "datasets" / "demo" / "data" / "kadid_cell_means.csv"
        last = labels.read_text(encoding="utf-8").rstrip()[-1]
        flip(labels, labels.read_bytes().rstrip().rfind(last.encode()))
        return {}

    def card(scratch: Path) -> dict[str, str]:
        replace(scratch / "models" / "psnr.toml", "identical = 120", "identical = 121")
        return {}

    def weight(scratch: Path) -> dict[str, str]:
        shutil.copytree(Path(package.origin or "").parent, scratch / "site" / "stlpips_pytorch")
        flip(next((scratch / "site").rglob("alex_shift_tolerant.pth")))
        return {"first": str(scratch / "site"), "HARNESS_WEIGHTS": str(scratch / "none")}

    good = True
    changes: dict[str, tuple[Path, Callable[[Path], dict[str, str]]]] = {
        "nothing": (psnr, lambda scratch: {}),
        "image": (psnr, image),
        "label": (psnr, label),
        "card": (psnr, card),
        "weight": (lpips, weight),
    }
    for what, (record, change) in changes.items():
        with tempfile.TemporaryDirectory(prefix="harness-damage-", dir=cache_folder().parent) as folder:
            scratch = Path(folder)
            for name in FOLDERS:
                shutil.copytree(HOME / name, scratch / name)
            environment = change(scratch)
            status, verdict = verify(record, scratch, **environment)
            good &= (status == 0) == (what == "nothing")
            said = "; ".join(f"{f['what']}: {f['text']}" for f in verdict["findings"]) or "repeats"
            print(f"one byte of {what} changed: exit status {status}, {said.replace(folder, '...')}", flush=True)
    return good


def main() -> None:
    """Print a line for each record, or for each kind of damage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--damage", action="store_true")
    parser.add_argument("--sample", metavar="N")
    parser.add_argument("--no-training", action="store_true")
    options = parser.parse_args()
    words = [*(["--sample", options.sample] if options.sample else []), *(["--no-training"] if options.no_training else [])]
    raise SystemExit(0 if (damaged() if options.damage else intact(words)) else 1)


if __name__ == "__main__":
    main()
