"""The AHIQ network: equal to a literal implementation, with and without reuse, and strict about weights and settings."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_ahiq import ABLATIONS, GOLDEN, SMALL, TINY, Plain, by_rule, crops, plain, rule_state
from torch import Tensor, nn

from harness import models
from harness.cards.overrides import apply_set
from harness.cards.schema import Cropping, ModelCard
from harness.engine import unlabelled
from harness.engine.training_batches import Batches
from harness.models import find_model
from harness.models.ahiq.backbones import BatchNorm
from harness.models.ahiq.deform_conv import deform_conv, places, upsampled_conv
from harness.models.ahiq.model import AHIQ
from harness.models.kernels import onednn
from harness.runtime.errors import UsageError


def filled(configuration: dict[str, Any], **changes: Any) -> AHIQ:
    model = AHIQ(**(configuration | changes)).eval()
    model.load_state(rule_state(model))
    return model


@pytest.fixture(scope="module")
def small() -> AHIQ:
    return filled(SMALL["patch 8"])


@pytest.fixture(scope="module")
def tiny() -> AHIQ:
    return filled(TINY)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def released(model: AHIQ) -> dict[str, Tensor]:
    """The model's heads as a reader of checkpoints hands a released one on: nested keys joined by dots."""
    return {f"{name}.{key}": tensor for name, state in model.export_released().items() for key, tensor in state.items()}


# The same numbers as the published network


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_scores_are_those_of_the_literal_network_over_whole_backbones(name: str):
    reference, distorted = crops(SMALL[name]["crop_size"], 4, "other")
    with torch.no_grad():
        expected = plain(SMALL[name])(reference, distorted)
    assert (filled(SMALL[name]).score(reference, distorted) - expected).abs().max() < 2e-6


@pytest.mark.slow
def test_scores_are_the_small_golden_ones():
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for name, configuration in {**SMALL, **ABLATIONS, "tiny": TINY}.items():
        scores = filled(configuration).score(*crops(configuration["crop_size"], 4))
        assert scores.tolist() == pytest.approx(golden[name], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ABLATIONS)
def test_each_ablation_is_its_literal_second_writing(name: str):
    configuration = ABLATIONS[name]
    reference, distorted = crops(configuration["crop_size"], 4, "other")
    with torch.no_grad():
        expected = plain(configuration)(reference, distorted)
    model = filled(configuration)
    assert (model.score(reference, distorted) - expected).abs().max() < 2e-6
    # What is reused and what is trained are the same numbers.
    index = torch.tensor([0, 1, 2, 3])
    assert (model.score_embedded(model.embed(reference), distorted, index) - expected).abs().max() < 2e-6
    assert (model(reference, distorted).detach() - expected).abs().max() < 2e-6
    maps = model.score_maps(reference, distorted)
    assert maps.quality.shape == maps.weight.shape == (4, model.grid, model.grid)


def test_ablations_refuse_what_cannot_be():
    with pytest.raises(UsageError, match="deformable = true needs both trunks"):
        AHIQ(**{**TINY, "trunks": "vit"})
    with pytest.raises(UsageError, match=r"pooling = 'max' is not one of patches, mean.*cnn_depth = 12 should be at most 11"):
        AHIQ(**{**TINY, "pooling": "max", "cnn": "inception", "cnn_depth": 12})
    vit = AHIQ(**{**TINY, "trunks": "vit", "deformable": False})
    assert not hasattr(vit, "resnet50")
    with pytest.raises(UsageError, match=r"no part 'resnet50'.*vit, heads"):
        vit.load_part("resnet50", {})


