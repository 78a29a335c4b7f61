"""Text tables in any dialect: read correctly, or refused with the ambiguity."""

from __future__ import annotations

import codecs
import math
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.datasets.label_files import read_labels, read_numbers
from harness.files import text_table
from harness.files.score_table import read_scores
from harness.files.table_numbers import parse_number, parse_numbers
from harness.files.text_table import read_text_columns, split_rows, text_lines
from harness.runtime.errors import UsageError

FAST = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Dialect:
    """How a program writes a table."""

    encoding: str
    delimiter: str
    comma: bool
    end: str
    sep_line: bool
    trailing: int
    upper: bool
    blank_every: int
    quote_all: bool
    last_end: bool
    padding: str

    def number(self, value: float) -> str:
        return repr(value).replace(".", ",") if self.comma else repr(value)

    def cell(self, text: str) -> str:
        special = self.delimiter + '"\r\n' + (" \t" if self.delimiter == " " else "")
        quoted = self.quote_all or text != text.strip(" \t") or not text or any(c in text for c in special)
        return '"' + text.replace('"', '""') + '"' if quoted else text

    def table(self, header: list[str], rows: list[list[str]]) -> tuple[bytes, list[int]]:
        """The file's bytes, and the line that each row begins on."""
        lines = [f"sep={self.delimiter}"] if self.sep_line else []
        starts, number = [], len(lines) + 1
        for i, row in enumerate([[word.upper() if self.upper else word for word in header], *rows]):
            if self.blank_every and i and i % self.blank_every == 0:
                lines.append("")
                number += 1
            starts.append(number)
            text = (self.padding + self.delimiter + self.padding).join(map(self.cell, row)) + self.delimiter * self.trailing
            lines.append(text)
            number += len(text_lines(text))
        body = self.end.join(lines) + (self.end if self.last_end else "")
        return body.encode(self.encoding), starts[1:]


@st.composite
def dialects(draw: st.DrawFn) -> Dialect:
    delimiter = draw(st.sampled_from([",", ";", "\t", " "]))
    return Dialect(
        encoding=draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])),
        delimiter=delimiter,
        comma=draw(st.booleans()) and delimiter != ",",
        end=draw(st.sampled_from(["\n", "\r\n", "\r"])),
        sep_line=draw(st.booleans()) and delimiter != " ",
        trailing=draw(st.integers(0, 3)) if delimiter != " " else 0,
        upper=draw(st.booleans()),
        blank_every=draw(st.integers(0, 3)),
        quote_all=draw(st.booleans()),
        last_end=draw(st.booleans()),
        padding=draw(st.sampled_from(["", " "])),
    )


def unclear(cells: list[str]) -> bool:
    """Whether all commas of a column may stand between thousands: 1,125 and no 0,5 next to it."""
    with_comma = [cell for cell in cells if "," in cell]
    return bool(with_comma) and all(re.fullmatch(r"-?[1-9]\d{0,2},\d{3}", cell) for cell in with_comma)


characters = st.characters(codec="utf-8", exclude_characters="\0\ufeff", exclude_categories=["Cs"])
names = st.one_of(
    st.text(characters, min_size=1, max_size=12),
    st.sampled_from(
        ["NA", "nan", "null", "001", "1e5", "0,5", "1,234", "TRUE", "a b.png", "a\u2028b", "a\x0cb", "-", 'say "x"', "a\nb"]
    ),
)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32).map(float) | st.sampled_from([1.125, -12.375, 0.5])


@pytest.mark.slow
@FAST
@given(dialect=dialects(), rows=st.lists(st.tuples(names, numbers, names), min_size=1, max_size=6, unique_by=lambda row: row[0]))
def test_a_table_written_in_any_dialect_is_read_back_with_its_lines(tmp_path: Path, dialect: Dialect, rows):
    path = tmp_path / "table.csv"
    cells = [[name, dialect.number(score), note] for name, score, note in rows]
    content, lines = dialect.table(["name", "score", "note"], cells)
    path.write_bytes(content)
    found = read_text_columns(path, ("name", "score"))
    assert [list(row) for row in found.to_numpy()] == cells
    assert list(found.index) == lines
    if unclear([cell[1] for cell in cells]):
        with pytest.raises(UsageError, match=r"can be [-\d.]+ or [-\d]+: write numbers with a decimal point"):
            read_scores(path)
        return
    scores = read_scores(path)
    assert list(scores["score"]) == [score for _, score, _ in rows]
    assert list(scores["name"]) == [name for name, _, _ in rows]


