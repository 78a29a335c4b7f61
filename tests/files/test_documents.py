"""JSON documents are read strictly, and the quick way reads what the slow way reads; hidden characters are shown as escapes."""

from __future__ import annotations

import json
import re
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.files import documents
from harness.files.documents import strict_json
from harness.runtime.text import visible, visible_document

NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats())
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)


def read(data: bytes) -> str:
    """The document with its types, or that there is none."""
    try:
        return repr(strict_json(data))
    except (ValueError, RecursionError):
        return "refused"


@settings(deadline=None, max_examples=400)
@given(value=VALUES, ascii_only=st.booleans(), at=st.integers(0, 40), put=st.sampled_from(list(' "\\{}[],:.-+eE019\t\n\x00aZ/')))
@example(value=-0.0, ascii_only=True, at=40, put="0")
@example(value=[1e308], ascii_only=True, at=6, put="9")
@example(value=[0.00012345678901234567, 1.0000000000000002e-17], ascii_only=True, at=3, put="0")
def test_the_quick_way_reads_and_refuses_what_the_slow_way_does(value: object, ascii_only: bool, at: int, put: str):
    text = json.dumps(value, ensure_ascii=ascii_only)
    for data in (text, text[:at] + put + text[at:], text[:at] + text[at + 1 :], text[:at]):
        raw = data.encode("utf-8", "surrogatepass")
        quick = read(raw)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(documents, "_LONG_NUMBER", re.compile(b""))
            assert quick == read(raw), data


@pytest.mark.parametrize("text", ["NaN", "[1e999]", "[-Infinity]", "9223372036854775808", '"\\ud800"', "[" * 100_000, "", "{}x"])
def test_what_cannot_be_written_again_is_refused(text: str):
    assert read(text.encode()) == "refused"


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', "-0", "-0.0", "1E5", "9223372036854775807", '"\\ud83d\\ude00"', " [1] "])
def test_what_can_be_is_read_as_python_reads_it(text: str):
    assert read(text.encode()) == repr(json.loads(text))


@given(st.text())
@example("a\u202eb")
@example("a\u00a0b\n\tc")
@example("\x1b[2J\u2028\ue000\U000e0001")
def test_characters_that_show_nothing_are_escaped_and_all_others_stay(text: str):
    hidden = [c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")]
    for shown, escaped in ((visible(text), lambda c: ascii(c)[1:-1]), (visible_document(text), lambda c: json.dumps(c)[1:-1])):
        assert shown == "".join(escaped(c) if c in hidden else c for c in text)
