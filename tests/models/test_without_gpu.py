"""Every registry model on a simulated GPU: FakeTensor tracks devices and shapes, and fails where a value is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from harness import models
from harness.cards.loading import load_cards
from harness.cards.schema import Recipe
from harness.engine.frozen_parts import freeze, train_mode
from harness.engine.loss import mean_loss
from harness.engine.process_group import SingleProcess
from harness.engine.trainer import Trainer
from harness.models import base
from harness.models.capabilities import capabilities
from harness.models.kernels import linear, onednn

NETWORKS = [name for name, card in load_cards("models").items() if card.weights or card.recipe is not None]


pytestmark = pytest.mark.skipif(
    torch.__version__ < (2, 10) and torch.version.cuda is not None and not torch.cuda.is_available(),
    reason="torch 2.9 with CUDA's libraries asks the driver where even a pretended gradient is to be kept",
)


@pytest.fixture(autouse=True)
def no_look_at_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """`score` is a public door and checks its values; that look is not the model's."""
    monkeypatch.setattr(base, "_check_values", lambda what, x: None)
    # Trial products, once a process and on a CPU alone, do look.
    monkeypatch.setattr(onednn, "worthwhile", lambda: False)
    monkeypatch.setattr(linear, "available", lambda: False)


@contextmanager
def on_gpu(name: str, device: str = "cuda") -> Iterator[Any]:
    """The model of a card in a world of fake tensors, its own on `device`."""
    with torch.device("meta"):
        model = models.build(load_cards("models")[name], None, 0)
    with FakeTensorMode():
        yield _moved(model, device)


def _moved(model: Any, device: str) -> Any:
    def moved(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)

    for module in model.modules():
        for key, value in module._parameters.items():
            module._parameters[key] = None if value is None else torch.nn.Parameter(moved(value), value.requires_grad)
        for key, value in module._buffers.items():
            module._buffers[key] = None if value is None else moved(value)
    return model.eval()


def crops(model: Any, count: int, device: str = "cuda") -> torch.Tensor:
    side = capabilities(model).crop_size or 128
    return torch.rand(count, 3, side, side, device=device)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_scores_stay_on_the_gpu_in_their_shapes(name: str):
    with on_gpu(name) as model:
        reference, distorted = crops(model, 2), crops(model, 3)
        index = torch.tensor([0, 0, 1], device="cuda")
        scores = [model.score(reference, distorted[:2])]
        if capabilities(model).score_embedded:
            scores.append(model.score_embedded(model.embed(reference), distorted, index))
        if hasattr(model, "maps_embedded"):
            maps = model.maps_embedded(model.embed(reference), distorted, index)
            assert maps.quality.shape == maps.weight.shape == (3, model.grid, model.grid)
            scores.append(maps.score)
        assert [tuple(s.shape) for s in scores] == [(2,), (3,), (3,)][: len(scores)]
        assert all(s.device.type == "cuda" and s.dtype == torch.float32 for s in scores)


TRAINED = [name for name in NETWORKS if load_cards("models")[name].recipe is not None]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_a_training_steps_loss_stays_on_the_gpu(name: str):
    """Without its backward pass, for which torch's engine wants a real GPU; the next test has all of a step."""
    with on_gpu(name) as model:
        trainer = _trainer(model, load_cards("models")[name].recipe)
        reference, distorted, index = crops(model, 2), crops(model, 4), torch.tensor([0, 0, 1, 1], device="cuda")
        loss = trainer.loss(reference, distorted, index, torch.rand(4, device="cuda"))
        assert (loss.device.type, loss.shape, loss.requires_grad) == ("cuda", (), True)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_a_training_step_waits_for_no_value(name: str):
    with on_gpu(name, "cpu") as model:
        assert _step_of(model, load_cards("models")[name].recipe).shape == ()


def test_a_step_that_looks_at_a_value_is_noticed():
    def looking(reference: Any, distorted: Any, index: Any, target: Any) -> Any:
        return model(reference, distorted, index).mean() * float(target[0])

    with on_gpu("ahiq-tiny", "cpu") as model:
        model.training_step = looking
        with pytest.raises(DataDependentOutputException):
            _step_of(model, Recipe(epochs=1, optimizer="adam", rate=1e-3))


def _trainer(model: Any, recipe: Recipe) -> Trainer:
    """A trainer of the model alone, with no data."""
    trainer = Trainer.__new__(Trainer)
    trainer.model, trainer.recipe, trainer.device, trainer.card_path = model, recipe, "cuda", ""
    trainer.group = SingleProcess()
    freeze(model, recipe)
    train_mode(model, recipe)
    trainer.loss = mean_loss(model, recipe, "")
    return trainer


def _step_of(model: Any, recipe: Recipe) -> torch.Tensor:
    """The trainer's own forward, loss, backward, clipping and update of one batch."""
    trainer = _trainer(model, recipe)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = trainer._optimizer(trainable)
    reference, distorted, index = crops(model, 2, "cpu"), crops(model, 4, "cpu"), torch.tensor([0, 0, 1, 1])
    loss = trainer._backward(reference, distorted, index, torch.rand(4))
    loss = trainer.group.reduce_gradients(trainable, loss, 1.0)
    if recipe.clip:
        torch.nn.utils.clip_grad_norm_(trainable, recipe.clip)
    optimizer.step()
    assert isinstance(loss, torch.Tensor)
    return loss


@pytest.mark.gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_on_a_real_gpu_scores_are_those_of_the_cpu(name: str):
    if not torch.cuda.is_available():
        pytest.skip("no GPU here (pytest -m gpu where there is one)")
    from harness.engine.devices import numerics

    model = models.build(load_cards("models")[name], None, 0)
    side = capabilities(model).crop_size or 128
    draw = torch.Generator().manual_seed(0)
    reference, distorted = (torch.rand(2, 3, side, side, generator=draw) for _ in range(2))
    expected = model.score(reference, distorted)
    with numerics("cuda"):
        found = model.to("cuda").score(reference.cuda(), distorted.cuda()).cpu()
    assert (found - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))


def test_a_gpu_rounds_to_tf32_only_where_a_precision_asks_for_it():
    from harness.engine.devices import numerics

    def flags() -> tuple[Any, ...]:
        backends = torch.backends
        return backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision, backends.cudnn.deterministic

    before = flags()
    with numerics("cuda:0"):
        assert flags()[:2] == ("ieee", "ieee")
    with numerics("cuda", "bf16", training=True):
        assert flags() == ("tf32", "tf32", True)
    with numerics("cpu", "bf16"):
        assert flags() == before
    assert flags() == before


def test_conditions_name_the_gpu(monkeypatch: pytest.MonkeyPatch):
    from harness.results.conditions import conditions, difference

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    here, there = conditions("cuda", 1, 8), conditions("cpu", 1, 8)
    assert here["gpu"]["name"] == "Some GPU"
    assert here["gpu"]["count"] == 2
    assert "gpu" in difference(there, here)