@pytest.mark.slow
@FAST
@given(
    dialect=dialects(),
    rows=st.lists(
        st.tuples(st.from_regex(r"[A-Za-z]\d{2}_\d{2}\.(bmp|png)", fullmatch=True), st.floats(0, 9) | st.just(1.125)),
        min_size=1,
        max_size=6,
    ),
    score_first=st.booleans(),
)
def test_a_list_without_header_is_read_or_refused_and_never_read_wrongly(tmp_path, dialect, rows, score_first):
    """A list without header in any dialect is read or refused and never read wrongly."""
    path = tmp_path / "list.txt"
    cells = [[name, dialect.number(score)][:: -1 if score_first else 1] for name, score in rows]
    content, lines = dialect.table(cells[0], cells[1:])
    if dialect.upper:
        cells[0] = [cell.upper() for cell in cells[0]]
    path.write_bytes(content)
    wanted = {cell for row in cells for cell in row}
    try:
        found = read_labels(path, ("score", "name") if score_first else ("name", "score"), known=lambda name: name in wanted)
    except UsageError as error:
        if "two ways" not in str(error):
            raise
        return
    if unclear([row[1 - score_first] for row in cells]):
        assert not found.rows or len(found.bad) > 0
        return
    assert [row.name for row in found.rows] == [row[score_first] for row in cells]
    assert [row.score for row in found.rows] == [score for _, score in rows]
    assert [row.line for row in found.rows][1:] == lines


@FAST
@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_table_or_one_refusal_that_names_the_file(tmp_path: Path, content: bytes):
    path = tmp_path / "any.csv"
    path.write_bytes(content)
    for read in (read_text_columns, read_scores, read_numbers):
        try:
            read(path)
        except UsageError as error:
            if "any.csv" not in str(error):
                raise


@FAST
@given(text=st.text(st.sampled_from('ab",;\t \n\r'), max_size=60), delimiter=st.sampled_from([",", ";", "\t", None]))
def test_no_letter_of_a_file_is_dropped_without_a_word(text: str, delimiter: str | None):
    rows, broken = split_rows(text, delimiter)
    kept = sorted(c for row in rows for cell in row.cells for c in cell if c in "ab")
    assert broken or kept == sorted(c for c in text if c in "ab")


def scores(tmp_path: Path, text: str | bytes):
    path = tmp_path / "scores.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_scores(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "name,score\na,0,5\nb,0,7\n",
            r"lines 2, 3; line 2 has '0' and a value '5' without a column name, or the number 0\.5 with a decimal comma",
        ),
        ("name,score,\na,1,5\n", r"a value '5' without a column name, or the number 1\.5 with a decimal comma"),
        ("name;score\na;1,234\nb;5,678\n", r"1,234 can be 1\.234 or 1234.*5,678 can be 5\.678 or 5678"),
        ("name;score\na;0,5\nb;1.234\n", r"line 3 \('1\.234'\): 1\.234 can be 1\.234 or 1234"),
        ("name;score\na;1 234,5\n", "it has a thousands separator"),
        (
            "x,name;y,score\n1,a;2,3\n",
            "is ambiguous: by semicolon: 'x,name', 'y,score'; or by comma: 'x', 'name;y', 'score'",
        ),
        ("name,score\n\n\na,1\n\nb,x\n", r"line 6 \('x'\)"),
        ('name,score\n"a\nb",1\nc,x\n', r"line 4 \('x'\)"),
        ('name,score\n"a,1\nb,2\n', "line 2: a quote is not closed"),
        ("Name,SCORE,name\na,1,b\n", "repeated column names"),
        (b"name,score\ncaf\xe9.png,1\n", "not UTF-8 text .line 2, byte 14."),
        (b"name,score\na\0,1\n", "NUL bytes"),
        ("name,score\n,1\n", "empty names in lines 2"),
    ],
)
def test_what_is_unclear_is_refused_with_its_line_and_both_readings(tmp_path: Path, text: str | bytes, words: str):
    with pytest.raises(UsageError, match=words):
        scores(tmp_path, text)


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"), (b"", "utf-16-le"), (b"", "utf-16-be")],
)
def test_both_orders_of_utf_16_are_read_with_and_without_a_mark(tmp_path: Path, mark: bytes, encoding: str):
    found = scores(tmp_path, mark + "name\tscore\r\né.png\t0,5\r\nb.png\t0,7\r\n".encode(encoding))
    assert dict(zip(found["name"], found["score"], strict=True)) == {"é.png": 0.5, "b.png": 0.7}


