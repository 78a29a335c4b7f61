"""Score lines of any format: written scores are read back; every defect is fixed or named."""

from __future__ import annotations

import math

import pytest
from challenge import CARD, FACTS, NAMES
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness.cards.challenge import Lines
from harness.challenges import readme, score_lines
from harness.challenges.image_names import Names
from harness.challenges.text import ascii_line, decoded

FEW = NAMES[:12]
LISTED = Names(CARD, "test", FEW)
finite = st.floats(allow_nan=False, allow_infinity=False)
formats = st.builds(
    Lines,
    separator=st.sampled_from([",", ";", " ", "\t"]),
    decimals=st.integers(0, 9),
    extension=st.booleans(),
    sorted=st.booleans(),
)
scores = st.lists(finite, min_size=len(FEW), max_size=len(FEW)).map(lambda values: dict(zip(FEW, values, strict=True)))


def read(text: str, form: Lines) -> score_lines.Reading:
    return score_lines.read(decoded(text.encode("utf-8", "surrogatepass"), form.file)[0], form, LISTED)


def errors_of(reading: score_lines.Reading) -> set[str]:
    return {f.kind for f in reading.findings if f.severity == "error"} - {"count"}


@pytest.mark.slow
@given(scores, formats)
def test_whatever_is_written_in_any_format_is_read_back_without_a_finding(given_scores: dict[str, float], form: Lines):
    reading = read(score_lines.written(given_scores, form), form)
    assert not errors_of(reading)
    assert not {f.kind for f in reading.findings} - {"count"}
    assert list(reading.scores) == (sorted(FEW) if form.sorted else list(FEW))


@given(scores, formats)
def test_writing_never_turns_the_order_of_two_images_round(given_scores: dict[str, float], form: Lines):
    back = read(score_lines.written(given_scores, form), form).scores
    order = sorted(FEW, key=lambda name: given_scores[name])
    values = [back[name] for name in order]
    assert values == sorted(values)


@given(st.sets(st.integers(-(10**6), 10**6), min_size=12, max_size=12), st.integers(-12, 2), st.integers(3, 9))
def test_different_scores_stay_different_however_small_their_scale(whole: set[int], power: int, decimals: int):
    form = Lines(decimals=decimals)
    given_scores = {name: value * 10.0**power for name, value in zip(FEW, sorted(whole), strict=True)}
    back = read(score_lines.written(given_scores, form), form).scores
    assert [back[name] for name in FEW] == sorted(back.values())
    assert len(set(back.values())) == 12


@given(scores)
def test_ordinary_scores_are_written_as_they_are(given_scores: dict[str, float]):
    ordinary = {name: round(math.fmod(score, 1e6), 6) + 0.0 for name, score in given_scores.items()}
    assert read(score_lines.written(ordinary, Lines()), Lines()).scores == ordinary


def test_a_zero_has_no_sign_and_the_sample_of_the_challenge_is_reproduced():
    assert score_lines.written({FEW[0]: -1e-12, FEW[1]: 5.0}, Lines(decimals=2)).startswith("A0000_10_00.bmp,-0.00") is False
    assert score_lines.written({"A0000_10_00.bmp": 1260.823608}, CARD.lines) == "A0000_10_00.bmp,1260.823608\n"


MENDED = {
    "as it is": lambda name, score: f"{name},{score}",
    "space": lambda name, score: f"{name} , {score} ",
    "semicolon": lambda name, score: f"{name};{score}",
    "tab": lambda name, score: f"{name}\t{score}",
    "blanks": lambda name, score: f"{name}   {score}",
    "quotes": lambda name, score: f'"{name}","{score}"',
    "single quotes": lambda name, score: f"'{name}','{score}'",
    "index": lambda name, score: f"7,{name},{score}",
    "case": lambda name, score: f"{name.swapcase()},{score}",
    "stem": lambda name, score: f"{name[:-4]},{score}",
    "png": lambda name, score: f"{name[:-4]}.png,{score}",
    "folder": lambda name, score: f"Dis/{name},{score}",
    "backslash": lambda name, score: f".\\x\\{name},{score}",
    "comma": lambda name, score: f"{name};{score.replace('.', ',')}",
    "twice": lambda name, score: f"{name},{score}\n{name},{score}",
    "carriage return": lambda name, score: f"{name},{score}\r",
    "blank line": lambda name, score: f"\n{name},{score}",
}
LOST = {
    "nan": lambda name, score: f"{name},NaN",
    "inf": lambda name, score: f"{name},-inf",
    "text": lambda name, score: f"{name},n/a",
    "nothing": lambda name, score: f"{name},",
    "dropped": lambda name, score: "",
    "another name": lambda name, score: f"B{name},{score}",
    "columns": lambda name, score: f"{name},{score},{score}",
    "other score": lambda name, score: f"{name},{score}\n{name},1{score}",
}


