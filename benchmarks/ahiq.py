"""What AHIQ costs here, against a straightforward forward and against the published `pyiqa` package.

    python benchmarks/ahiq.py [--rounds 3] [--patch 8] [--only pair,ten,steps,ways,training,memory,bf16]

Contenders run side by side and interleaved, on images that are new in every round, with the same random weights, on
one thread; a figure is the median over the rounds of CPU seconds, a ratio the median of the rounds' ratios. A share is the
work's operations (2 per multiply-add; Winograd's convolutions, where chosen, count as they are done, a quarter) in its
seconds, over the rate of the best large product in the same round: nothing but such products would be 100 %. The
straightforward forward is built from whole timm backbones and torchvision's deformable convolution, as in the released
code; `pyiqa` takes part where it can be imported. Memory is the largest resident size of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from harness.models.ahiq.deform_conv import deform_conv, places
from harness.models.ahiq.model import AHIQ
from harness.models.kernels import choice, linear
from harness.models.kernels import onednn as onednn_products

PARTS = ("pair", "ten", "steps", "ways", "training", "memory", "bf16")
AIMS = {
    "one pair": (3.3, 3.8),
    "ten distorted images per reference": (6.0, 7.0),
    "one pair, tuned peer": (2.3, 2.6),
    "training step, batch 4": (3.0, 3.7),
}


class Straightforward(nn.Module):
    """AHIQ's forward as the released code has it: whole backbones for either image, everything again for each pair."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.vit = timm.create_model(f"vit_base_patch{patch}_224", pretrained=False, num_classes=0)
        self.resnet50 = timm.create_model("resnet50", pretrained=False, num_classes=0)
        heads = AHIQ(patch_size=patch)
        self.deform_net, self.regressor = heads.deform_net, heads.regressor
        self.deform = torchvision.ops.DeformConv2d(768, 768, 3, 1, 1)
        self.deform.load_state_dict(self.deform_net.deform.state_dict())
        self.used_only = self.gathered = False
        self.eval()

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = (x - 0.5) / 0.5
        if self.used_only:
            tokens = self.vit.forward_intermediates(
                x, indices=[0, 1, 2, 3, 4], stop_early=True, norm=False, intermediates_only=True
            )
            y = self.resnet50.maxpool(self.resnet50.act1(self.resnet50.bn1(self.resnet50.conv1(x))))
            maps = [y := block(y) for block in self.resnet50.layer1]
        else:
            tokens, maps = [], []
            hooks = [b.register_forward_hook(lambda _, __, y: tokens.append(y)) for b in self.vit.blocks]
            hooks += [b.register_forward_hook(lambda _, __, y: maps.append(y)) for b in self.resnet50.layer1]
            self.vit(x)
            self.resnet50(x)
            for hook in hooks:
                hook.remove()
            grid = self.vit.patch_embed.grid_size
            tokens = [t[:, 1:].transpose(1, 2).unflatten(2, grid) for t in tokens[:5]]
        return torch.cat(tokens, 1), torch.cat(maps, 1)

    def forward(self, reference: Tensor, distorted: Tensor) -> Tensor:
        still, still_maps = self.features(reference)
        moved, moved_maps = self.features(distorted)
        head = self.regressor
        reduced = []
        for tokens, maps in ((moved, moved_maps), (still, still_maps)):
            offsets = self.deform_net.conv_offset(F.interpolate(still, size=maps.shape[-2:], mode="nearest"))
            if self.gathered:
                deformed = deform_conv(maps, places(offsets), self.deform.weight, self.deform.bias)
            else:
                deformed = self.deform(maps, offsets)
            reduced.append(head.down_channel(torch.cat([tokens, self.deform_net.conv1(deformed)], 1)))
        d, r = reduced
        x = head.conv1(head.feat_smoothing(torch.cat([d - r, d, r], 1)))
        quality, weight = head.conv(x), head.conv_attent(x)
        return ((quality * weight).sum((2, 3)) / weight.sum((2, 3))).squeeze(1)


def ours(peer: Straightforward, patch: int, **settings: Any) -> AHIQ:
    """Our model with the peer's weights."""
    model = AHIQ(patch_size=patch, **settings).eval()
    model.load_part("vit", peer.vit.state_dict())
    model.load_part("resnet50", peer.resnet50.state_dict())
    model.deform_net.load_state_dict(peer.deform_net.state_dict())
    model.regressor.load_state_dict(peer.regressor.state_dict())
    # What has to be tried is tried here, and not in the first round.
    choice.chosen([model], torch.get_num_threads())
    return model


