"""What the baseline metrics cost here, next to whichever of these is installed: pyiqa, piq,
torchmetrics, scikit-image, frame-analytics, lpips, DISTS.

    python benchmarks/baselines.py [--rounds 7] [--batches 1,16] [--only fast,lpips,dists,decoding]

Contenders run side by side and interleaved on one thread, on 512x384 images that are new in every round. A figure is
the median over the rounds of CPU seconds, a ratio the median of the rounds' ratios. Ours starts from decoded 8-bit
images; the peers get float tensors made beforehand, so that turning images into tensors costs them nothing. Networks
have the same random weights. `value` shows that the same thing is computed (or where a library defines it otherwise).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import cv2
import numpy as np
import torch
from tabulate import tabulate

from harness.imaging import decode
from harness.models.dists import DISTS
from harness.models.lpips import LPIPS
from harness.models.psnr import PSNR
from harness.models.ssim import MSSSIM, SSIM

HEIGHT, WIDTH = 384, 512
AT_LEAST = 0.15
"""CPU seconds that a contender works in each round."""


class Batch(NamedTuple):
    """The same images as ours and as the peers take them: one reference and its distorted images."""

    reference: np.ndarray[Any, Any]
    distorted: list[np.ndarray[Any, Any]]
    still: torch.Tensor
    moved: torch.Tensor


class Contender(NamedTuple):
    """Scores every distorted image of a batch; ours is the first of its group."""

    name: str
    score: Callable[[Batch], Any]


class Group(NamedTuple):
    """Contenders that do the same work on batches of one size."""

    metric: str
    batch: int
    contenders: list[Contender]


def make_batch(seed: int, count: int) -> Batch:
    """A smooth coloured image with edges, and `count` noisy copies."""
    draw = np.random.default_rng(seed)
    coarse = draw.uniform(0, 255, (12, 16, 3)).astype(np.float32)
    image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    image[100:200, 150:300] = 255 - image[100:200, 150:300]
    reference = np.clip(image, 0, 255).astype(np.uint8)
    distorted = [np.clip(image + draw.normal(0, 5 + i, image.shape), 0, 255).astype(np.uint8) for i in range(count)]
    moved = torch.from_numpy(np.stack(distorted)).permute(0, 3, 1, 2).float() / 255
    still = torch.from_numpy(reference).permute(2, 0, 1)[None].float() / 255
    return Batch(reference, distorted, still.expand(count, -1, -1, -1).contiguous(), moved)


def on_uint8(model: Any) -> Callable[[Batch], list[float]]:
    """Ours, as a run calls it: the reference's part of the work done once where there is more than one image."""

    def score(batch: Batch) -> list[float]:
        if len(batch.distorted) == 1 or not hasattr(model, "embed_uint8"):
            return [model.score_uint8(batch.reference, image) for image in batch.distorted]
        kept = model.embed_uint8(batch.reference)
        return [model.score_embedded_uint8(kept, image) for image in batch.distorted]

    return score


