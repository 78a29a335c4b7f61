"""The cells of one sheet of an .xlsx file, with nothing but the standard library.

An .xlsx is a zip of XML parts. Sizes are bounded and document types refused, so a made-up file cannot swell.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from harness.files.regular import require_regular
from harness.runtime.errors import UsageError

_LARGEST_PART = 8 << 20
_MOST_COLUMNS = 1024


def is_spreadsheet(path: str | Path) -> bool:
    """Whether a file's name says that it is a spreadsheet."""
    return str(path).lower().endswith(".xlsx")


def read_sheet(path: str | Path, sheet: str = "all_by_image") -> list[tuple[int, list[str]]]:
    """(row number, cells as text) of all rows that hold something, of the sheet called `sheet`, else of the first.

    Raises UsageError when it is no readable spreadsheet.
    """
    try:
        require_regular(path)
        with zipfile.ZipFile(path) as archive:
            strings = _strings(archive)
            return _rows(_part(archive, _sheet_part(archive, sheet)), strings)
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # zipfile and expat raise whatever a broken file drives them into
        raise UsageError(f"{path}: not a readable spreadsheet (.xlsx): {str(error)[:200]}") from None


def _part(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    with archive.open(name) as stream:
        data = stream.read(_LARGEST_PART + 1)
    if len(data) > _LARGEST_PART:
        raise ValueError(f"{name} is larger than {_LARGEST_PART >> 20} MB")
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data or b"\0" in data[:200]:
        raise ValueError(f"{name} holds a document type, which spreadsheets do not")
    root = ElementTree.fromstring(data)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _strings(archive: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in archive.namelist():
        return []
    return ["".join(t.text or "" for t in item.iter("t")) for item in _part(archive, "xl/sharedStrings.xml").iter("si")]


def _sheet_part(archive: zipfile.ZipFile, wanted: str) -> str:
    targets = {r.get("Id"): r.get("Target", "") for r in _part(archive, "xl/_rels/workbook.xml.rels").iter("Relationship")}
    sheets = list(_part(archive, "xl/workbook.xml").iter("sheet"))
    if not sheets:
        raise ValueError("it has no sheets")
    chosen = next((s for s in sheets if s.get("name") == wanted), sheets[0])
    link = next((value for key, value in chosen.attrib.items() if key.rpartition("}")[2] == "id"), None)
    target = targets.get(link, "")
    return target.lstrip("/") if target.startswith("/") else f"xl/{target}"


def _rows(sheet: ElementTree.Element, strings: list[str]) -> list[tuple[int, list[str]]]:
    rows = []
    for count, row in enumerate(sheet.iter("row"), 1):
        cells: dict[int, str] = {}
        for place, cell in enumerate(row.iter("c")):
            column = _column(cell.get("r", ""), place)
            if column < _MOST_COLUMNS and (text := _text(cell, strings)).strip():
                cells[column] = text
        if cells:
            rows.append((int(row.get("r", count)), [cells.get(i, "") for i in range(max(cells) + 1)]))
    return rows


def _column(reference: str, place: int) -> int:
    letters = re.match(r"[A-Z]{1,3}", reference)
    if letters is None:
        return place
    number = 0
    for letter in letters.group():
        number = number * 26 + ord(letter) - 64
    return number - 1


def _text(cell: ElementTree.Element, strings: list[str]) -> str:
    if cell.get("t") == "inlineStr":
        return "".join(t.text or "" for t in cell.iter("t"))
    value = cell.find("v")
    text = (value.text or "") if value is not None else ""
    return strings[int(text)] if cell.get("t") == "s" else text