def test_both_trunks_see_pixels_scaled_to_plus_and_minus_one(small: AHIQ, monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setattr(small, "_features", lambda x, own=small._features: seen.append(x) or own(x))
    small.score(*crops(48, 1))
    assert len(seen) == 1
    white = torch.ones(1, 3, 48, 48)
    tokens, maps = small._features(white)
    assert torch.equal(tokens, small.vit(white))
    assert torch.equal(maps, small.resnet50(white))
    black = small.resnet50(torch.full((1, 3, 48, 48), -1.0))
    assert torch.equal(small._features(torch.zeros(1, 3, 48, 48))[1], black)


def test_training_mode_changes_no_score_because_batch_statistics_are_never_used(small: AHIQ):
    reference, distorted = crops(48, 3)
    still = small.score(reference, distorted)
    statistics = {k: v.clone() for k, v in small.state_dict().items() if "running" in k}
    try:
        small.train()
        with torch.no_grad():
            assert torch.equal(small(reference, distorted), still)
    finally:
        small.eval()
    assert statistics
    assert all(torch.equal(v, small.state_dict()[k]) for k, v in statistics.items())


def test_a_score_depends_on_its_own_pair_alone(tiny: AHIQ):
    reference, distorted = crops(48, 4)
    first = tiny.score(reference[:1], distorted[:1])
    together = tiny.score(reference, distorted)
    tiny.vit(reference * 2 - 1)
    tiny.embed(distorted)
    assert torch.equal(tiny.score(reference[:1], distorted[:1]), first)
    assert (together[:1] - first).abs().max() < 1e-6
    order = torch.tensor([2, 0, 3, 1])
    assert (tiny.score(reference[order], distorted[order]) - together[order]).abs().max() < 1e-6


def test_no_output_is_kept_and_no_hook_is_set(tiny: AHIQ):
    before = {name: dict(vars(module)) for name, module in tiny.named_modules()}
    tiny.score(*crops(48, 2))
    assert {name: dict(vars(module)) for name, module in tiny.named_modules()} == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny.modules())


# Reuse


@pytest.mark.slow
@pytest.mark.parametrize("configuration", [SMALL["patch 8"], SMALL["patch 16"], TINY], ids=["patch 8", "patch 16", "tiny"])
def test_an_embedded_reference_gives_the_scores_of_its_pairs(configuration: dict[str, Any]):
    model = filled(configuration)
    reference, distorted = crops(configuration["crop_size"], 5)
    index = torch.tensor([1, 0, 1, 1, 0])
    pairwise = model.score(reference[index], distorted)
    embedding = model.embed(reference[:2])
    assert (model.score_embedded(embedding, distorted, index) - pairwise).abs().max() < 1e-6
    with torch.no_grad():
        assert (model(reference[:2], distorted, index) - pairwise).abs().max() < 1e-6


def test_scores_do_not_depend_on_how_many_crops_are_in_work_at_once(tiny: AHIQ, monkeypatch: pytest.MonkeyPatch):
    reference, distorted = crops(48, 7)
    whole = tiny.score(reference, distorted)
    monkeypatch.setattr("harness.models.ahiq.model._PIXELS_ON_CPU", 2 * 48 * 48)
    monkeypatch.setattr("harness.models.ahiq.deform_conv._SAMPLES_ON_CPU", 1)
    assert (tiny.score(reference, distorted) - whole).abs().max() < 1e-6
    assert (tiny.score_embedded(tiny.embed(reference), distorted, torch.arange(7)) - whole).abs().max() < 1e-6


def test_the_maps_are_behind_the_score(tiny: AHIQ):
    reference, distorted = crops(48, 3)
    maps = tiny.score_maps(reference, distorted)
    assert maps.quality.shape == maps.weight.shape == (3, 6, 6)
    assert (maps.weight > 0).all()
    assert (maps.weight < 1).all()
    means = (maps.quality * maps.weight).flatten(1).sum(1) / maps.weight.flatten(1).sum(1)
    assert torch.allclose(means, tiny.score(reference, distorted), atol=1e-6)
    assert torch.allclose(maps.score, means, atol=1e-6)


