"""The identity of a model: its class's code, and its weights' tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from harness.cards.loading import load_cards
from harness.cards.plugins import model_class
from harness.models import adapters, find_model, identity, psnr
from harness.models.identity import class_identity, code_of, source_hash, state_hash, weights_of
from harness.models.weights import ResolvedWeights
from harness.models.weights.checkpoint import save_state


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


def test_own_classes_are_read_as_python_would_import_them():
    for card in load_cards("models").values():
        if card.program is not None:  # the program's own part: test_program
            continue
        assert code_of(card) == class_identity(model_class(card.class_, card.path), card.class_), card.name
    assert code_of(load_cards("models")["psnr"])["version"] == 1
    for name in ("frame-analytics:ssim", "piq:gmsd"):
        card = find_model(name)
        assert code_of(card) == class_identity(model_class(card.class_, card.path), card.class_), name
    facts = identity._class_facts("harness.models.adapters", "Pyiqa")
    assert facts == {"name": "Pyiqa", "version": 1, "library": adapters.Pyiqa.library}


def test_a_class_of_the_harness_is_known_by_its_name_and_version_wherever_it_lies():
    assert code_of(load_cards("models")["psnr"]) == {"class": "PSNR", "version": 1}
    assert class_identity(psnr.PSNR, "anywhere:PSNR") == {"class": "PSNR", "version": 1}


@pytest.mark.slow
def test_a_class_of_an_installed_distribution_is_known_by_its_version():
    found = class_identity(torch.nn.Linear, "torch.nn:Linear")
    assert found == {"class": "torch.nn.modules.linear:Linear", "distribution": f"torch {torch.__version__.partition('+')[0]}"}


def test_comments_and_layout_are_no_code_and_everything_else_is(tmp_path: Path):
    file = tmp_path / "m.py"
    file.write_text("import other\n\n\ndef f(x):\n    return x + 1\n")
    first = source_hash(file)
    file.write_text("# a remark\nimport other\ndef f(x):\n    # another\n\n    return x + 1   # one\n")
    assert source_hash(file) == first
    file.write_text("import other\n\n\ndef f(x):\n    return x + 2\n")
    assert source_hash(file) != first


def test_only_what_a_file_imports_from_its_folder_counts(tmp_path: Path):
    """What a file imports from its folder counts and what it does not import does not."""
    (tmp_path / "m.py").write_text("from helper import g\nimport package.part\nimport numpy\n")
    (tmp_path / "helper.py").write_text("g = 1\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "part.py").write_text("import deeper\n")
    (tmp_path / "deeper.py").write_text("h = 1\n")
    (tmp_path / "unused.py").write_text("i = 1\n")
    seen = {source_hash(tmp_path / "m.py")}
    for name in ("helper.py", "package/part.py", "deeper.py"):
        path = tmp_path / name
        path.write_text(path.read_text() + "more = 2\n")
        seen.add(source_hash(tmp_path / "m.py"))
    assert len(seen) == 4
    (tmp_path / "unused.py").write_text("i = 2\n")
    assert source_hash(tmp_path / "m.py") in seen


def test_the_same_tensors_from_two_kinds_of_file_are_one_model(tmp_path: Path):
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}
    torch.save(state, tmp_path / "net.pth")
    save_state(tmp_path / "net.safetensors", dict(reversed(state.items())), {"note": "other metadata"})
    hashes = [
        weights_of(ResolvedWeights({}, tmp_path / name, {"file": name}, (), False)) for name in ("net.pth", "net.safetensors")
    ]
    assert hashes[0] == hashes[1] == {"file": state_hash(state)}


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.zeros(4), "b": torch.ones(1)},
        {"a": torch.zeros(2, 2)},
        {"a": torch.zeros(4, dtype=torch.float64)},
        {"c": torch.zeros(4)},
        {"a": torch.tensor(np.array([0, 0, 0, 1e-30], dtype=np.float32))},
    ],
)
def test_a_name_a_shape_a_type_or_a_value_makes_other_weights(other: dict[str, torch.Tensor]):
    assert state_hash(other) != state_hash({"a": torch.zeros(4)})
