"""Weight files: accepted and refused ones, and that no code in them is executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.models.weights.checkpoint import names, read_metadata, read_state, save_state
from harness.runtime.errors import UsageError

FORMATS = ("safetensors", "zip", "legacy")


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "vit.blocks.0.weight": torch.randn(4, 3, generator=generator),
        "vit.blocks.0.bias": torch.randn(4, generator=generator).half(),
        "resnet50.bn1.num_batches_tracked": torch.tensor(7),
    }


def write(folder: Path, form: str, state: Any = None, name: str = "w") -> Path:
    state = tensors() if state is None else state
    if form == "safetensors":
        path = folder / f"{name}.safetensors"
        safetensors.torch.save_file(state, path)
    else:
        path = folder / f"{name}-{form}.pth"
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    return path


def equal(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read_state(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_back_the_same_tensors(tmp_path: Path, form: str) -> None:
    assert equal(read_state(write(tmp_path, form)), tensors())


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_names_are_read_without_torch(tmp_path: Path, form: str) -> None:
    path = write(tmp_path, form)
    assert set(tensors()) <= set(names(path))
    code = (
        "import sys; from harness.models.weights.checkpoint import names, read_metadata\n"
        f"assert 'vit.blocks.0.weight' in names({str(path)!r}); read_metadata({str(path)!r})\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def released(linear: torch.nn.Linear) -> dict[str, Any]:
    """The released AHIQ checkpoint's layout, numpy loss included."""
    return {
        "epoch": 33,
        "regressor_model_state_dict": linear.state_dict(),
        "deform_net_model_state_dict": OrderedDict(conv=torch.ones(2)),
        "optimizer_state_dict": {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"betas": (0.9, 0.999), "params": [0]}]},
        "scheduler_state_dict": {"last_epoch": 3, "rates": torch.ones(1)},
        "loss": np.mean([0.5, 1.0]),
        "best": np.float32(1),
    }


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_training_checkpoint_gives_its_weights_alone_joined_by_dots(tmp_path: Path, form: str) -> None:
    linear = torch.nn.Linear(3, 2)
    state = read_state(write(tmp_path, form, released(linear)))
    assert list(state) == [
        "regressor_model_state_dict.weight",
        "regressor_model_state_dict.bias",
        "deform_net_model_state_dict.conv",
    ]
    assert torch.equal(state["regressor_model_state_dict.weight"], linear.weight)
    assert not any(t.requires_grad for t in state.values())


def test_training_entries_are_left_out_of_safetensors_too(tmp_path: Path) -> None:
    path = write(tmp_path, "safetensors", {"a": torch.ones(1), "optimizer.0.step": torch.ones(1)})
    assert list(read_state(path)) == ["a"]


class _Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


def evil_files(folder: Path, mark: Path) -> dict[str, Path]:
    bare = folder / "bare.pth"
    bare.write_bytes(pickle.dumps({"a": _Evil(mark)}))
    early = io.BytesIO()
    torch.save({"a": torch.ones(1)}, early, _use_new_zipfile_serialization=False)
    first = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
    hidden = folder / "hidden.pth"  # the code sits where torch keeps its system's facts
    hidden.write_bytes(first + pickle.dumps(1001, protocol=2) + pickle.dumps(_Evil(mark), protocol=2) + early.getvalue())
    return {
        "bare": bare,
        "zip": write(folder, "zip", {"a": torch.ones(1), "b": _Evil(mark)}, "evil"),
        "legacy": write(folder, "legacy", {"a": torch.ones(1), "b": _Evil(mark)}, "evil"),
        "optimizer": write(folder, "zip", {"a": torch.ones(1), "optimizer": _Evil(mark)}, "optimizer"),
        "hidden": hidden,
    }