# Kernels


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 7), st.integers(1, 7), st.sampled_from([0.0, 0.4, 3.0, 40.0]))
def test_the_deformable_convolution_is_torchvisions(maps: int, channels: int, height: int, width: int, reach: float):
    torch.manual_seed(height * 8 + width)
    conv = nn.Conv2d(channels, 5, 3, 1, 1)
    x = torch.randn(maps, channels, height, width)
    offsets = torch.randn(maps, 18, height, width) * reach
    expected = torchvision.ops.deform_conv2d(x, offsets, conv.weight, conv.bias, padding=1)
    assert (deform_conv(x, places(offsets), conv.weight, conv.bias) - expected).abs().max() < 2e-5


@pytest.mark.parametrize("pixels_at_once", [1 << 20, 10, 1])
@pytest.mark.parametrize("trained_map", [True, False])
def test_gradients_through_the_deformable_convolution_are_torchvisions(
    monkeypatch: pytest.MonkeyPatch, trained_map: bool, pixels_at_once: int
):
    monkeypatch.setattr("harness.models.ahiq.deform_conv._SAMPLES_ON_CPU", 9 * 6 * pixels_at_once)
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 5, 3, 1, 1)
    x = torch.randn(3, 6, 8, 7, requires_grad=trained_map)
    offsets = (torch.randn(3, 18, 8, 7) * 2).requires_grad_()
    wanted = [offsets, conv.weight, conv.bias, *([x] if trained_map else [])]
    pull = torch.randn(3, 5, 8, 7)
    own = torch.autograd.grad((deform_conv(x, places(offsets), conv.weight, conv.bias) * pull).sum(), wanted)
    expected = torchvision.ops.deform_conv2d(x, offsets, conv.weight, conv.bias, padding=1)
    for ours, theirs in zip(own, torch.autograd.grad((expected * pull).sum(), wanted), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_offsets_beyond_all_bounds_look_at_nothing():
    conv = nn.Conv2d(2, 3, 3, 1, 1)
    offsets = torch.full((1, 18, 4, 4), 1e30)
    out = deform_conv(torch.ones(1, 2, 4, 4), places(offsets), conv.weight, conv.bias)
    assert torch.equal(out, conv.bias.reshape(1, 3, 1, 1).expand(1, 3, 4, 4))


def test_what_is_no_number_becomes_a_score_that_is_none_and_no_crash():
    model = filled(TINY)
    with torch.no_grad():
        model.deform_net.conv_offset.bias[0] = torch.nan
    assert model.score(*crops(48, 2)).isnan().all()


@pytest.mark.parametrize(("grid", "size"), [(6, 12), (4, 16), (5, 5)])
def test_the_offsets_are_those_of_the_enlarged_map(grid: int, size: int):
    torch.manual_seed(0)
    conv = nn.Conv2d(10, 18, 3, 1, 1)
    tokens = torch.randn(2, grid * grid, 10)
    enlarged = F.interpolate(tokens.transpose(1, 2).reshape(2, 10, grid, grid), size=(size, size), mode="nearest")
    assert (upsampled_conv(tokens, conv, grid, size) - conv(enlarged)).abs().max() < 1e-5


def test_a_folded_norm_is_torchs_in_eval_mode():
    torch.manual_seed(0)
    conv, norm, torchs = nn.Conv2d(3, 8, 3, bias=False), BatchNorm(8), nn.BatchNorm2d(8).eval()
    for key in ("weight", "bias", "running_mean", "running_var"):
        for module in (norm, torchs):
            getattr(module, key).data.copy_(by_rule(key, (8,)))
    x = torch.randn(2, 3, 9, 9)
    weight, bias = norm.folded(conv.weight)
    assert (F.conv2d(x, weight, bias) - torchs(conv(x))).abs().max() < 1e-5


@pytest.mark.parametrize("allowed", [True, False])
def test_scores_agree_with_and_without_onednns_products(tiny: AHIQ, monkeypatch: pytest.MonkeyPatch, allowed: bool):
    expected = tiny.score(*crops(48, 2))
    # Where the trial forbids it, allowing it would change the numbers; there only the fallback is left to test.
    monkeypatch.setattr(onednn, "worthwhile", lambda own=onednn.worthwhile: allowed and own())
    assert (tiny.score(*crops(48, 2)) - expected).abs().max() < 1e-5


def test_the_trial_distinguishes_fp32_from_bf16():
    a, b = torch.randn(2, 256, 512, generator=torch.Generator().manual_seed(1))
    truth = a.double() @ b.double().T
    assert onednn.accurate(a @ b.T, truth)
    assert not onednn.accurate((a.bfloat16() @ b.bfloat16().T).float(), truth)
    assert not onednn.accurate(a.bfloat16().float() @ b.bfloat16().float().T, truth)


def test_the_permission_for_onednn_is_given_back_whatever_happens(monkeypatch: pytest.MonkeyPatch):
    set_to = ["ieee"]
    monkeypatch.setattr(onednn, "worthwhile", lambda: True)
    monkeypatch.setattr(onednn, "_permission", lambda value: (set_to.append(value), set_to[-2])[1])
    cpu = torch.device("cpu")

    def interrupted() -> None:
        with onednn.by_onednn(cpu), onednn.by_onednn(cpu):
            assert set_to[-1] == "bf16"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert set_to == ["ieee", "bf16", "ieee"]
    with onednn.by_onednn(torch.device("meta")):
        assert set_to[-1] == "ieee"


def test_two_threads_at_once_leave_the_permission_as_it_was(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onednn, "worthwhile", lambda: True)
    before = torch.backends.mkldnn.matmul.fp32_precision
    inside, leave = threading.Barrier(2), threading.Event()

    def first() -> None:
        with onednn.by_onednn(torch.device("cpu")):
            inside.wait(10)
        leave.set()

    thread = threading.Thread(target=first)
    thread.start()
    with onednn.by_onednn(torch.device("cpu")):
        inside.wait(10)
        assert leave.wait(10)
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    thread.join()
    assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_scoring_leaves_torchs_settings_alone(tiny: AHIQ):
    before = (torch.get_float32_matmul_precision(), torch.get_num_threads(), torch.is_grad_enabled(), torch.get_rng_state())
    tiny.score(*crops(48, 2))
    after = (torch.get_float32_matmul_precision(), torch.get_num_threads(), torch.is_grad_enabled(), torch.get_rng_state())
    assert before[:3] == after[:3]
    assert torch.equal(before[3], after[3])


def test_bf16_moves_scores_a_little_trains_and_returns_float32():
    full, half = filled(TINY), filled(TINY, precision="bf16")
    reference, distorted = crops(48, 4)
    exact, rough = full.score(reference, distorted), half.score(reference, distorted)
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).abs().max() < 0.05
    half(reference, distorted).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in half.parameters() if p.grad is not None)


