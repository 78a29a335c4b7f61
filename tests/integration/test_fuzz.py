"""A share of the soak in `tools/soak/fuzz.py`: bad input of every kind ends in one HarnessError, never in anything else."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from harness.datasets.readers.matfile import read_vector

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "soak"))
import fuzz

CASES = {"layouts of dataset cards": 40, "label files, whole readers": 40, "submissions": 60}


@pytest.mark.parametrize("target", fuzz.TARGETS, ids=lambda target: target.name)
def test_bad_input_is_refused_with_a_message_and_never_with_a_traceback(target: fuzz.Target):
    outcome = fuzz.fuzz(target, CASES.get(target.name, 150), 1)
    assert outcome.failures == []
    assert outcome.refused > 0


NUMBERS = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=9)
TEXTS = st.lists(st.text("abcé. _0", min_size=0, max_size=9), min_size=1, max_size=5)


@settings(max_examples=60)
@given(NUMBERS, TEXTS, st.booleans(), st.sampled_from(["f8", "f4", "i2", "u1", "i8"]))
def test_matlab_vectors_are_read_as_scipy_wrote_them(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[float], texts: list[str], compressed: bool, kind: str
):
    path = tmp_path_factory.mktemp("mat") / "x.mat"
    column = np.array(numbers) if kind[0] == "f" else np.array([int(n) % 120 for n in numbers])
    vector = column.astype(kind)
    savemat(path, {"other": 1.0, "v": vector[None], "names": np.array([texts], dtype=object)}, do_compression=compressed)
    data = path.read_bytes()
    assert read_vector(data, "v") == [float(v) for v in vector]
    assert read_vector(data, "names") == texts
    with pytest.raises(ValueError, match="no variable"):
        read_vector(data, "w")


def test_a_damaged_matlab_file_that_ends_scipys_process_is_refused(tmp_path: Path):
    path = tmp_path / "x.mat"
    savemat(path, {"v": np.arange(40.0)[None], "names": np.array([["a.bmp", "b.bmp"]], dtype=object)})
    good = path.read_bytes()
    for place in range(128, len(good)):
        for value in (0, 1, 14, 0x7F, 0xFF):
            data = good[:place] + bytes([value]) + good[place + 1 :]
            for name in ("v", "names"):
                try:
                    read_vector(data, name)
                except ValueError:
                    continue
