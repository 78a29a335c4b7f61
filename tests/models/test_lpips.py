from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small import distorted, picture

import harness
from harness.models import feature_extractors
from harness.models.dists import DISTS
from harness.models.lpips import LPIPS, STLPIPS, FeatureMetric
from harness.runtime.errors import UsageError

# Values of the authors' own packages (lpips 0.1.4, DISTS-pytorch 0.1) and, for ST-LPIPS, of this one at its first match with
# the published table, for the pair and the drawn weights below.
GOLDEN = {
    "lpips-alex": 0.02781968,
    "lpips-vgg": 0.01978052,
    "lpips-alex-v0.0": 0.009987224,
    "st-lpips": 0.004747149,
    "st-lpips-vgg": 0.01753635,
    "dists": 0.02770841,
}
MAKERS = {
    "lpips-alex": lambda: LPIPS("alex"),
    "lpips-vgg": lambda: LPIPS("vgg"),
    "lpips-alex-v0.0": lambda: LPIPS("alex", "0.0"),
    "st-lpips": lambda: STLPIPS("alex"),
    "st-lpips-vgg": lambda: STLPIPS("vgg"),
    "dists": DISTS,
}


def tensor(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(255)


REFERENCE = tensor(picture(1, 40, 48), picture(2, 40, 48))
DISTORTED = tensor(distorted(picture(1, 40, 48), "noise", 3, 1), distorted(picture(2, 40, 48), "fade", 2, 2))


@pytest.fixture(scope="module", params=MAKERS)
def named(request: pytest.FixtureRequest) -> tuple[str, FeatureMetric]:
    return request.param, drawn(MAKERS[request.param]())


def drawn(model: FeatureMetric) -> FeatureMetric:
    """The model with weights of a size that keeps its activations alive, the same on every machine."""
    generator = np.random.default_rng(0)
    with torch.no_grad():
        for name, tensor_ in sorted(model.state_dict(keep_vars=True).items()):
            fan = max(1, tensor_[0].numel())
            values = generator.standard_normal(tensor_.shape, np.float32) * np.float32((2 / fan) ** 0.5)
            tensor_.copy_(torch.from_numpy(values if name.startswith("trunk") else np.abs(values)))
    return model.eval()


def authors_state(model: FeatureMetric) -> dict[str, torch.Tensor]:
    """The model's weights in the layout of the authors' whole network, counted as torchvision counts."""
    stages = (0, 2, 5, 8, 10) if isinstance(model, LPIPS) and model.net == "alex" else (0, 4, 9, 16, 23)
    state = dict(model.heads())
    for key, tensor_ in model.trunk.state_dict().items():
        number = int(key.split(".")[1])
        stage = sum(number >= first for first in stages)
        state[f"net.slice{stage}.{key.removeprefix('features.')}" if isinstance(model, LPIPS) else f"stage{stage}.{key[9:]}"] = (
            tensor_
        )
    return state


@pytest.mark.slow
def test_golden_values_guard_the_numbers(named):
    name, model = named
    assert model.score(REFERENCE, DISTORTED)[0].item() == pytest.approx(GOLDEN[name], rel=1e-4)


@pytest.mark.slow
def test_a_kept_reference_gives_the_same_distances(named):
    model = named[1]
    index = torch.tensor([1, 0, 0, 1])
    moved = torch.cat([DISTORTED, DISTORTED])
    want = model.score(REFERENCE[index], moved)
    torch.testing.assert_close(model.score_embedded(model.embed(REFERENCE), moved, index), want, atol=1e-6, rtol=1e-5)
    single = model.score_embedded(model.embed(REFERENCE[:1]), DISTORTED, torch.zeros(2, dtype=torch.long))
    torch.testing.assert_close(single, model.score(REFERENCE[[0, 0]], DISTORTED), atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_distances_do_not_depend_on_the_batch(named):
    model = named[1]
    together = model.score(REFERENCE, DISTORTED)
    alone = torch.cat([model.score(REFERENCE[i : i + 1], DISTORTED[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    assert together.dtype == torch.float32
    assert together.shape == (2,)


@pytest.mark.slow
def test_forward_is_differentiable_and_equals_score(named):
    model = named[1]
    moved = DISTORTED.clone().requires_grad_()
    distances = model(REFERENCE[:1], moved, torch.tensor([0, 0]))
    distances.sum().backward()
    assert moved.grad is not None
    assert torch.isfinite(moved.grad).all()
    torch.testing.assert_close(distances.detach(), model.score(REFERENCE[[0, 0]], DISTORTED), atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_identical_images_give_zero(named):
    model = named[1]
    flat = torch.full_like(REFERENCE, 0.5)
    black = torch.zeros_like(REFERENCE)
    for image in (REFERENCE, flat, black):
        assert model.score(image, image).abs().max() <= 1e-6


@pytest.mark.slow
def test_constant_and_grey_images_are_defined(named):
    model = named[1]
    grey = REFERENCE.mean(1, keepdim=True).repeat(1, 3, 1, 1)
    for image in (torch.full_like(REFERENCE, 1.0), grey):
        distances = model.score(REFERENCE, image)
        assert torch.isfinite(distances).all()
        assert (distances > 1e-4).all()


def test_the_minimum_size_is_the_smallest_that_works(named):
    model = named[1]
    side = model.minimum_size
    smallest = REFERENCE[..., :side, :side]
    assert torch.isfinite(model.score(smallest, DISTORTED[..., :side, :side])).all()
    if side > 1:
        with pytest.raises(UsageError, match=f"at least {side} pixels"):
            model.score(smallest[..., 1:], smallest[..., 1:])
        with pytest.raises(RuntimeError):
            model.trunk(smallest[..., 1:])


def test_inputs_out_of_range_or_size_are_refused(named):
    model = named[1]
    with pytest.raises(UsageError, match=r"expected \[0, 1\]"):
        model.score(REFERENCE * 2 - 1, DISTORTED)
    with pytest.raises(UsageError, match=r"expected \[0, 1\]"):
        model.score_embedded(model.embed(REFERENCE), DISTORTED * 255, torch.tensor([0, 1]))
    with pytest.raises(UsageError, match="the distorted images differ in size"):
        model.score_embedded(model.embed(REFERENCE), DISTORTED[..., :-8], torch.tensor([0, 1]))


# One file fills the whole of ST-LPIPS: it has tests of its own below.
in_parts = pytest.mark.parametrize("named", [n for n in MAKERS if not n.startswith("st-")], indirect=True, scope="module")


@in_parts
def test_heads_and_trunk_are_filled_strictly(named):
    model = named[1]
    state = model.trunk.state_dict()
    model.load_part("trunk", state | {"classifier.1.weight": torch.zeros(2)})
    first = next(iter(state))
    with pytest.raises(UsageError, match=rf"missing: {first}"):
        model.load_part("trunk", {key: value for key, value in state.items() if key != first})
    with pytest.raises(UsageError, match=r"not of this network: features\.99\.weight"):
        model.load_part("trunk", state | {"features.99.weight": torch.zeros(1)})
    heads = model.heads()
    some = next(iter(heads))
    with pytest.raises(UsageError, match=f"wrong shapes: {some}"):
        model.load_part("heads", heads | {some: torch.zeros(1, 2, 1, 1)})
    with pytest.raises(UsageError, match="no part 'head'; did you mean 'heads'"):
        model.load_part("head", heads)


@pytest.mark.slow
@in_parts
def test_authors_whole_network_fills_the_model(named):
    name, model = named
    fresh = MAKERS[name]()
    fresh.load_state({key: value.clone() for key, value in authors_state(model).items()})
    assert torch.equal(fresh.eval().score(REFERENCE, DISTORTED), model.score(REFERENCE, DISTORTED))
    with pytest.raises(UsageError, match="missing"):
        fresh.load_state(model.heads())


def torchvisions(net: str) -> torch.nn.Sequential:
    """torchvision's trunk with drawn weights, without the time and memory that its classifier takes."""
    import torchvision

    with torch.device("meta"):
        features = getattr(torchvision.models, net)().features
    features.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in features.parameters():
            parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=generator)
    return features.eval()


def with_drawn_trunks(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    for net in ("alexnet", "vgg16"):
        trunk = SimpleNamespace(features=torchvisions(net))
        monkeypatch.setattr(torchvision.models, net, lambda pretrained, trunk=trunk: trunk)


@pytest.mark.slow
@pytest.mark.parametrize("net", ["alex", "vgg"])
@pytest.mark.parametrize("release", ["0.1", "0.0"])
def test_lpips_equals_the_authors_package_with_a_random_trunk(net, release, monkeypatch):
    lpips = pytest.importorskip("lpips")
    with_drawn_trunks(monkeypatch)
    theirs = lpips.LPIPS(net=net, version=release, pnet_rand=True, verbose=False)
    ours = LPIPS(net, release)
    ours.load_state(theirs.state_dict())
    with torch.no_grad():
        want = theirs(REFERENCE, DISTORTED, normalize=True).flatten()
    assert want.min() > 1e-3
    torch.testing.assert_close(ours.score(REFERENCE, DISTORTED), want, atol=1e-6, rtol=0)


def test_dists_equals_the_authors_package_with_a_random_trunk(monkeypatch):
    package = pytest.importorskip("DISTS_pytorch")
    with_drawn_trunks(monkeypatch)
    theirs = package.DISTS(load_weights=False)
    ours = DISTS()
    ours.load_state(theirs.state_dict())
    want = theirs(REFERENCE, DISTORTED).detach()
    assert want.min() > 1e-3
    torch.testing.assert_close(ours.score(REFERENCE, DISTORTED), want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["lpips-vgg", "lpips-alex-v0.0", "lpips-vgg-v0.0", "dists", "st-lpips"])
def test_absent_weights_are_named_with_the_ways_to_provide_them(name, tmp_path, monkeypatch):
    for variable in ("HARNESS_WEIGHTS", "TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if name == "st-lpips":
        monkeypatch.setattr("harness.models.weights.locate.local_source", lambda source: tmp_path / "absent")
    with pytest.raises(UsageError, match="weight files are not on this machine") as error:
        harness.load_model(name)
    assert "harness weights get" in str(error.value)


def test_random_weights_are_drawn_from_the_seed_and_downloaded_from_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_WEIGHTS", str(tmp_path))
    models = [harness.load_model("lpips-alex", set={"model.backbone": "random"}, seed=seed) for seed in (0, 0, 1)]
    scores = [model.score(REFERENCE, DISTORTED) for model in models]
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


@pytest.mark.parametrize("wrong", [lambda: LPIPS("squeeze"), lambda: LPIPS("alex", "0.2"), lambda: STLPIPS("resnet")])
def test_unknown_settings_are_refused(wrong):
    with pytest.raises(UsageError, match="is neither"):
        wrong()


@pytest.mark.parametrize(("net", "make"), [("alexnet", feature_extractors.alexnet), ("vgg16", feature_extractors.vgg16)])
def test_trunks_are_torchvisions(net, make):
    theirs, ours = torchvisions(net), make()
    ours.features.load_state_dict(theirs.state_dict())
    last = theirs[: ours.taps[-1] + 1]
    torch.testing.assert_close(ours(REFERENCE)[-1], last(REFERENCE), atol=1e-5, rtol=1e-4)


def test_blurs_weigh_by_one_two_one_at_every_second_place():
    x = torch.rand(2, 3, 9, 8, dtype=torch.float64)
    row = np.array([1, 2, 1]) / 4
    kernel = torch.from_numpy(np.outer(row, row))
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    want = [[(padded[..., i : i + 3, j : j + 3] * kernel.numpy()).sum((2, 3)) for j in range(0, 10, 2)] for i in range(0, 11, 2)]
    np.testing.assert_allclose(feature_extractors.Blur()(x).numpy(), np.moveaxis(np.array(want), (0, 1), (2, 3)), atol=1e-12)


def stlpips_file(net: str):
    from harness.models.weights.locate import local_source

    path = local_source(f"wheel:stlpips_pytorch/weights/vST0.0/{net}_shift_tolerant.pth")
    if not path.is_file():
        pytest.skip("the package stlpips-pytorch is not installed")
    return path


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_st_lpips_is_filled_strictly_from_the_authors_file(net):
    from harness.models.weights.checkpoint import read_state

    state = read_state(stlpips_file(net))
    model = STLPIPS(net)
    model.load_part("network", state)
    # What is fixed in the paper lies in the file too, and must be what the network has built in.
    kernels = [value for key, value in state.items() if key.endswith(".filt")]
    row = torch.tensor([0.25, 0.5, 0.25])
    assert kernels
    assert all(torch.equal(k, torch.outer(row, row).expand_as(k)) for k in kernels)
    torch.testing.assert_close(state["scaling_layer.shift"], model.shift)
    torch.testing.assert_close(state["scaling_layer.scale"], model.scale)
    learned = next(key for key in reversed(state) if key.startswith("net.") and key.endswith("bias"))
    with pytest.raises(UsageError, match="missing"):
        model.load_part("network", {key: value for key, value in state.items() if key != learned})
    with pytest.raises(UsageError, match="no part 'trunk'"):
        model.load_part("trunk", state)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "official"), [("st-lpips", 0.5798), ("st-lpips-vgg", 0.6757)])
def test_st_lpips_of_a_tid2013_pair(name, official, shared):
    from harness.imaging.decode import read

    stlpips_file("alex")
    folder = shared / "data" / "tid2013-pairs"
    reference, moved = (tensor(read(folder / kind / "I03.bmp")) for kind in ("reference", "distorted"))
    # docs/fidelity.md has all five pairs.
    assert harness.load_model(name).score(reference, moved).item() == pytest.approx(official, abs=1e-3)


def test_lpips_alex_runs_from_the_weights_that_the_harness_carries(tmp_path, monkeypatch):
    for variable in ("HARNESS_WEIGHTS", "TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = harness.load_model("lpips-alex")
    assert model.score(REFERENCE, REFERENCE).abs().max() == 0
    assert (model.score(REFERENCE, DISTORTED) > 0).all()
    folder = Path(harness.__file__).parent / "models" / "data"
    assert "Soumith Chintala" in (folder / "LICENSE.torchvision").read_text(encoding="utf-8")
    assert "Richard Zhang" in (folder / "LICENSE.PerceptualSimilarity").read_text(encoding="utf-8")


@pytest.mark.slow
def test_lpips_alex_gives_the_authors_values_on_five_tid2013_pairs(shared):
    from harness.imaging.decode import read

    folder, model = shared / "data" / "tid2013-pairs", harness.load_model("lpips-alex")
    official = {"I03": 0.7237, "I04": 0.2572, "I06": 0.05079, "I08": 0.05205, "I19": 0.4253}
    for name, value in official.items():
        reference, moved = (tensor(read(folder / kind / f"{name}.bmp")) for kind in ("reference", "distorted"))
        assert model.score(reference, moved).item() == pytest.approx(value, abs=5e-5 if value > 0.1 else 5e-6)
