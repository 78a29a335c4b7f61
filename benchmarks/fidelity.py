"""Our scores next to the official ones on five TID2013 pairs, as docs/fidelity.md.

    python benchmarks/fidelity.py PAIRS [--out docs/fidelity.md]

PAIRS is a folder with `reference/I03.bmp`, `distorted/I03.bmp`, and so on for I03, I04, I06, I08 and I19: the images of
https://github.com/chaofengc/IQA-PyTorch/tree/main/ResultsCalibra. The official values are that repository's
`results_official.csv`, from the authors' own programs; those of ST-LPIPS were measured with the authors' package.
A metric whose weights or library are not on this machine is marked as not run.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

import harness
from harness.files.atomic import write_text
from harness.models import adapters, build
from harness.runtime.errors import HarnessError

PAIRS = ("I03", "I04", "I06", "I08", "I19")


class Row(NamedTuple):
    """A model, the official values as published, and what they are called there."""

    model: str
    official: tuple[str, ...]
    source: str
    tolerance: float | None = None
    """How near is near enough; None: every published digit."""


OFFICIAL = (
    Row("psnr", ("21.11", "20.99", "27.01", "23.30", "21.62"), "PSNR, RGB"),
    Row("ssim", ("0.6993", "0.9978", "0.9989", "0.9669", "0.6519"), "SSIM, luma, no downsampling"),
    Row("ms-ssim", ("0.6733", "0.9996", "0.9998", "0.9566", "0.8462"), "MS-SSIM, luma"),
    Row("lpips-alex", ("0.7237", "0.2572", "0.05079", "0.05205", "0.4253"), "LPIPS v0.1, AlexNet"),
    Row("dists", ("0.4742", "0.1424", "0.06825", "0.02867", "0.3123"), "DISTS"),
    Row("st-lpips", ("0.5798", "0.3364", "0.2164", "0.0425", "0.3042"), "ST-LPIPS, AlexNet", 1e-3),
    Row("st-lpips-vgg", ("0.6757", "0.3948", "0.2117", "0.0279", "0.4106"), "ST-LPIPS, VGG16", 1e-3),
)
# Other people's code, run through our adapters: what these show is the library, and that nothing is lost on the way.
ADAPTED = (
    Row("pyiqa:fsim", ("0.6890", "0.9702", "0.9927", "0.9575", "0.8220"), "FSIM", 1e-3),
    Row("pyiqa:vif", ("0.0172", "0.9891", "0.9924", "0.9103", "0.1745"), "VIF", 1e-3),
    Row("pyiqa:gmsd", ("0.22035", "0.000522", "0.000448", "0.13463", "0.20500"), "GMSD", 1e-3),
    Row("pyiqa:ssim", ("0.6993", "0.9978", "0.9989", "0.9669", "0.6519"), "SSIM, luma, no downsampling", 1e-3),
    Row("pyiqa:ms_ssim", ("0.6733", "0.9996", "0.9998", "0.9566", "0.8462"), "MS-SSIM, luma", 1e-3),
    Row("piq:gmsd", ("0.22035", "0.000522", "0.000448", "0.13463", "0.20500"), "GMSD", 1e-3),
    Row("piq:fsim", ("0.6890", "0.9702", "0.9927", "0.9575", "0.8220"), "FSIM", 1e-3),
)


class Result(NamedTuple):
    """Our values, or why there are none."""

    row: Row
    ours: tuple[float, ...]
    why_not: str = ""

    def differences(self) -> list[float]:
        """Ours minus official, pair by pair."""
        return [value - float(text) for value, text in zip(self.ours, self.row.official, strict=True)]

    def passed(self) -> bool:
        """Whether every pair agrees: in every published digit, or within the row's tolerance."""
        pairs = zip(self.ours, self.row.official, self.differences(), strict=True)
        if self.row.tolerance is not None:
            return all(abs(difference) <= self.row.tolerance for _, _, difference in pairs)
        return all(abs(round(value, _decimals(text)) - float(text)) < 1e-9 for value, text, _ in pairs)

    def verdict(self) -> str:
        """In words."""
        if self.why_not:
            return f"NOT RUN: {self.why_not}"
        if self.row.tolerance is not None:
            return f"within {self.row.tolerance:g}" if self.passed() else f"NOT within {self.row.tolerance:g}"
        return "every published digit" if self.passed() else "differs"


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])


