"""Linear layers with packed weights give the public function's numbers, also after the weight changes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from harness.models.ahiq import deform_conv
from harness.models.kernels import linear
from harness.models.kernels.linear import Linear
from harness.models.kernels.weight_cache import Prepared

needs_operators = pytest.mark.skipif(not linear.available(), reason="this torch lacks oneDNN's packed products")


def layer(inputs: int = 192, outputs: int = 256, gelu: bool = False, seed: int = 0) -> Linear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Linear(inputs, outputs, gelu)


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def truth(of: Linear, x: torch.Tensor) -> torch.Tensor:
    out = F.linear(x.double(), of.weight.double(), of.bias.double())
    return F.gelu(out) if of.gelu else out


@pytest.mark.parametrize("operators", [True, False], ids=["packed", "public function"])
@pytest.mark.parametrize("gelu", [False, True])
def test_either_way_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch, operators: bool, gelu: bool):
    if operators and not linear.available():
        pytest.skip("this torch lacks oneDNN's packed products")
    monkeypatch.setattr(linear, "available", lambda: operators)
    one = layer(gelu=gelu)
    with torch.inference_mode():
        for x in (rows(5, 192), rows(2, 7, 192), rows(192, 40).T, rows(1, 192)):
            assert (one(x) - truth(one, x)).abs().max() < 1e-5


@needs_operators
def test_wide_layers_in_use_take_the_fast_way_and_narrow_or_trained_ones_do_not(monkeypatch: pytest.MonkeyPatch):
    taken: list[int] = []
    own = linear.multiply
    monkeypatch.setattr(linear, "multiply", lambda *given: taken.append(1) or own(*given))

    def fast(one: Linear, x: torch.Tensor) -> bool:
        taken.clear()
        one(x)
        return bool(taken)

    wide, narrow, double = layer(), layer(64), layer().double()
    with torch.inference_mode():
        assert fast(wide, rows(4, 192))
        assert not fast(narrow, rows(4, 64))
        assert not fast(double, rows(4, 192).double())
        with torch.autocast("cpu", torch.bfloat16):
            assert not fast(wide, rows(4, 192))
    assert not fast(layer(), rows(4, 192))
    assert not fast(layer().requires_grad_(False), rows(4, 192).requires_grad_())
    assert fast(layer().requires_grad_(False), rows(4, 192))


def test_the_layer_follows_its_weight_through_every_way_of_changing_it():
    one, x = layer(), rows(6, 192)

    def right() -> bool:
        with torch.inference_mode():
            return torch.allclose(one(x).double(), truth(one, x), rtol=1e-5, atol=1e-4)

    assert right()
    with torch.no_grad():
        one.weight.mul_(-2)
        one.bias.add_(1)
    assert right()
    one.load_state_dict(layer(seed=1).state_dict())
    assert right()
    one.weight = torch.nn.Parameter(layer(seed=2).weight.detach().clone())
    assert right()
    optimizer = torch.optim.SGD(one.parameters(), lr=1.0)
    one(x).sum().backward()
    optimizer.step()
    assert right()


def test_a_weight_in_the_memory_of_one_that_is_gone_is_not_taken_for_it():
    prepared, places, weight = Prepared(), set(), torch.zeros(64, 64)
    for number in range(1, 50):
        assert prepared("whole", weight, torch.clone).mean() == number - 1
        places.add(weight.data_ptr())
        # Two changes between two uses: the second may get the first one's memory back.
        weight = None
        weight = torch.full((64, 64), float(number))
    assert len(places) > 1


def test_a_copy_of_a_layer_has_the_same_state_and_keeps_nothing_of_the_first():
    one, x = layer(), rows(3, 192)
    with torch.inference_mode():
        before = one(x)
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert other.state_dict().keys() == {"weight", "bias"}
        with torch.no_grad():
            other.weight.zero_()
        with torch.inference_mode():
            assert torch.equal(other(x), other.bias.expand(3, -1))
            assert torch.equal(one(x), before)


def test_what_is_prepared_is_made_once_for_each_name_and_state_of_the_weight():
    prepared, weight, made = Prepared(), torch.ones(2), []

    def make(w: torch.Tensor) -> torch.Tensor:
        made.append(1)
        return w + 1

    assert prepared("a", weight, make).tolist() == prepared("a", weight, make).tolist() == [2, 2]
    assert len(made) == 1
    prepared("b", weight, make)
    weight.add_(1)
    assert prepared("a", weight, make).tolist() == [3, 3]
    assert len(made) == 3


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("multiply", lambda *_: (_ for _ in ()).throw(AttributeError("no such operator"))),
        ("multiply", lambda x, matrix, bias, gelu=False: x.new_zeros(160, 160)),
        ("packed", lambda weight: (_ for _ in ()).throw(NotImplementedError("not on this CPU"))),
    ],
    ids=["operator gone", "other numbers", "not on this CPU"],
)
def test_operators_that_are_gone_or_multiply_otherwise_are_not_used(monkeypatch: pytest.MonkeyPatch, name: str, broken: object):
    linear.available.cache_clear()
    monkeypatch.setattr(linear, name, broken)
    try:
        assert not linear.available()
    finally:
        linear.available.cache_clear()


@needs_operators
def test_a_wide_deformable_convolution_gives_the_same_numbers_over_a_packed_weight(monkeypatch: pytest.MonkeyPatch):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        conv = deform_conv.DeformConv(128, 144)
    x, where = rows(2, 128, 6, 6), deform_conv.places(2 * rows(2, 18, 6, 6))
    with torch.inference_mode():
        fast = conv(x, where)
        monkeypatch.setattr(linear, "available", lambda: False)
        plain = conv(x, where)
    assert not torch.equal(fast, torch.zeros_like(fast))
    assert (fast - plain).abs().max() < 1e-5