def operations(work: Callable[[], Any]) -> float:
    """Floating-point operations of products, convolutions and attention, 2 per multiply-add.

    Convolutions that are composed count as if they were not: the same work in less time shall be a larger share.
    """

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    def backward(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:
        return 2 * int(sdpa_flop_count(query, key, value))

    missed = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    # Packed products are no operators that the counter knows; the public ones do the same number.
    chosen = choice.read(choice.kept_in()).items()
    ways = {name: way if name.startswith("winograd") else "plain" for name, way in chosen}
    with choice.using(choice.PLAINLY if choice.imposed() is choice.PLAINLY else ways):
        work()  # which lays out weights once
        with FlopCounterMode(display=False, custom_mapping=missed) as counter:
            work()
    return float(counter.get_total_flops())


class Products:
    """Large products as networks have them, by every way: the best of them is what a core can do."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.ways: list[tuple[float, Callable[[], Any]]] = []
        for rows, inputs, outputs in ((1570, 768, 3072), (1570, 3072, 768), (606, 6912, 768), (1536, 1536, 1536)):
            x, weight = (torch.randn(size, inputs, generator=generator) for size in (rows, outputs))
            made: list[Callable[[], Any]] = [lambda x=x, w=weight: F.linear(x, w)]  # type: ignore[misc]
            if onednn_products.worthwhile():
                made.append(lambda x=x, w=weight: self.permitted(x, w))  # type: ignore[misc]
            if linear.available():
                packed = linear.packed(weight)
                made.append(lambda x=x, w=packed: linear.multiply(x, w, None))  # type: ignore[misc]
            self.ways += [(2.0 * rows * inputs * outputs, way) for way in made]

    @staticmethod
    def permitted(x: Tensor, weight: Tensor) -> Tensor:
        with choice.using({onednn_products.NAME: "onednn"}), onednn_products.by_onednn(x.device):
            return F.linear(x, weight)

    def rate(self) -> float:
        """Operations a second of the best."""
        with torch.inference_mode():
            return max(count / seconds(way)[0] for count, way in self.ways)


def pyiqa_peer(peer: Straightforward, patch: int) -> nn.Module | None:
    """pyiqa's AHIQ on ready crops, with the peer's weights; None where it is not installed or for another patch size."""
    if patch != 8:
        return None
    try:
        from pyiqa.archs.ahiq_arch import AHIQ as Published
    except ImportError:
        return None
    with mock.patch("timm.create_model", lambda name, pretrained, make=timm.create_model: make(name, pretrained=False)):
        model = Published(num_crop=1, pretrained=False).eval()
    model.vit.load_state_dict(peer.vit.state_dict(), strict=False)
    model.resnet50.load_state_dict(peer.resnet50.state_dict(), strict=False)
    model.deform_net.load_state_dict(peer.deform_net.state_dict())
    model.regressor.load_state_dict(peer.regressor.state_dict())
    return model


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of the process, and the result."""
    begun = time.process_time()
    result = work()
    return time.process_time() - begun, result


def pictures(count: int, seed: int) -> Tensor:
    """Crops that look a little like images: noise at several scales, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    scales = [torch.rand(count, 3, size, size, generator=generator) for size in (7, 28, 112, 224)]
    return torch.stack([F.interpolate(s, size=(224, 224), mode="bilinear") for s in scales]).mean(0).clamp(0, 1)


def tuned(work: Callable[[], Any]) -> Callable[[], Any]:
    """`work` under the one setting that makes a peer faster on some CPUs."""

    def inside() -> Any:
        torch.set_float32_matmul_precision("medium")
        try:
            return work()
        finally:
            torch.set_float32_matmul_precision("highest")

    return inside


class Compared(NamedTuple):
    """Of each contender in each round: CPU seconds and results; and of each round, the best product's rate."""

    times: dict[str, list[float]]
    results: dict[str, list[Any]]
    rates: list[float]

    def share(self, name: str, count: float) -> str:
        """`count` operations in a contender's seconds, over the best product's rate."""
        return f"{100 * median(count / t / rate for t, rate in zip(self.times[name], self.rates, strict=True)):.0f} %"

    def best(self) -> str:
        """The best product's rate, over the rounds."""
        low, high = (choose(self.rates) / 1e9 for choose in (min, max))
        return f"best large product: {median(self.rates) / 1e9:.0f} GFLOP/s ({low:.0f} to {high:.0f})"


def compare(contenders: dict[str, Callable[[int], Any]], rounds: int) -> Compared:
    """Each contender in each round; the order turns from round to round."""
    names, products, rates = list(contenders), Products(), []
    times: dict[str, list[float]] = {name: [] for name in names}
    results: dict[str, list[Any]] = {name: [] for name in names}
    for number in range(rounds):
        rates.append(products.rate())
        for name in names[number % len(names) :] + names[: number % len(names)]:
            spent, result = seconds(lambda name=name, number=number: contenders[name](number))  # type: ignore[misc]
            times[name].append(spent)
            results[name].append(result)
    return Compared(times, results, rates)


def ratio(slow: list[float], fast: list[float], scale: float = 1.0) -> float:
    return median(scale * s / f for s, f in zip(slow, fast, strict=True))


def difference(ones: list[Tensor], others: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ones, others, strict=True))


