"""Label files: the authors' formats, damaged ones, and ambiguous ones."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from miniatures import spreadsheet

from harness.datasets.label_files import parse_number, read_labels, read_numbers
from harness.files.spreadsheet import read_sheet
from harness.runtime.errors import UsageError

FAST = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def labels(tmp_path: Path, content: str | bytes, *columns: str, name: str = "labels.txt", **more: object):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_labels(path, columns, **more)


def test_a_list_of_score_and_name_with_windows_line_ends_is_read(tmp_path):
    found = labels(tmp_path, "5.51429 I01_01_1.bmp\r\n5.56757 i01_01_2.bmp\r\n", "score", "name")
    assert [(r.name, r.score, r.line) for r in found.rows] == [("I01_01_1.bmp", 5.51429, 1), ("i01_01_2.bmp", 5.56757, 2)]
    assert not found.problem


@pytest.mark.parametrize("separator", [",", ", ", ";", "\t", "  "])
def test_any_usual_separator_is_read_with_and_without_a_final_newline(tmp_path, separator):
    for end in ("", "\n", "\r\n", "\n\n"):
        found = labels(
            tmp_path, f"A0001_00_00.bmp{separator}1520.0648\nA0001_00_01.bmp{separator}1437.0798{end}", "name", "score"
        )
        assert [(r.name, r.score) for r in found.rows] == [("A0001_00_00.bmp", 1520.0648), ("A0001_00_01.bmp", 1437.0798)]
        assert not found.bad


def test_a_header_is_understood_in_the_authors_and_in_the_mirrors_words(tmp_path):
    authors = labels(tmp_path, "dist_img,ref_img,dmos,var\nI01_01_01.png,I01.png,4.57,0.496\n")
    mirror = labels(tmp_path, "ref_name,dist_name,dmos,std\r\nI01.png,I01_01_01.png,4.57,0.496\r\n")
    # repr: from Python 3.13 on, records that hold a NaN equal nothing.
    assert repr(authors.rows) == repr(mirror.rows)
    assert (authors.rows[0].reference, authors.rows[0].std) == ("I01.png", 0.496)
    spaced = labels(tmp_path, "ref image, distorted image, score for distorted image\nref_1.png,distort_1_a_inter_0.png,1.5\n")
    assert (spaced.rows[0].name, spaced.rows[0].score) == ("distort_1_a_inter_0.png", 1.5)


def test_folders_in_names_are_taken_off_and_remembered(tmp_path):
    found = labels(tmp_path, "dis_img_path,dis_type,ref_img_path,score\nLIVE/jp2k/img2.bmp,jp2k,LIVE\\refimgs\\rapids.bmp,15.5\n")
    assert (found.rows[0].name, found.rows[0].folder, found.rows[0].reference) == ("img2.bmp", "jp2k", "rapids.bmp")


def test_every_bad_line_is_reported_at_once_with_its_number(tmp_path):
    text = "5.1 a.bmp\nnonsense\n\n5.2 b.bmp\nnan c.bmp\ninf d.bmp\n5,3 e.bmp\n1_0 f.bmp\n"
    found = labels(tmp_path, text, "score", "name")
    assert [r.name for r in found.rows] == ["a.bmp", "b.bmp", "e.bmp"]
    assert found.problem.startswith("4 lines cannot be read")
    for number in (2, 5, 6, 8):
        assert f"line {number} (" in found.problem


def test_one_bad_line_with_a_comma_does_not_change_how_the_others_are_read(tmp_path):
    found = labels(tmp_path, "5.1 a.bmp\n5.2,b.bmp\n5.3 c.bmp\n", "score", "name")
    assert [r.name for r in found.rows] == ["a.bmp", "c.bmp"]
    assert "line 2" in found.problem


def test_columns_the_other_way_round_are_guessed_in_the_report(tmp_path):
    found = labels(tmp_path, "a.bmp 5.1\nb.bmp 5.2\n", "score", "name")
    assert not found.rows
    assert "in the other order" in found.problem


def test_a_file_without_header_needs_columns_from_the_card(tmp_path):
    with pytest.raises(UsageError, match="no header"):
        labels(tmp_path, "I01_01_01.png,4.57\n")


def test_decimal_commas_and_quotes_are_numbers():
    assert parse_number('"0,0612"') == 0.0612
    assert parse_number(" 4.57 ") == 4.57
    for text in ("", "x", "1,2,3", "nan", "-inf", "1e999", "١_٢"):
        assert math.isnan(parse_number(text))


def test_numbers_keep_their_lines_so_that_files_side_by_side_stay_aligned(tmp_path):
    path = tmp_path / "mos.txt"
    path.write_text("1.0\n\nx\n2.0\n\n\n")
    values = read_numbers(path)
    assert len(values) == 4
    assert values[0] == 1.0
    assert values[3] == 2.0
    assert math.isnan(values[1])
    assert math.isnan(values[2])


# Spreadsheets


def test_a_spreadsheets_names_are_composed_and_its_words_replaced(tmp_path):
    path = tmp_path / "csiq.DMOS.xlsx"
    rows = [["title"], [], ["", "image", "dst_type", "dst_lev", "dmos_std", "dmos"]]
    spreadsheet(
        path,
        {"other": [["x"]], "all_by_image": [*rows, ["", 1600, "noise", 1, 0.06, 0.062], ["", "elk", "jpeg 2000", 2.0, 0.1, 0.3]]},
    )
    spelt = {"noise": "AWGN", "jpeg 2000": "jpeg2000"}
    found = read_labels(path, compose="{image}.{dst_type}.{dst_lev}.png", spellings=spelt)
    assert [(r.name, r.score, r.std) for r in found.rows] == [("1600.AWGN.1.png", 0.062, 0.06), ("elk.jpeg2000.2.png", 0.3, 0.1)]
    assert not found.bad


def test_a_spreadsheet_with_an_entity_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", '<!DOCTYPE x [<!ENTITY a "aaaa">]><workbook>&a;</workbook>')
        archive.writestr("xl/_rels/workbook.xml.rels", "<Relationships/>")
    with pytest.raises(UsageError, match="document type"):
        read_sheet(path)


@pytest.mark.slow
def test_a_spreadsheet_that_swells_is_refused(tmp_path):
    path = tmp_path / "swollen.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", "<workbook>" + " " * (65 << 20) + "</workbook>")
        archive.writestr("xl/_rels/workbook.xml.rels", "<Relationships/>")
    with pytest.raises(UsageError, match="larger than"):
        read_sheet(path)


# Anything at all


def refused(action, file: str):
    """What `action` gives; None where it refuses, naming the file. Anything else it raises is a failure."""
    try:
        return action()
    except UsageError as error:
        if file not in str(error):
            raise
        return None


lines = st.lists(
    st.one_of(
        st.builds("{} {}".format, st.floats(), st.text(max_size=12)),
        st.builds("{},{}".format, st.text(max_size=12), st.floats()),
        st.text(max_size=30),
        st.just('"unclosed, 1.0'),
        st.just("name,score"),
    ),
    max_size=12,
)


@FAST
@given(lines=lines, columns=st.sampled_from([("name", "score"), ("score", "name"), ()]))
def test_any_text_gives_labels_or_one_clear_refusal(tmp_path, lines, columns):
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    found = refused(lambda: labels(tmp_path, content, *columns), "labels.txt")
    if found is None:
        return
    count = sum(bool(line.strip()) for line in content.decode("utf-8-sig", "replace").replace("\r", "\n").split("\n"))
    assert len(found.rows) + len(found.bad) <= count
    assert len(found.rows) + len(found.bad) >= (1 if b'"' in content and found.bad else count) - 1  # a header; quotes hold lines
    assert all(math.isfinite(r.score) and r.name and "/" not in r.name for r in found.rows)


@FAST
@given(content=st.binary(max_size=300))
def test_any_bytes_give_labels_or_one_clear_refusal(tmp_path, content):
    for name in ("labels.txt", "labels.csv", "labels.xlsx"):
        found = refused(lambda name=name: labels(tmp_path, content, "name", "score", name=name), name)
        assert found is None or all(math.isfinite(r.score) for r in found.rows)


@FAST
@given(data=st.data())
def test_a_damaged_spreadsheet_gives_rows_or_one_clear_refusal(tmp_path, data):
    path = tmp_path / "good.xlsx"
    spreadsheet(
        path, {"all_by_image": [["image", "dst_type", "dst_lev", "dmos"], ["elk", "blur", 1, 0.5], [1600, "jpeg", 2, 0.25]]}
    )
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    damaged = tmp_path / "damaged.xlsx"
    damaged.write_bytes(content)
    found = refused(lambda: read_labels(damaged, compose="{image}.{dst_type}.{dst_lev}.png"), "damaged.xlsx")
    assert found is None or len(found.rows) <= 2


@FAST
@given(text=st.text(alphabet="<>/rcvts=\"'0123456789ABinlStrow& ", max_size=200))
def test_any_sheet_xml_gives_rows_or_one_clear_refusal(tmp_path, text):
    path = tmp_path / "made.xlsx"
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        link = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
        archive.writestr("xl/workbook.xml", f'<workbook xmlns:r="{link}"><sheets><sheet name="a" r:id="r1"/></sheets></workbook>')
        archive.writestr("xl/_rels/workbook.xml.rels", '<R><Relationship Id="r1" Target="s.xml"/></R>')
        archive.writestr("xl/s.xml", f"<worksheet><sheetData>{text}</sheetData></worksheet>")
    path.write_bytes(memory.getvalue())
    rows = refused(lambda: read_sheet(path), "made.xlsx")
    assert rows is None or all(any(cell for cell in cells) for _, cells in rows)