def installed(name: str) -> Any:
    """The package, or None."""
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def fast_groups(batch: int) -> Iterator[Group]:
    """PSNR, SSIM and MS-SSIM on batches of one size."""
    pyiqa, piq, skimage = installed("pyiqa"), installed("piq"), installed("skimage")
    torchmetrics = installed("torchmetrics")
    peers: dict[str, list[Contender]] = {"psnr": [], "ssim": [], "ms-ssim": []}
    if pyiqa:
        for metric, name in (("psnr", "psnr"), ("ssim", "ssim"), ("ms-ssim", "ms_ssim")):
            theirs = pyiqa.create_metric(name, device=torch.device("cpu"))
            peers[metric].append(Contender("pyiqa", lambda b, theirs=theirs: theirs(b.moved, b.still)))
    if frame_analytics := installed("frame_analytics"):
        # Its torch.compile path takes a compiler and a minute; what is compared is what runs everywhere.
        importlib.import_module("frame_analytics.functional").__dict__["_COMPILE_ENABLED"] = False
        for metric, theirs in (
            ("psnr", frame_analytics.psnr),
            ("ssim", frame_analytics.ssim),
            ("ms-ssim", frame_analytics.ms_ssim),
        ):
            name = "frame-analytics" if metric == "psnr" else "frame-analytics (RGB)"
            peers[metric].append(Contender(name, lambda b, theirs=theirs: theirs(b.moved, b.still, reduction="none")))
        # Its grey of floats is not rounded, so the values differ from ours in the fourth digit.
        for metric, theirs in (("ssim", frame_analytics.ssim), ("ms-ssim", frame_analytics.ms_ssim)):
            peers[metric].append(
                Contender("frame-analytics", lambda b, theirs=theirs: theirs(b.moved, b.still, reduction="none", luma="bt601"))
            )
    if piq:
        peers["psnr"].append(Contender("piq", lambda b: piq.psnr(b.moved, b.still, reduction="none")))
        full = {"downsample": False, "reduction": "none"}
        peers["ssim"].append(Contender("piq (RGB)", lambda b: piq.ssim(b.moved, b.still, **full)))
        peers["ms-ssim"].append(Contender("piq (RGB)", lambda b: piq.multi_scale_ssim(b.moved, b.still, reduction="none")))
    if torchmetrics:
        functional = importlib.import_module("torchmetrics.functional.image")
        options: dict[str, Any] = {"data_range": 1.0, "reduction": "none"}
        peers["psnr"].append(
            Contender("torchmetrics", lambda b: functional.peak_signal_noise_ratio(b.moved, b.still, dim=(1, 2, 3), **options))
        )
        peers["ssim"].append(
            Contender("torchmetrics (RGB)", lambda b: functional.structural_similarity_index_measure(b.moved, b.still, **options))
        )
        multi = functional.multiscale_structural_similarity_index_measure
        peers["ms-ssim"].append(Contender("torchmetrics (RGB)", lambda b: multi(b.moved, b.still, **options)))
    if skimage:
        metrics = importlib.import_module("skimage.metrics")
        wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        peers["psnr"].append(
            Contender(
                "scikit-image", lambda b: [metrics.peak_signal_noise_ratio(b.reference, d, data_range=255) for d in b.distorted]
            )
        )
        peers["ssim"].append(
            Contender(
                "scikit-image (RGB)",
                lambda b: [metrics.structural_similarity(b.reference, d, channel_axis=2, **wang) for d in b.distorted],
            )
        )
    yield Group("PSNR", batch, [Contender("ours", on_uint8(PSNR())), *peers["psnr"]])
    ssim = [Contender("ours", on_uint8(SSIM())), *[c for c in peers["ssim"] if "RGB" not in c.name]]
    yield Group("SSIM, luma, no downsampling", batch, ssim)
    rgb = [Contender("ours", on_uint8(SSIM("rgb"))), *[c for c in peers["ssim"] if "RGB" in c.name]]
    yield Group("SSIM, RGB, no downsampling", batch, rgb)
    product = MSSSIM(combine="product")
    multi_scale = [Contender("ours", on_uint8(product)), *[c for c in peers["ms-ssim"] if "RGB" not in c.name]]
    yield Group("MS-SSIM, luma, product", batch, multi_scale)
    rgb = [Contender("ours", on_uint8(MSSSIM("rgb", "product"))), *[c for c in peers["ms-ssim"] if "RGB" in c.name]]
    yield Group("MS-SSIM, RGB, product", batch, rgb)


def embedded(model: Any) -> Callable[[Batch], torch.Tensor]:
    """A network's distances with the reference's features computed once, images turned into tensors included."""

    def score(batch: Batch) -> torch.Tensor:
        moved = torch.from_numpy(np.stack(batch.distorted)).permute(0, 3, 1, 2).float().div_(255)
        still = torch.from_numpy(batch.reference[None]).permute(0, 3, 1, 2).float().div_(255)
        return torch.as_tensor(model.score_embedded(model.embed(still), moved, torch.zeros(len(moved), dtype=torch.long)))

    return score


