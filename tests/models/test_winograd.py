"""Winograd convolutions equal direct ones, also after the weights change."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from harness.models.ahiq.model import AHIQ
from harness.models.kernels.winograd import Conv3x3, conv3x3, transformed


def conv(inputs: int = 128, outputs: int = 136, seed: int = 0) -> Conv3x3:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Conv3x3(inputs, outputs)


def maps(channels: int, height: int, width: int, count: int = 2) -> torch.Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(height * 100 + width))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (14, 14), (9, 11), (13, 8), (1, 1), (4, 5)])
def test_any_size_of_map_gives_the_direct_convolutions_values(height: int, width: int):
    layer, x = conv(), maps(128, height, width)
    with torch.inference_mode():
        truth = F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)
        fast = conv3x3(x, transformed(layer.weight), layer.bias)
    assert fast.shape == truth.shape
    assert (fast - truth).abs().max() < 5e-5 * truth.std()


def test_wide_layers_take_the_fast_way_and_narrow_small_or_trained_ones_do_not(monkeypatch: pytest.MonkeyPatch):
    taken: list[int] = []
    monkeypatch.setattr("harness.models.kernels.winograd.conv3x3", lambda x, *rest: taken.append(1) or conv3x3(x, *rest))

    def fast(layer: Conv3x3, x: torch.Tensor) -> bool:
        taken.clear()
        layer(x)
        return bool(taken)

    wide, narrow, double = conv(), conv(64), conv().double()
    with torch.inference_mode():
        assert fast(wide, maps(128, 28, 28))
        assert not fast(narrow, maps(64, 28, 28))
        assert not fast(wide, maps(128, 6, 6))
        assert not fast(double, maps(128, 28, 28).double())
        with torch.autocast("cpu", torch.bfloat16):
            assert not fast(wide, maps(128, 28, 28))
    assert not fast(conv(), maps(128, 28, 28))
    assert fast(conv().requires_grad_(False), maps(128, 28, 28))


def test_the_layer_follows_its_weight_through_every_way_of_changing_it():
    layer, x = conv(), maps(128, 12, 12)

    def right() -> bool:
        with torch.inference_mode():
            return torch.allclose(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1), atol=1e-4)

    assert right()
    with torch.no_grad():
        layer.weight.mul_(-2)
    assert right()
    layer.load_state_dict(conv(seed=1).state_dict())
    assert right()
    layer.weight = torch.nn.Parameter(conv(seed=2).weight.detach().clone())
    assert right()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    layer(x).sum().backward()
    optimizer.step()
    assert right()


def test_parts_of_a_weight_are_kept_apart():
    layer, x = conv(256, 128), maps(128, 12, 12)
    with torch.inference_mode():
        one, two = (layer.using(x, name, lambda w, i=i: w[:, i : i + 128], None) for name, i in (("one", 0), ("two", 128)))
        both = layer(torch.cat([x, x], 1)) - layer.bias[:, None, None]
    assert torch.allclose(one + two, both, atol=1e-5)


def test_the_released_networks_wide_layers_keep_their_state_dict():
    """The released network's wide layers are of this kind and its state dict is as it was."""
    with torch.device("meta"):
        eight, sixteen = AHIQ(patch_size=8), AHIQ(patch_size=16)
    kinds = [name for name, module in eight.named_modules() if isinstance(module, Conv3x3)]
    assert kinds == ["deform_net.conv1.2", "regressor.feat_smoothing.0", "regressor.feat_smoothing.2", "regressor.conv1.0"]
    assert not isinstance(sixteen.deform_net.conv1[2], Conv3x3)
    assert not [key for key in eight.state_dict() if "prepared" in key]