# Training


@pytest.mark.slow
def test_gradients_are_those_of_the_literal_network():
    literal, model = plain(SMALL["patch 8"]), filled(SMALL["patch 8"])
    model.vit.requires_grad_(False)
    model.resnet50.requires_grad_(False)
    reference, distorted = crops(48, 2)
    for net in (literal, model):
        F.mse_loss(net(reference, distorted), torch.tensor([0.2, 0.9])).backward()
    theirs = dict(literal.named_parameters())
    for name, parameter in model.named_parameters():
        if name.startswith(("vit.", "resnet50.")):
            assert parameter.grad is None
        else:
            expected = theirs[name].grad
            assert (parameter.grad - expected).abs().max() < 1e-4 * expected.abs().max(), name


def test_frozen_parts_stay_in_eval_mode_and_out_of_the_graph():
    model = AHIQ(**TINY)
    model.vit.requires_grad_(False)
    model.resnet50.requires_grad_(False)
    model.train()
    modes = {part: getattr(model, part).training for part in ("vit", "resnet50", "deform_net", "regressor")}
    assert modes == {"vit": False, "resnet50": False, "deform_net": True, "regressor": True}
    tokens, maps = model._features(crops(48, 1)[0])
    assert not tokens.requires_grad
    assert not maps.requires_grad
    model.vit.requires_grad_(True)
    assert model.train().vit.training
    assert not model.eval().training