@contextlib.contextmanager
def untrained() -> Iterator[None]:
    """torchvision's trunks with random weights in place of the downloads that the libraries ask for."""
    import torchvision

    def trunk(net: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *_, **__: SimpleNamespace(features=net(weights=None).features)

    models = torchvision.models
    with (
        mock.patch.object(models, "alexnet", trunk(models.alexnet)),
        mock.patch.object(models, "vgg16", trunk(models.vgg16)),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def lpips_groups(batch: int) -> Iterator[Group]:
    """LPIPS over AlexNet."""
    ours = LPIPS("alex").eval()
    contenders = [Contender("ours, reference kept", embedded(ours))]
    if lpips := installed("lpips"):
        with untrained():
            theirs = lpips.LPIPS(net="alex", verbose=False)
        ours.load_state(theirs.state_dict())
        contenders.append(Contender("lpips", lambda b: theirs(b.moved, b.still, normalize=True)))
    yield Group("LPIPS, AlexNet", batch, contenders)


def dists_groups(batch: int) -> Iterator[Group]:
    """DISTS."""
    ours = DISTS().eval()
    contenders = [Contender("ours, reference kept", embedded(ours))]
    if package := installed("DISTS_pytorch"):
        with untrained():
            theirs = package.DISTS(load_weights=False)
        for parameter in (theirs.alpha, theirs.beta):
            parameter.data.abs_()
        ours.load_state(theirs.state_dict())
        contenders.append(Contender("DISTS-pytorch", lambda b: theirs(b.moved, b.still)))
    yield Group("DISTS", batch, contenders)


def decoding_groups(folder: Path) -> Iterator[Group]:
    """Scoring next to decoding two images: what bounds a run over files."""
    pair = make_batch(0, 1)
    for suffix in ("bmp", "png"):
        paths = [folder / f"{name}.{suffix}" for name in ("reference", "distorted")]
        for path, image in zip(paths, (pair.reference, pair.distorted[0]), strict=True):
            cv2.imwrite(str(path), np.ascontiguousarray(image[:, :, ::-1]))
        read = Contender(f"decoding two {suffix.upper()} files", lambda _, paths=paths: [decode.read(p) for p in paths])
        yield Group(
            f"scoring next to decoding, {suffix.upper()}",
            1,
            [read, Contender("PSNR", on_uint8(PSNR())), Contender("SSIM", on_uint8(SSIM()))],
        )


def per_pair(contender: Contender, batch: Batch) -> float:
    """CPU seconds for a pair, over at least AT_LEAST seconds."""
    pairs, begun = 0, time.process_time()
    while (spent := time.process_time() - begun) < AT_LEAST:
        contender.score(batch)
        pairs += len(batch.distorted)
    return spent / pairs


def measure(group: Group, rounds: int) -> list[list[str]]:
    """The rows of one group: batch, metric, contender, pairs per CPU second, how many times slower than ours, value."""
    first = make_batch(0, group.batch)
    # The first call of each sets up what later calls reuse.
    values = [
        float(np.asarray(torch.as_tensor(c.score(first)).detach()).ravel()[0]) if _scores(c) else None for c in group.contenders
    ]
    costs: list[list[float]] = [[] for _ in group.contenders]
    for number in range(rounds):
        batch = make_batch(number + 1, group.batch)
        for cost, contender in zip(costs, group.contenders, strict=True):
            cost.append(per_pair(contender, batch))
    rows = []
    for contender, cost, value in zip(group.contenders, costs, values, strict=True):
        ratio = median(theirs / ours for theirs, ours in zip(cost, costs[0], strict=True))
        rate = 1 / median(cost)
        shown = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
        value_shown = "" if value is None else f"{value:.4f}"
        rows.append([group.metric, str(group.batch), contender.name, shown, f"{ratio:.3g}x", value_shown])
    return rows


def _scores(contender: Contender) -> bool:
    return not contender.name.startswith("decoding")


def processor() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="fast,lpips,dists,decoding", help="fast (PSNR, SSIM, MS-SSIM), lpips, dists, decoding")
    parser.add_argument("--batches", default="1,16", help="of PSNR, SSIM and MS-SSIM; pyiqa's take 15 s a call at 16")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    warnings.simplefilter("ignore")
    chosen = arguments.only.split(",")
    rows: list[list[str]] = []
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        groups = [
            group
            for batch in map(int, arguments.batches.split(","))
            for group in (fast_groups(batch) if "fast" in chosen else ())
        ]
        groups += [group for batch in (1, 8) for group in (lpips_groups(batch) if "lpips" in chosen else ())]
        groups += [group for batch in (1, 4) for group in (dists_groups(batch) if "dists" in chosen else ())]
        groups += list(decoding_groups(Path(folder))) if "decoding" in chosen else []
        for group in groups:
            rows += measure(group, arguments.rounds)
    versions = [f"{name} {importlib.import_module(name).__version__}" for name in ("torch", "cv2", "numpy")]
    print(f"{processor()}, one thread, {WIDTH}x{HEIGHT}, {arguments.rounds} rounds; {', '.join(versions)}")
    headers = ["metric", "batch", "contender", "pairs per CPU second", "CPU time against the first", "value"]
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