def measure(row: Row, folder: Path) -> Result:
    """Score the five pairs with one model, over the whole images."""
    try:
        library, _, metric = row.model.rpartition(":")
        model = build(adapters.card(library, metric), None) if library else harness.load_model(row.model)
    except HarnessError as error:
        reason = str(error).splitlines()[0].removeprefix(f"{row.model}: ").partition(" and were not looked for")[0]
        return Result(row, (), reason.rstrip(":"))
    paths = [(folder / "reference" / f"{name}.bmp", folder / "distorted" / f"{name}.bmp") for name in PAIRS]
    return Result(row, tuple(harness.score_pair(model, still, moved, "whole") for still, moved in paths))


def document(results: list[Result], adapted: list[Result]) -> str:
    """docs/fidelity.md."""
    parts = [
        "# Our scores next to the official ones",
        "Written by `python benchmarks/fidelity.py PAIRS`; do not edit. Five pairs of TID2013 (512x384), official values "
        "from the authors' own programs as published in `ResultsCalibra/results_official.csv` of chaofengc/IQA-PyTorch; "
        "those of ST-LPIPS were measured with the authors' package 0.0.2. What is not run here has not been shown to agree.",
        "MS-SSIM's official values are the weighted mean over the scales (method `wtd_sum` of Wang's program), which "
        "`ms-ssim` computes; the paper's weighted product is `ms-ssim-product`. SSIM and MS-SSIM take the 8-bit grey that "
        "MATLAB's `rgb2gray` gives and keep negative contrast terms.",
        _summary(results),
        "## Pair by pair",
        _details(results),
        "## Other libraries' metrics, through the adapters",
        "The libraries' own numbers: a difference here is the library's. pyiqa's MS-SSIM is the weighted product, and its SSIM "
        "cuts off negative contrast terms.",
        _summary(adapted),
        _details(adapted),
    ]
    filled = (part if part.startswith(("|", "#")) else textwrap.fill(part, 120, break_on_hyphens=False) for part in parts if part)
    return "\n\n".join(filled) + "\n"


def _summary(results: list[Result]) -> str:
    rows = []
    for result in results:
        largest = f"{max(abs(d) for d in result.differences()):.1e}" if result.ours else ""
        rows.append([f"`{result.row.model}`", result.row.source, result.verdict(), largest])
    headers = ["model", "official values of", "agreement on the five pairs", "largest difference"]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def _details(results: list[Result]) -> str:
    rows = []
    for result in results:
        for number, (pair, text) in enumerate(zip(PAIRS, result.row.official, strict=True)):
            name = f"`{result.row.model}`" if number == 0 else ""
            if result.ours:
                digits = _decimals(text) + 2
                rows.append(
                    [name, pair, text, f"{result.ours[number]:.{digits}f}", f"{result.differences()[number]:+.{digits}f}"]
                )
            else:
                rows.append([name, pair, text, "not run", ""])
    headers = ["model", "pair", "official", "ours", "difference"]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def main() -> None:
    """Write the document and say what agrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "fidelity.md")
    arguments = parser.parse_args()
    results = [measure(row, arguments.pairs) for row in OFFICIAL]
    adapted = [measure(row, arguments.pairs) for row in ADAPTED]
    write_text(arguments.out, document(results, adapted))
    for result in [*results, *adapted]:
        print(f"{result.row.model:16} {result.verdict()}")


if __name__ == "__main__":
    main()