def table(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    sys.stdout.flush()


HEADER = ("", "peer, CPU s", "ours, CPU s", "ratio", "must", "goal", "ours, GFLOP", "share of the best product")


def row(what: str, found: Compared, peer: str, own: str, count: float, scale: float = 1.0) -> tuple[str, ...]:
    slow, fast = found.times[peer], found.times[own]
    must, goal = AIMS.get(what, (None, None))
    aims = (f"{must:.1f}x", f"{goal:.1f}x") if must and goal else ("", "")
    ours = f"{count / 1e9:.0f}", found.share(own, count)
    return what, f"{scale * median(slow):.2f}", f"{median(fast):.2f}", f"{ratio(slow, fast, scale):.2f}x", *aims, *ours


def scoring(patch: int, rounds: int, parts: set[str]) -> None:
    """One pair and ten pairs of a reference, against both peers, plain and tuned."""
    peer = Straightforward(patch)
    model = ours(peer, patch)
    second = pyiqa_peer(peer, patch)
    index = torch.zeros(10, dtype=torch.long)

    def plain(forward: Callable[..., Tensor], number: int) -> Tensor:
        with torch.no_grad():
            return forward(*pictures(2, number).split(1))

    def published(number: int) -> Tensor:
        assert second is not None
        with torch.no_grad():
            return second(*pictures(2, number).split(1)[::-1]).flatten()

    contenders: dict[str, Callable[[int], Any]] = {
        "peer": lambda n: plain(peer, n),
        "peer tuned": lambda n: tuned(lambda: plain(peer, n))(),
        "ours": lambda n: model.score(*pictures(2, n).split(1)),
    }
    if "ten" in parts:
        contenders["ours ten"] = lambda n: model.score_embedded(model.embed(pictures(1, n)), pictures(10, 1000 + n), index)
    if second is not None:
        contenders["pyiqa"] = published
    count = operations(lambda: contenders["ours"](0))
    embedding = model.embed(pictures(1, 0))
    ten = operations(lambda: model.embed(pictures(1, 0)))
    ten += 10 * operations(lambda: model.score_embedded(embedding, pictures(1, 1), index[:1]))
    found = compare(contenders, rounds)
    rows = [row("one pair", found, "peer", "ours", count)]
    if "ten" in parts:
        rows.append(row("ten distorted images per reference", found, "peer", "ours ten", ten, 10))
    rows.append(row("one pair, tuned peer", found, "peer tuned", "ours", count))
    if second is not None:
        rows.append(row("one pair, pyiqa", found, "pyiqa", "ours", count))
        if "ten" in parts:
            rows.append(row("ten distorted per reference, pyiqa", found, "pyiqa", "ours ten", ten, 10))
    table(f"Scoring, ViT-B/{patch}, fp32; {found.best()}", HEADER, rows)
    apart = difference(found.results["peer"], found.results["ours"])
    print(f"\nlargest difference from the straightforward forward's score: {apart:.1e}")


def steps(patch: int, rounds: int) -> None:
    """Where the gain for one pair comes from: each step with all those before it."""
    peer = Straightforward(patch)
    model = ours(peer, patch)

    def variant(used_only: bool, gathered: bool, number: int) -> Tensor:
        peer.used_only, peer.gathered = used_only, gathered
        with torch.inference_mode() if used_only else torch.no_grad():
            return peer(*pictures(2, number).split(1))

    chosen = choice.chosen([model], 1)

    def only(*kinds: str) -> Callable[[int], Tensor]:
        """The chosen ways of these kinds of products, and the public functions of the others."""
        ways = {name: way if name.startswith(kinds) else "plain" for name, way in chosen.items()}

        def inside(number: int) -> Tensor:
            with choice.using(ways):
                return model.score(*pictures(2, number).split(1))

        return inside

    contenders: dict[str, Callable[[int], Any]] = {
        "whole backbones": lambda n: variant(False, False, n),
        "used blocks only, inference mode": lambda n: variant(True, False, n),
        "deformable convolution as gather and product": lambda n: variant(True, True, n),
        "offsets once and before enlarging, head's first layer split, norms folded": only("none"),
        "Winograd's convolutions": only("winograd"),
    }
    if chosen[onednn_products.NAME] != "plain":
        contenders["matrix products by oneDNN"] = only("winograd", "onednn")
    if any(way != "plain" for name, way in chosen.items() if name.startswith("linear")):
        contenders["their weights laid out once"] = only("winograd", "onednn", "linear")
    if any(way != "plain" for name, way in chosen.items() if name.startswith("composed")):
        contenders["deformable and strided convolution composed"] = only("winograd", "onednn", "linear", "composed")
    count = operations(lambda: model.score(*pictures(2, 0).split(1)))
    found = compare(contenders, rounds)
    times = found.times
    names = list(contenders)
    rows, previous = [], names[0]
    for name in names:
        total, own = ratio(times[names[0]], times[name]), ratio(times[previous], times[name])
        rows.append((name, f"{median(times[name]):.2f}", f"{own:.3f}x", f"{total:.2f}x", found.share(name, count)))
        previous = name
    title = f"Where it comes from, one pair ({count / 1e9:.0f} GFLOP), ViT-B/{patch}; {found.best()}"
    table(title, ("", "CPU s", "this step", "so far", "share of the best product"), rows)
    print("\nchosen here: " + ", ".join(f"{name} {way}" for name, way in chosen.items()))


def ways(patch: int, rounds: int) -> None:
    """What is gained by taking each faster way of computing only where a trial shows it to be faster."""
    torch.manual_seed(0)
    model = AHIQ(patch_size=patch).eval()
    chosen = choice.chosen([model], 1)

    def by(named: Any) -> Callable[[int], Tensor]:
        def inside(number: int) -> Tensor:
            with choice.using(named):
                return model.score(*pictures(2, number).split(1))

        return inside

    contenders = {"chosen by trials": by(chosen), "as fixed before": by(None), "public functions alone": by(choice.PLAINLY)}
    count = operations(lambda: model.score(*pictures(2, 0).split(1)))
    found = compare(contenders, rounds)
    first = found.times["chosen by trials"]
    rows = [
        (name, f"{median(times):.2f}", f"{ratio(times, first):.3f}x", found.share(name, count))
        for name, times in found.times.items()
    ]
    header = ("", "CPU s", "over the chosen", "share of the best product")
    table(f"Ways of computing, one pair ({count / 1e9:.0f} GFLOP), ViT-B/{patch}; {found.best()}", header, rows)
    apart = max(difference(found.results["chosen by trials"], other) for other in found.results.values())
    print(f"\nlargest difference of a score: {apart:.1e}; chosen: " + ", ".join(f"{k} {v}" for k, v in chosen.items()))


def training(patch: int, rounds: int) -> None:
    """A training step of the released recipe; the peer's trunks are in the graph, as in the released code."""
    peer = Straightforward(patch)
    model = ours(peer, patch)
    for trunk in (model.vit, model.resnet50):
        trunk.requires_grad_(False)
    model.train()
    target = torch.tensor([0.1, 0.9, 0.7, 0.4])
    peer_heads = [*peer.deform_net.conv_offset.parameters(), *peer.deform.parameters()]
    peer_heads += [*peer.deform_net.conv1.parameters(), *peer.regressor.parameters()]

    def stepper(net: nn.Module, parameters: list[nn.Parameter]) -> Callable[[int], Any]:
        optimizer = torch.optim.Adam(parameters, lr=1e-4, weight_decay=1e-5)

        def step(number: int) -> float:
            loss = F.mse_loss(net(pictures(4, number), pictures(4, 1000 + number)), target)
            net.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    trained = [p for p in model.parameters() if p.requires_grad]
    start = {name: value.clone() for name, value in model.state_dict().items()}
    step = stepper(model, trained)
    count = operations(lambda: step(0))
    model.load_state_dict(start)
    found = compare({"peer": stepper(peer, peer_heads), "ours": stepper(model, trained)}, rounds)
    rows = [row("training step, batch 4", found, "peer", "ours", count)]
    table(f"Training, ViT-B/{patch}, fp32; {found.best()}", HEADER, rows)
    print(f"\nfirst losses: {found.results['peer'][0]:.7f} and {found.results['ours'][0]:.7f}")


def memory(patch: int) -> None:
    """Largest resident size of a process that scores 20 crops of one pair."""
    sizes = {}
    for who in ("nothing", "peer", "ours"):
        command = [sys.executable, __file__, "--patch", str(patch), "--in-process", who]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        sizes[who] = json.loads(done.stdout.splitlines()[-1])
    rows = [(f"20 crops of one pair, ViT-B/{patch}", f"{sizes['peer']:.2f}", f"{sizes['ours']:.2f}", "2.00", "1.50")]
    table("Peak memory", ("", "peer, GB", "ours, GB", "must", "goal"), rows)
    print(f"\nimports alone: {sizes['nothing']:.2f} GB")


def in_process(who: str, patch: int) -> None:
    torch.set_num_threads(2)
    if who == "peer":
        peer = Straightforward(patch)
        with torch.no_grad():
            peer(pictures(20, 0), pictures(20, 1))
    elif who == "ours":
        model = AHIQ(patch_size=patch).eval()
        model.score(pictures(20, 0), pictures(20, 1))
    scale = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e9)