def test_an_index_column_without_a_name_is_left_out(tmp_path: Path):
    assert list(scores(tmp_path, ",name,score\n0,a,1.5\n1,b,2.5\n").columns) == ["name", "score"]


def test_a_column_of_numbers_decides_together_what_its_commas_mean():
    assert parse_numbers(["1,234", "0,5"])[0] == [1.234, 0.5]
    assert parse_numbers(["1,234", "12345,6"])[0] == [1.234, 12345.6]
    assert parse_numbers(["1.234", "0.5"])[0] == [1.234, 0.5]
    assert parse_numbers(["\N{MINUS SIGN}0,5", "1,5e-3"])[0] == [-0.5, 0.0015]
    values, reasons = parse_numbers(["1,234", "5", "", "1_0", "inf", "٣"])
    assert [math.isnan(value) for value in values] == [True, False, True, True, True, True]
    assert reasons[1] == ""
    assert all(reasons[i] for i in (0, 2, 3, 4, 5))


# Label lists


@pytest.mark.parametrize("columns", [("name", "score"), ("score", "name")])
def test_a_list_of_blanks_with_decimal_commas_is_read_where_the_images_names_decide(tmp_path: Path, columns: tuple[str, str]):
    path = tmp_path / "mos.txt"
    cells = {"name": ["I01_01_1.bmp", "i01_01_2.bmp"], "score": ["5,98900", "4,98900"]}
    path.write_text("".join(f"{cells[columns[0]][i]} {cells[columns[1]][i]}\r\n" for i in (0, 1)), newline="")
    found = read_labels(path, columns, known=lambda name: " " not in name)
    assert [(row.name, row.score) for row in found.rows] == [("I01_01_1.bmp", 5.989), ("i01_01_2.bmp", 4.989)]


def test_a_list_that_can_be_read_in_two_ways_is_refused_with_both(tmp_path: Path):
    path = tmp_path / "mos.txt"
    path.write_text("5,1 a\n4,2 b\n")
    with pytest.raises(UsageError, match=r"two ways: line 1 is '1 a' with 5\.0, or 'a' with 5\.1"):
        read_labels(path, ("score", "name"))


def test_a_comma_that_may_be_a_decimal_one_is_refused_with_both_readings(tmp_path: Path):
    path = tmp_path / "list.csv"
    path.write_text("a.bmp,1500,419\nb.bmp,1600,5\n")
    found = read_labels(path, ("name", "score"))
    assert not found.rows
    assert "the score is 1500 with '419' in another column, or 1500.419 with a decimal comma" in found.problem


def test_bytes_that_are_not_utf_8_are_named_with_their_line(tmp_path: Path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"5.1 a.bmp\n5.2 caf\xe9.bmp\n")
    found = read_labels(path, ("score", "name"))
    assert [row.name for row in found.rows] == ["a.bmp"]
    assert "line 2" in found.problem
    assert "not UTF-8" in found.problem


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.lists(st.text(st.sampled_from('ab1. "é\x1f\u00a0'), max_size=2), min_size=1, max_size=3), min_size=1, max_size=4
    ),
    header=st.sampled_from([["name", "score"], ["name", "score", "x"], ["", "name"], ["name", "NAME"], ["name"]]),
    delimiter=st.sampled_from([",", ";", "\t"]),
    ending=st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    last=st.booleans(),
)
def test_a_uniform_table_is_read_as_line_by_line(tmp_path: Path, rows, header, delimiter: str, ending: str, last: bool):
    """The quick way for uniform texts gives the same frame, or the same refusal, as the way that looks at every cell."""
    path = tmp_path / "table.csv"
    path.write_text(ending.join(delimiter.join(row) for row in [header, *rows]) + ending * last, encoding="utf-8", newline="")

    def read() -> object:
        try:
            frame = read_text_columns(path, ("name",))
        except UsageError as error:
            return str(error)
        return list(frame.columns), frame.to_numpy().tolist(), list(frame.index), frame.index.name

    quick = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_table, "_uniform_table", lambda text, delimiter: None)
        assert quick == read()


@given(cells=st.lists(st.one_of(st.floats().map(repr), st.text(st.sampled_from("0123456789.eE+-"), max_size=5)), max_size=5))
def test_plain_numbers_are_read_together_as_one_by_one(cells: list[str]):
    values, reasons = parse_numbers(cells)
    assert [repr(v) for v in values] == [repr(parse_number(cell)) for cell in cells]
    assert [bool(reason) for reason in reasons] == [v != v for v in values]
