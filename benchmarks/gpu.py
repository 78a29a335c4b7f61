"""What AHIQ does on a GPU: crops and training steps per second, memory, and the share of the card's matrix peak.

    python benchmarks/gpu.py [--device cuda:0] [--patch 8] [--seconds 10] [--batch 80]
    python benchmarks/gpu.py --rehearse           # a tiny network on the CPU: the script works; its numbers mean nothing

Ends with status 2 where there is no GPU. Random weights. Scoring is of ten distorted crops per reference, whose features are
computed once; `pyiqa`, where it can be imported, takes single pairs, as it offers no reuse. A training step is the released
recipe's (batches of 4 pairs, both trunks frozen) without decoding; an epoch is PIPAL's 18,560 pairs. The matrix peak is measured
on one large product in the same precision. Times are of the wall, after a warm-up, with the GPU waited for at both ends.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from ahiq import Straightforward, operations, ours, pictures, pyiqa_peer, table
from torch import Tensor

from harness.cards.loading import load_cards
from harness.engine.devices import numerics
from harness.models.ahiq import AHIQ
from harness.models.kernels import choice

PIPAL_PAIRS, PER_REFERENCE, PER_STEP = 18_560, 10, 4
GOALS = {"fp32": 250.0, "bf16": 2000.0}
"""Crops a second on an H100, ten images a reference."""
GOAL_EPOCH = 180.0
"""Seconds of an epoch of PIPAL on an H100 in bf16."""


def rate(work: Callable[[], Any], device: str, seconds: float) -> float:
    """Calls per second."""

    def waited() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return time.perf_counter()

    for _ in range(3):
        work()
    begun, count = waited(), 0
    for count in itertools.count(1):
        work()
        # Waiting at each call would let the GPU idle.
        if count % 8 == 0 and waited() - begun > seconds:
            break
    return count / (waited() - begun)


def peak(device: str, precision: str, side: int, seconds: float) -> float:
    """Operations per second of one large product."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return 2.0 * side**3 * rate(lambda: a @ b, device, seconds)


def memory(device: str) -> str:
    """The most that was allocated since the last call."""
    if not device.startswith("cuda"):
        return "-"
    most = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return f"{most / 1e9:.1f} GB"


def scoring(model: AHIQ, device: str, batch: int, side: int) -> Callable[[], Tensor]:
    """A call that scores `batch` crops, ten of each reference."""
    references = max(1, batch // PER_REFERENCE)
    still, moved = (crops(count, seed, side).to(device) for count, seed in ((references, 0), (references * PER_REFERENCE, 1)))
    index = torch.arange(references, device=device).repeat_interleave(PER_REFERENCE)
    return lambda: model.score_embedded(model.embed(still), moved, index)


def stepping(model: AHIQ, device: str, precision: str, side: int) -> Callable[[], None]:
    """A call that does a step of the released recipe."""
    for trunk in (model.vit, model.resnet50):
        trunk.requires_grad_(False)
    model.train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=1e-5)
    still, moved = (crops(PER_STEP, seed, side).to(device) for seed in (0, 1))
    target = torch.linspace(0, 1, PER_STEP, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
            loss = F.mse_loss(model(still, moved), target)
        loss.backward()
        optimizer.step()

    return step


def crops(count: int, seed: int, side: int) -> Tensor:
    return pictures(count, seed)[:, :, :side, :side].contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--patch", type=int, default=8, choices=(8, 16))
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--batch", type=int, default=80, help="distorted crops of a call")
    parser.add_argument("--rehearse", action="store_true", help="a tiny network on the CPU")
    arguments = parser.parse_args()
    if not arguments.rehearse and not torch.cuda.is_available():
        print("benchmarks/gpu.py: no GPU here (torch sees none); run it where there is one", file=sys.stderr)
        raise SystemExit(2)
    device = "cpu" if arguments.rehearse else arguments.device
    settings: dict[str, Any] = dict(load_cards("models")["ahiq-tiny"].model) if arguments.rehearse else {}
    side = int(settings.get("crop_size", 224))
    peer = None if arguments.rehearse else Straightforward(arguments.patch)

    def made(precision: str) -> AHIQ:
        torch.manual_seed(0)
        model = AHIQ(**{**settings, "precision": precision}) if peer is None else ours(peer, arguments.patch, precision=precision)
        return model.eval().to(device)

    name = "rehearsal on the CPU" if arguments.rehearse else torch.cuda.get_device_name(device)
    print(f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    first = AHIQ(**settings) if peer is None else ours(peer, arguments.patch)
    # Counted once, on the CPU and by the public functions: the same for every precision.
    with choice.using(choice.PLAINLY):
        per_call = operations(scoring(first.eval(), "cpu", PER_REFERENCE, side)) / PER_REFERENCE
        per_step = operations(stepping(first, "cpu", "fp32", side))
    scored, trained = [], []
    for precision in ("fp32", "tf32", "bf16"):
        with numerics(device, precision):
            best = peak(device, precision, 256 if arguments.rehearse else 8192, arguments.seconds / 4)
            memory(device)
            model = made(precision)
            calls = rate(scoring(model, device, arguments.batch, side), device, arguments.seconds)
            found = calls * max(1, arguments.batch // PER_REFERENCE) * PER_REFERENCE
            goal = f"{GOALS[precision]:,.0f}" if precision in GOALS and not arguments.rehearse else ""
            share = f"{100 * found * per_call / best:.0f} %"
            scored.append((precision, f"{found:,.1f}", goal, memory(device), f"{best / 1e12:.2f}", share))
        with numerics(device, precision, training=True):
            steps = rate(stepping(made("fp32"), device, precision, side), device, arguments.seconds)
            epoch = f"{PIPAL_PAIRS / PER_STEP / steps / 60:.1f} min"
            goal = f"{GOAL_EPOCH / 60:.0f} min" if precision == "bf16" and not arguments.rehearse else ""
            trained.append((precision, f"{steps:,.2f}", epoch, goal, memory(device), f"{100 * steps * per_step / best:.0f} %"))
    if peer is not None and (second := pyiqa_peer(peer, arguments.patch)) is not None:
        published = second.to(device)
        still, moved = (crops(arguments.batch, seed, side).to(device) for seed in (0, 1))
        with numerics(device), torch.no_grad():
            found = rate(lambda: published(moved, still), device, arguments.seconds) * arguments.batch
        scored.append(("pyiqa, fp32", f"{found:,.1f}", "", memory(device), "", ""))
    title = f"Scoring, ten distorted crops per reference, {arguments.batch} a call, {per_call / 1e9:.4g} GFLOP a crop"
    header: tuple[str, ...] = ("", "crops a second", "goal (H100)", "memory", "measured peak, TFLOP/s", "share of it")
    table(title, header, scored)
    header = ("", "steps a second", "an epoch of PIPAL", "goal (H100)", "memory", "share of the peak")
    table(f"Training, batches of {PER_STEP}, {per_step / 1e9:.4g} GFLOP a step", header, trained)


if __name__ == "__main__":
    main()