@pytest.mark.slow
def test_everything_learns_from_a_random_start():
    torch.manual_seed(0)
    model = AHIQ(**TINY, offsets="zero").train()
    assert not model.deform_net.conv_offset.weight.any()
    reference, distorted = crops(48, 4)
    target = torch.tensor([1.0, 0.7, 0.3, 0.0])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = []
    for _ in range(30):
        loss = F.mse_loss(model(reference, distorted), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


# Weights


def test_a_released_checkpoint_is_written_and_read_without_loss(small: AHIQ):
    other = AHIQ(**SMALL["patch 8"])
    trunk = other.vit.pos_embed.detach().clone()
    other.load_state(released(small))
    for name, tensor in small.state_dict().items():
        if name.startswith(("deform_net.", "regressor.")):
            assert torch.equal(other.state_dict()[name], tensor)
    assert torch.equal(other.vit.pos_embed, trunk)


def test_a_released_checkpoint_has_the_released_keys():
    state = AHIQ(**SMALL["patch 8"]).export_released()
    layers = {
        "deform_net_model_state_dict": ["conv_offset", "deform", "conv1.0", "conv1.2"],
        "regressor_model_state_dict": [
            "down_channel", "feat_smoothing.0", "feat_smoothing.2", "conv1.0", "conv.0", "conv_attent.0",
        ],
    }  # fmt: skip
    expected = {part: sorted(f"{n}.{k}" for n in names for k in ("weight", "bias")) for part, names in layers.items()}
    assert {part: sorted(entries) for part, entries in state.items()} == expected


def test_an_optimizers_state_next_to_the_heads_is_passed_over(small: AHIQ):
    extra = {"optimizer_state_dict.state.0.exp_avg": torch.zeros(3), "scheduler_state_dict.x": torch.zeros(1)}
    AHIQ(**SMALL["patch 8"]).load_part("heads", released(small) | extra)


def test_timms_unused_blocks_stages_and_counters_are_ignored():
    literal = Plain(SMALL["patch 8"])
    model = AHIQ(**SMALL["patch 8"])
    model.load_part("vit", literal.vit.state_dict())
    model.load_part("resnet50", literal.resnet50.state_dict())
    assert torch.equal(model.vit.blocks[4].mlp.fc2.weight, literal.vit.blocks[4].mlp.fc2.weight)
    assert torch.equal(model.resnet50.layer1[2].conv3.weight, literal.resnet50.layer1[2].conv3.weight)


def test_every_entry_that_does_not_fit_is_named_and_nothing_is_changed(small: AHIQ):
    state = rule_state(small)
    before = {k: v.clone() for k, v in small.state_dict().items()}
    del state["regressor.conv.0.bias"], state["vit.blocks.3.norm1.weight"]
    state["deform_net.deform.weight"] = torch.zeros(768, 768, 1, 1)
    state["resnet50.bn1.running_var"] = torch.zeros(64, dtype=torch.int64)
    state["regressor.conv9.weight"] = torch.zeros(1)
    with pytest.raises(UsageError) as caught:
        small.load_state({k: v + 1 if v.is_floating_point() else v for k, v in state.items()})
    for words in (
        "missing: vit.blocks.3.norm1.weight, regressor.conv.0.bias",
        "deform_net.deform.weight is 768x768x1x1, should be 768x768x3x3",
        "resnet50.bn1.running_var is 64 of int64",
        "not of this network: regressor.conv9.weight",
    ):
        assert words in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in small.state_dict().items())