def bf16(patch: int, rounds: int) -> None:
    """What precision = "bf16" gains and changes."""
    from harness.statistics.agreement import agreement

    peer = Straightforward(patch)
    full, half = ours(peer, patch), ours(peer, patch, precision="bf16")
    index = torch.zeros(10, dtype=torch.long)
    contenders: dict[str, Callable[[int], Any]] = {
        name: lambda n, m=m: m.score_embedded(m.embed(pictures(1, n)), pictures(10, 1000 + n), index)  # type: ignore[misc]
        for name, m in (("fp32", full), ("bf16", half))
    }
    times, results, _ = compare(contenders, rounds)
    ones, others = torch.cat(results["fp32"]), torch.cat(results["bf16"])
    change = float((ones - others).abs().max())
    srcc = agreement(others.tolist(), np.array(ones.tolist()), intervals=False).srcc
    rows = [(f"{ratio(times['fp32'], times['bf16']):.2f}x", f"{change:.1e}", f"{float(ones.std()):.1e}", f"{srcc:.4f}")]
    header = ("fp32 : bf16", "largest change of a score", "spread of scores", "SRCC of bf16 with fp32")
    table(f"bf16, ten distorted images per reference, ViT-B/{patch}", header, rows)


def cpu() -> str:
    """The processor's name and what matters of it."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    facts = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in facts.items()}
    flags = named.get("flags", "").split()
    known = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags]
    return f"{named.get('model name', platform.processor() or platform.machine())} ({', '.join(known) or 'flags unknown'})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patch", type=int, default=8, choices=(8, 16))
    parser.add_argument("--only", default="pair,ten,steps,ways,training,memory", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--in-process", choices=("nothing", "peer", "ours"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.in_process:
        in_process(arguments.in_process, arguments.patch)
        return
    parts = set(arguments.only.split(","))
    if unknown := parts - set(PARTS):
        parser.error(f"--only {','.join(sorted(unknown))}: known are {','.join(PARTS)}")
    torch.set_num_threads(1)
    os.environ[choice.VARIABLE] = "auto"
    print(f"{cpu()}, torch {torch.__version__}, {arguments.rounds} rounds, one thread (memory: two)")
    if parts & {"pair", "ten"}:
        scoring(arguments.patch, arguments.rounds, parts)
    if "steps" in parts:
        steps(arguments.patch, arguments.rounds)
    if "ways" in parts:
        ways(arguments.patch, arguments.rounds)
    if "training" in parts:
        training(arguments.patch, arguments.rounds)
    if "memory" in parts:
        memory(arguments.patch)
    if "bf16" in parts:
        bf16(arguments.patch, arguments.rounds)


if __name__ == "__main__":
    main()