def test_a_pickle_that_runs_code_is_refused_and_never_runs(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for path in evil_files(tmp_path, mark).values():
        assert "could run code" in refusal(path)
        assert "torch.load(FILE, weights_only=False)" in refusal(path)
        assert not mark.exists()
    # The files are what they claim to be: whoever trusts the first one is hit.
    pickle.loads((tmp_path / "bare.pth").read_bytes())
    assert mark.exists()


def test_a_whole_model_is_refused_with_the_class_that_it_needs(tmp_path: Path) -> None:
    assert "torch.nn.modules.linear.Linear" in refusal(write(tmp_path, "zip", torch.nn.Linear(2, 2)))


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("m/constants.pkl", pickle.dumps((), protocol=2))
        archive.writestr("m/code/__torch__.py", "def forward(self): pass")
    assert "TorchScript" in refusal(path)


def test_numpy_numbers_are_dropped_without_being_built(tmp_path: Path) -> None:
    # A dtype of two gigabytes in a few bytes: building it would fill the memory.
    class Wide:
        def __reduce__(self) -> tuple[Any, ...]:
            return (np._core.multiarray.scalar, (np.dtype("V2000000000"),))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert list(read_state(write(tmp_path, "zip", {"a": torch.ones(1), "x": [Wide()] * 3}))) == ["a"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


@pytest.mark.parametrize("form", FORMATS)
def test_nan_and_infinite_weights_are_named(tmp_path: Path, form: str) -> None:
    bad = {"fine": torch.ones(2), "a": torch.tensor([1.0, float("nan")]), "b": torch.tensor([float("-inf")]).half()}
    assert "NaN or infinite weights in a, b" in refusal(write(tmp_path, form, bad))


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ({"a": torch.eye(3).to_sparse()}, "sparse"),
        ({"a": torch.empty(10**9, device="meta")}, "without data"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "complex64"),
        ({"a": torch.ones(2).to(torch.float8_e4m3fn)}, "float8_e4m3fn"),
        ({"c.weight": torch.ones(2, dtype=torch.int8)}, "c.weight (int8"),
        ({"a": torch.zeros(1).expand(10**11)}, "claims more numbers"),
        (torch.ones(3), "single Tensor"),
        ([torch.ones(3)], "single list"),
        ({}, "holds no tensors"),
        ({"epoch": 3}, "holds no tensors"),
        ({"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}, "two entries"),
        ({"1": torch.ones(1), 1: torch.ones(1)}, "two entries"),
    ],
)
def test_what_is_no_plain_state_dict_is_refused(tmp_path: Path, state: Any, word: str) -> None:
    assert word in refusal(write(tmp_path, "zip", state))


def test_dictionaries_within_themselves_are_refused(tmp_path: Path) -> None:
    looped: dict[str, Any] = {}
    looped["again"] = looped
    assert "nested" in refusal(write(tmp_path, "zip", looped))
    wide: dict[str, Any] = {"t": torch.ones(1)}
    for _ in range(6):  # 30 to the sixth power of paths in a few hundred bytes
        wide = {str(i): wide for i in range(30)}
    assert "more than 100000 entries" in refusal(write(tmp_path, "zip", wide))


def test_a_storage_that_claims_more_than_the_file_is_not_looked_at(tmp_path: Path) -> None:
    # In the older format a storage's size is a number in the pickle, and its bytes need not be there.
    honest = io.BytesIO()
    torch.save({"a": torch.ones(700_001)}, honest, _use_new_zipfile_serialization=False)
    data = honest.getvalue()
    was, claimed = struct.pack("<i", 700_001), struct.pack("<i", 2_000_000_000)
    assert data.count(was) >= 2
    path = tmp_path / "claims.pth"
    end = data.rindex(b"\x80\x02]")  # the list of storages, made empty: none is then read
    path.write_bytes(data[:end].replace(was, claimed) + b"\x80\x02].")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "claims more" in refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_missing_empty_and_strange_files_are_refused(tmp_path: Path) -> None:
    assert "no such weight file" in refusal(tmp_path / "absent.pth")
    assert "is a folder" in refusal(tmp_path)
    for name, content, word in [
        ("empty.pth", b"", "is empty"),
        ("garbage.pth", b"hello, world" * 9, "neither a safetensors nor a torch file"),
        ("page.pth", b"<!DOCTYPE html><html>quota", "web page"),
        ("lfs.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
        ("cut.safetensors", b"\x10\x00", "damaged"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        assert word in refusal(path)
    (tmp_path / "nul\n.pth").write_bytes(b"")
    assert "is empty" in refusal(tmp_path / "nul\n.pth")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    assert "not a regular file" in refusal(tmp_path / "pipe.pth")


@pytest.mark.parametrize(
    ("length", "text", "word"),
    [
        (1 << 40, b"{}", "header needs 1099511627776 bytes"),
        (2, b"{]", "not JSON"),
        (200_000, b"[" * 200_000, "not JSON"),
        (9, b'{"a": 42}', "does not describe tensors"),
        (22, b'{"__metadata__": [1] }', "does not describe tensors"),
        (None, b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', "tensors need 16 bytes, it has 0"),
        (None, b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,1e999]}}', "does not describe tensors"),
        (None, b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,0]}}', "damaged"),
        (None, b'{"a":{"dtype":"X","shape":[],"data_offsets":[0,0]}}', "damaged"),
        (None, b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}', "damaged"),
    ],
)
def test_made_up_safetensors_headers_are_refused(tmp_path: Path, length: int | None, text: bytes, word: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text)
    assert word in refusal(path)


def test_a_huge_safetensors_header_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with open(path, "wb") as stream:  # sparse: takes no room on disk
        stream.write(struct.pack("<Q", 1 << 30) + b"{")
        stream.truncate((1 << 30) + 8)
    assert "header of 1073741824 bytes is refused" in refusal(path)


def test_a_zip_that_unpacks_to_more_than_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("a/data/0", bytes(50_000_000))
    assert "unpacks to more" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no weights here")
    assert "not one written by torch.save" in refusal(path)


@pytest.mark.slow
def test_a_table_of_contents_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + b"]" * 1_100_000 + b".")
    assert "over 1000000 steps" in refusal(path)


def test_saved_tensors_come_back_with_their_metadata(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {
        "strided": base.t(),
        "shared": base,
        "window": base[1:, 1:3],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "spread": torch.ones(1).expand(5),
        "none": torch.empty(0, 3),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "flags": torch.tensor([True, False]),
        "bf16": torch.tensor([1.5, -2], dtype=torch.bfloat16),
        "double": torch.tensor([np.pi], dtype=torch.float64),
        "λ.weight": torch.ones(1),
    }
    path = tmp_path / "größe" / "mit leer.safetensors"
    save_state(path, state, {"trained_on": "pipal", "ключ": "значение"})
    for back in (read_state(path), safetensors.torch.load_file(path)):
        assert set(back) == set(state)
        assert all(torch.equal(back[k], state[k].detach()) and back[k].dtype == state[k].dtype for k in state)
    assert read_metadata(path) == {"trained_on": "pipal", "ключ": "значение"}
    with safetensors.safe_open(path, framework="pt") as stream:
        assert stream.metadata() == read_metadata(path)


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    state, notes = tensors(), {"b": "2", "a": "1", "c": "3"}
    save_state(tmp_path / "1", state, notes)
    save_state(tmp_path / "2", dict(reversed(state.items())), dict(reversed(notes.items())))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_a_torch_file_has_no_metadata_and_a_plain_safetensors_file_an_empty_one(tmp_path: Path) -> None:
    assert read_metadata(write(tmp_path, "zip")) == {} == read_metadata(write(tmp_path, "safetensors"))


def test_what_cannot_be_read_back_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_state(path, tensors())
    kept = path.read_bytes()
    for state in ({"a": torch.ones(1) + 1j}, {"a": torch.eye(2).to_sparse()}, {"__metadata__": torch.ones(1)}):
        with pytest.raises(ValueError, match="cannot be written"):
            save_state(path, state)
    with pytest.raises(ValueError, match="texts"):
        save_state(path, tensors(), {"seed": 3})  # type: ignore[dict-item]
    assert path.read_bytes() == kept
    assert os.listdir(tmp_path) == ["x.safetensors"]


# Fuzz: whatever the bytes, tensors or one UsageError


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("samples")
    checkpoint = released(torch.nn.Linear(3, 2))
    found = {form: write(folder, form).read_bytes() for form in FORMATS}
    found |= {f"released-{form}": write(folder, form, checkpoint, "r").read_bytes() for form in ("zip", "legacy")}
    return found


def try_reading(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    state: Mapping[str, torch.Tensor] = {}
    reported = ""
    try:
        state = read_state(path)
    except UsageError as error:
        reported = str(error)
    assert bool(state) != (str(path) in reported)
    assert sum(t.numel() * t.element_size() for t in state.values()) <= 10 * len(data)
    assert all(torch.isfinite(t).all() for t in state.values())


fuzz = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
KINDS = st.sampled_from(["safetensors", "zip", "legacy", "released-zip", "released-legacy"])


@fuzz
@given(kind=KINDS, share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(tmp_path: Path, samples: dict[str, bytes], kind: str, share: float) -> None:
    path = tmp_path / "cut.pth"
    path.write_bytes(samples[kind][: int(len(samples[kind]) * share)])
    refusal(path)


@fuzz
@given(kind=KINDS, changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes_give_tensors_or_one_clear_error(
    tmp_path: Path, samples: dict[str, bytes], kind: str, changes: list[tuple[float, int]]
) -> None:
    data = bytearray(samples[kind])
    for share, value in changes:
        data[int(len(data) * share)] = value
    try_reading(tmp_path / "changed.pth", bytes(data))


@fuzz
@given(
    kind=st.sampled_from(["zip", "released-zip"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=3)), min_size=1, max_size=4),
)
def test_a_changed_table_of_contents_gives_tensors_or_one_clear_error(
    tmp_path: Path, samples: dict[str, bytes], kind: str, changes: list[tuple[float, bytes]]
) -> None:
    # Written again, for the zip's own checksums would catch the change before torch sees it.
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(samples[kind])) as old, zipfile.ZipFile(changed, "w") as new:
        for member in old.namelist():
            content = old.read(member)
            for share, piece in changes if member.endswith("data.pkl") else []:
                place = int(len(content) * share)
                content = content[:place] + piece + content[place + 1 :]
            new.writestr(member, content)
    try_reading(tmp_path / "changed.pth", changed.getvalue())


@fuzz
@given(
    start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."]),
    rest=st.binary(max_size=400),
)
def test_garbage_gives_one_clear_error(tmp_path: Path, start: bytes, rest: bytes) -> None:
    path = tmp_path / "garbage.pth"
    path.write_bytes(start + rest)
    refusal(path)


VALUES = st.recursive(
    st.one_of(st.none(), st.integers(-3, 2**40), st.text(max_size=5), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=12), inner, max_size=3)),
    max_leaves=10,
)


@settings(fuzz, max_examples=50)
@given(header=VALUES, entry=VALUES, tail=st.binary(max_size=40))
def test_any_json_header_gives_tensors_or_one_clear_error(tmp_path: Path, header: Any, entry: Any, tail: bytes) -> None:
    fields = {"dtype": "F32", "shape": [len(tail) // 4], "data_offsets": [0, len(tail)]}
    for document in (header, {"a": header, "b": entry}, {"a": fields, "__metadata__": entry}, {"a": {**fields, "shape": entry}}):
        text = json.dumps(document).encode()
        try_reading(tmp_path / "x.safetensors", struct.pack("<Q", len(text)) + text + tail)