def test_weights_for_another_patch_size_are_recognised():
    model = AHIQ(**SMALL["patch 8"])
    other = AHIQ(**(SMALL["patch 8"] | {"patch_size": 16}))
    with pytest.raises(UsageError, match="weights for patches of 16, this model's are of 8"):
        model.load_part("vit", other.vit.state_dict())
    with pytest.raises(UsageError, match="weights for patches of 16, this model's are of 8"):
        model.load_state(rule_state(other))


@pytest.mark.parametrize("state", [{}, {"conv1.weight": torch.zeros(3)}, {"lin0.model.1.weight": torch.zeros(1, 64, 1, 1)}])
def test_another_architectures_checkpoint_is_refused(tiny: AHIQ, state: dict[str, Tensor]):
    with pytest.raises(UsageError, match=r"missing: vit\.cls_token"):
        tiny.load_state(state)


def test_half_a_released_checkpoint_is_refused(small: AHIQ):
    half = {k: v for k, v in released(small).items() if k.startswith("regressor")}
    with pytest.raises(UsageError, match=r"missing: deform_net\.conv_offset\.weight"):
        AHIQ(**SMALL["patch 8"]).load_state(half)


def test_an_unknown_part_names_the_nearest(tiny: AHIQ):
    with pytest.raises(UsageError, match="no part 'resnet'; did you mean 'resnet50'"):
        tiny.load_part("resnet", {})


# Bad input


@pytest.mark.parametrize(
    ("reference", "distorted", "words"),
    [
        (torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64), "48x48 crops, got 64x64"),
        (torch.zeros(1, 3, 48, 48), torch.zeros(2, 3, 48, 48), "differ in shape"),
        (torch.zeros(1, 3, 48, 48), torch.full((1, 3, 48, 48), 200.0), "expected \\[0, 1\\]"),
        (torch.zeros(1, 1, 48, 48), torch.zeros(1, 1, 48, 48), "expected \\(N, 3, H, W\\)"),
    ],
)
def test_what_is_no_pair_of_crops_is_refused(tiny: AHIQ, reference: Tensor, distorted: Tensor, words: str):
    with pytest.raises(UsageError, match=words):
        tiny.score(reference, distorted)


def test_embedding_and_training_refuse_other_sizes_and_bytes(tiny: AHIQ):
    good = crops(48, 1)[0]
    for call in (tiny.embed, lambda x: tiny(good, x), lambda x: tiny(x, good)):
        with pytest.raises(UsageError, match="expected float32"):
            call(torch.zeros(1, 3, 40, 48))
        with pytest.raises(UsageError, match="expected float32"):
            call((good * 255).byte())


def test_every_impossible_setting_is_named():
    with pytest.raises(UsageError) as caught:
        AHIQ(patch_size=14, vit_width=770, cnn_block="botleneck", precision="fp16", head_widths=(1, 2), vit_depth=0)
    for words in ("patch_size = 14", "vit_width = 770", "did you mean 'bottleneck'", "'fp16'", "4 widths", "vit_depth = 0"):
        assert words in str(caught.value)
    with pytest.raises(UsageError, match="crop_size = 220 should be a multiple of patch_size = 8"):
        AHIQ(crop_size=220)


def test_nothing_is_scored_with_untrained_heads():
    with pytest.raises(UsageError, match="give its weights with --weights"), unlabelled.scorer("ahiq-tiny", []):
        pass


def test_the_released_horizontal_flip_turns_rows_and_both_ways_are_offered():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    for flip, expected in {
        "vertical": pixels[::-1],
        "horizontal": pixels[:, ::-1],
        "both": pixels[::-1, ::-1],
        "none": pixels,
    }.items():
        recipe = apply_set(card("ahiq"), {"recipe.flip": flip}).recipe
        assert (Batches._flip(SimpleNamespace(recipe=recipe), pixels, [True, True]) == expected).all()


# Cards


