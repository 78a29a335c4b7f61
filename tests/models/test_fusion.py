"""A deformable convolution and the strided one after it give the same numbers when they are composed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from harness.models.ahiq import AHIQ, fusion
from harness.models.ahiq.deform_conv import places
from harness.models.ahiq.fusion import DeformFusion
from harness.models.kernels import choice, linear

NAME = "composed 128x144"
BY = {way: {NAME: way, "linear 1152x128": "packed", "winograd 144x128": "winograd"} for way in ("plain", "composed")}


@pytest.fixture(autouse=True)
def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(choice.VARIABLE, raising=False)
    monkeypatch.setattr(choice, "_imposed", [])


def made(patch: int = 8, seed: int = 0) -> DeformFusion:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DeformFusion(10, 128, 144, patch)


def maps(height: int, width: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 128, height, width, generator=torch.Generator().manual_seed(height))


def where(height: int, width: int, count: int = 2):
    # Far enough for samples from outside of the map.
    return places(3 * torch.randn(count, 18, height, width, generator=torch.Generator().manual_seed(width)))


@pytest.mark.parametrize("patch", [8, 16])
@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (2, 2), (12, 20), (56, 56)])
def test_composed_and_plain_give_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, patch: int, packs: bool, height: int, width: int
):
    if packs and not linear.available():
        pytest.skip("this torch lacks oneDNN's packed products")
    monkeypatch.setattr(linear, "available", lambda: packs)
    one, x, at = made(patch), maps(height, width), where(height, width)
    with torch.inference_mode():
        found = {}
        for way, ways in BY.items():
            with choice.using(ways):
                found[way] = one(x, at)
        truth = F.conv2d(one.double().deform(x.double(), at), one.conv1[0].weight, one.conv1[0].bias, 2, 1)
        truth = one.conv1[2](truth.relu()).flatten(2).transpose(1, 2)
    assert found["plain"].shape == found["composed"].shape == truth.shape
    assert not torch.equal(found["plain"], found["composed"]) or height == 2
    for out in found.values():
        assert (out - truth).abs().max() < 1e-4 * truth.abs().max()


def test_composed_weights_follow_both_convolutions(monkeypatch: pytest.MonkeyPatch):
    one, other, x, at = made(), made(seed=1), maps(8, 8), where(8, 8)

    def right() -> bool:
        with torch.inference_mode():
            found = []
            for ways in BY.values():
                with choice.using(ways):
                    found.append(one(x, at))
        return torch.allclose(*found, atol=1e-4)

    assert right()
    for part in ("deform", "conv1"):
        getattr(one, part).load_state_dict(getattr(other, part).state_dict())
        assert right()
    with torch.no_grad():
        one.conv1[0].bias.add_(1)
        one.deform.bias.mul_(-3)
    assert right()


def test_what_is_trained_narrow_or_not_deformed_is_not_composed(monkeypatch: pytest.MonkeyPatch):
    taken: list[int] = []
    own = fusion.composed
    monkeypatch.setattr(fusion, "composed", lambda *given: taken.append(1) or own(*given))
    x, at = maps(8, 8), where(8, 8)
    undeformed, narrow = made(), DeformFusion(10, 64, 144, 8)
    with choice.using(BY["composed"]):
        made()(x, at)
        with torch.inference_mode():
            undeformed(x, None)
            narrow(x[:, :64], at)
        assert not taken
        one = made()
        with torch.inference_mode():
            one(x, at)
        assert taken


def test_a_trial_of_the_two_ways_finds_them_equal():
    with torch.inference_mode():
        ways = fusion._ways(144, 128)
    assert list(ways) == list(choice.WAYS["composed"])
    with torch.inference_mode():
        assert choice.accurate(ways["composed"](), ways["plain"]())


def test_the_state_dict_is_as_it_was():
    with torch.device("meta"):
        keys = AHIQ().deform_net.state_dict().keys()
    layers = ("conv_offset", "deform", "conv1.0", "conv1.2")
    assert set(keys) == {f"{layer}.{what}" for layer in layers for what in ("weight", "bias")}