@pytest.mark.slow
@settings(max_examples=150)
@given(st.permutations(FEW), st.lists(st.sampled_from(sorted(MENDED)), min_size=12, max_size=12), st.data())
def test_any_mixture_of_mechanical_defects_is_fixed_to_the_very_scores(order, ways, data):
    """Any mixture of mechanical defects in any order is fixed to the very scores."""
    drawn = data.draw(st.lists(st.integers(0, 10**8), min_size=12, max_size=12, unique=True))
    truth = {name: value / 1e6 for name, value in zip(FEW, drawn, strict=True)}
    text = "".join(f"{MENDED[way](name, f'{truth[name]:.6f}')}\n" for name, way in zip(order, ways, strict=True))
    first = read(text, Lines())
    if set(ways) != {"as it is"}:
        assert first.findings or set(ways) <= {"as it is", "carriage return"}
    assert first.fixed(Lines()) == score_lines.written(truth, Lines())


@pytest.mark.slow
@settings(max_examples=100)
@given(st.dictionaries(st.integers(0, 11), st.sampled_from(sorted(LOST)), min_size=1))
def test_what_no_rule_mends_is_an_error_before_and_after_mending(lost: dict[int, str]):
    rows = [LOST[lost[i]](name, "1.500000") if i in lost else f"{name},{i}.250000" for i, name in enumerate(FEW)]
    first = read("".join(f"{row}\n" for row in rows), Lines())
    again = read(first.fixed(Lines()), Lines())
    fatal = {"not-finite", "no-number", "missing", "unknown-name", "columns", "contradiction"}
    assert errors_of(first) & fatal
    assert errors_of(again) & fatal
    assert again.fixed(Lines()) == first.fixed(Lines())


@given(st.binary(max_size=400), formats)
def test_any_bytes_are_read_without_an_exception_and_findings_name_a_line(data: bytes, form: Lines):
    """Any bytes at all are read without an exception and findings point into the file."""
    text, found = decoded(data, "output.txt")
    reading = score_lines.read(text, form, LISTED)
    for finding in [*found, *reading.findings]:
        assert finding.line is not None
        assert 1 <= finding.line <= len(text) + 1
        assert str(finding)
    score_lines.read(decoded(reading.fixed(form).encode("utf-8", "replace"), "output.txt")[0], form, LISTED)


@given(st.text(max_size=300))
def test_any_description_becomes_one_line_of_ascii_and_is_read_back(description: str):
    assume(ascii_line(description))
    facts = readme.Facts(0.5, True, False, description)
    text = readme.written(facts, CARD.readme)
    assert text.isascii()
    assert text.count("\n") == 5
    reading = readme.read(decoded(text.encode(), "readme.txt")[0], CARD.readme, "readme.txt")
    assert not reading.findings
    assert reading.values["Other description"] == ascii_line(description)[:1000].strip()


@given(st.floats(1e-9, 1e6))
def test_a_runtime_is_written_with_three_digits_and_without_an_exponent(runtime: float):
    text = readme.seconds(runtime)
    assert "e" not in text.lower()
    assert abs(float(text) - runtime) <= 0.0051 * runtime


@given(st.binary(max_size=300))
def test_any_bytes_at_all_are_read_as_a_readme_without_an_exception(data: bytes):
    text, _ = decoded(data, "readme.txt")
    reading = readme.read(text, CARD.readme, "readme.txt")
    assert any(f.kind == "readme-missing" for f in reading.findings)


def test_the_readme_of_the_challenge_is_reproduced():
    assert readme.written(FACTS, CARD.readme) == (
        "runtime per image [s] : 0.12\n"
        "CPU[1] / GPU[0] : 0\n"
        "Extra Data [1] / No Extra Data [0] : 1\n"
        "Other description : a method: with a colon\n"
        "Full-Reference [1] / Non-Reference [0] : 1\n"
    )


def test_a_name_known_by_its_pattern_alone_is_spelt_as_the_card_says():
    names = Names(CARD, "validation", None)
    for text in ("A0123_10_07.bmp", "a0123_10_07", "Dis\\A0123_10_07.PNG", "x/a0123_10_07.BMP"):
        assert names.intended(text) == "A0123_10_07.bmp"
    for text in ("A0123_10_7.bmp", "A0123_11_07.bmp", "A0123.bmp", "xA0123_10_07.bmp", ""):
        assert names.intended(text) is None