def card(name: str) -> ModelCard:
    return find_model(name)


@pytest.mark.parametrize(("name", "patch"), [("ahiq", 8), ("ahiq-p16", 16), ("ahiq-paper", 8)])
def test_the_backbones_are_pinned_to_the_tags_of_the_authors_timm(name: str, patch: int):
    tags = {w.name: w.tag for w in card(name).weights if w.use == "always"}
    assert tags == {"vit": f"vit_base_patch{patch}_224.augreg_in21k_ft_in1k", "resnet50": "resnet50.a1_in1k"}
    assert all(f"hf://timm/{w.tag}/model.safetensors" in w.sources for w in card(name).weights if w.use == "always")
    assert card(name).model["patch_size"] == patch


def test_the_released_heads_are_asked_for_by_name_and_were_trained_on_pipal():
    heads = [w for w in card("ahiq").weights if w.name == "heads"]
    assert [(w.use, w.trained_on) for w in heads] == [("released", ("pipal",))]


def test_the_recipe_is_the_released_one_and_the_papers_is_a_card_of_its_own():
    for name in ("ahiq", "ahiq-p16"):
        recipe = card(name).recipe
        assert recipe is not None
        assert (recipe.optimizer, recipe.rate, recipe.weight_decay, recipe.loss, recipe.labels) == (
            "adam", 1e-4, 1e-5, "mse", "minmax",
        )  # fmt: skip
        assert (recipe.epochs, recipe.batch_references, recipe.batch_distorted) == (200, 4, 1)
        assert (recipe.schedule, recipe.period, recipe.minimum_rate, recipe.warmup) == ("cosine-restarts", 50, 0.0, 0.0)
        assert (recipe.flip, recipe.flip_probability) == ("vertical", 0.5)
        assert recipe.frozen == ("vit", "resnet50")
        assert (recipe.validation_crops, recipe.selection) == ("five", "srcc-or-plcc")
        assert card(name).protocol == Cropping("random20", 224)
    ours, papers = card("ahiq").recipe, card("ahiq-paper").recipe
    assert ours is not None
    assert papers is not None
    changed = {k for k, v in vars(ours).items() if vars(papers)[k] != v}
    assert changed == {"optimizer", "batch_references"}


def test_the_control_of_the_tiny_card_differs_in_what_is_trained_alone():
    tiny, control = card("ahiq-tiny"), card("ahiq-tiny-heads")
    assert control.recipe is not None
    assert tiny.recipe is not None
    assert {k for k, v in vars(tiny.recipe).items() if vars(control.recipe)[k] != v} == {"frozen"}
    assert control.recipe.frozen == ("vit", "resnet50")
    assert {k for k, v in tiny.model.items() if control.model[k] != v} == {"backbone"}
    assert tiny.class_ == card("ahiq").class_
    assert 4.0e5 < sum(p.numel() for p in AHIQ(**tiny.model).parameters()) < 4.1e5


def test_ports_numbers_that_moved_are_both_shown_and_remembered_ones_are_marked():
    published = card("ahiq").published
    ports = [p.srcc for p in published if "pyiqa" in p.source and p.dataset == "tid2013"]
    assert ports == [0.7075, 0.6479]
    assert {p.status for p in published if "memory" in p.source} == {"unverified"}


def test_a_seed_gives_the_network_that_it_always_gave():
    parameters = dict(models.build(find_model("ahiq-tiny"), None, 0).named_parameters())
    first = {
        "vit.blocks.0.attn.qkv.weight": 0.0263231,
        "deform_net.conv1.0.weight": 0.0435966,
        "deform_net.conv1.2.weight": 0.0305544,
        "regressor.feat_smoothing.0.weight": 0.0116741,
        "regressor.conv_attent.0.weight": 0.0335028,
    }
    assert {name: float(parameters[name].detach().flatten()[0]) for name in first} == pytest.approx(first, abs=1e-6)
