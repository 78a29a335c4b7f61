"""The cells of one sheet of an .xlsx file, read by openpyxl.

A file may come from anyone: the sizes of its parts are checked, and document types are refused, before openpyxl reads it.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

from harness.files.regular import require_regular
from harness.runtime.errors import UsageError

LARGEST_PART = 64 << 20
"""Bytes of one part, unpacked: the sheet of 100,000 labelled images has 10 MB."""
_MOST_COLUMNS = 1024
_TYPES = "[Content_Types].xml"


def is_spreadsheet(path: str | Path) -> bool:
    """Whether a file is a spreadsheet, by its name, or by its first bytes where another name is given to an .xlsx or .xls."""
    if str(path).lower().endswith((".xlsx", ".xlsm")):
        return True
    try:
        require_regular(path)
        with open(path, "rb") as stream:
            start = stream.read(8)
    except OSError:
        return False
    return start.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0"))


def read_sheet(path: str | Path, sheet: str = "all_by_image") -> list[tuple[int, list[str]]]:
    """(row number, cells as text) of all rows that are not empty, of the sheet `sheet`, else of the first.

    Texts come without their phonetic guides, formulas as the values that were stored with them. Raises UsageError when it is
    not a readable spreadsheet.
    """
    import openpyxl

    try:
        with open(path, "rb") as stream:
            if stream.read(4) == b"\xd0\xcf\x11\xe0":
                raise UsageError(f"{path}: an old Excel file (.xls), or one with a password: save it as .xlsx or .csv")
        parts = _parts(path)
        with warnings.catch_warnings(), open(path, "rb") as stream:
            warnings.simplefilter("ignore")  # of styles and extensions that are not read here
            source = stream if _TYPES in parts else _completed(parts)
            book = openpyxl.load_workbook(source, read_only=True, data_only=True, keep_links=False)
            if not book.worksheets:
                raise ValueError("it has no sheets")
            page = next((one for one in book.worksheets if one.title == sheet), book.worksheets[0])
            page.reset_dimensions()  # some programs write wrong ones
            rows = []
            for number, row in enumerate(page.iter_rows(max_col=_MOST_COLUMNS), 1):
                cells = [_text(cell) for cell in row]
                while cells and not cells[-1].strip():
                    cells.pop()
                if cells:
                    rows.append((number, cells))
            return rows
    except UsageError:
        raise
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # zipfile, expat and openpyxl may raise any error for a damaged file
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"{path}: not a readable spreadsheet (.xlsx): {why}") from None


def _parts(path: str | Path) -> dict[str, bytes]:
    """The XML parts by name; raises ValueError for parts that are too large or have a document type."""
    parts = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not name.lower().endswith((".xml", ".rels")):
                continue
            with archive.open(name) as stream:
                data = stream.read(LARGEST_PART + 1)
            if len(data) > LARGEST_PART:
                raise ValueError(f"{name} is larger than {LARGEST_PART >> 20} MB")
            if b"<!DOCTYPE" in data or b"<!ENTITY" in data or b"\0" in data[:200]:
                raise ValueError(f"{name} holds a document type, which spreadsheets do not")
            parts[name] = data
    return parts


def _completed(parts: dict[str, bytes]) -> io.BytesIO:
    """The package with the list of its parts and the kinds of their links, which simple writers leave out."""
    # Most tables are text, and these import 60 modules, the network's among them.
    from xml.etree import ElementTree
    from xml.sax.saxutils import quoteattr

    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml."
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    kinds = {"xl/workbook.xml": "sheet.main", "xl/sharedStrings.xml": "sharedStrings", "xl/styles.xml": "styles"}
    links = []
    for link in ElementTree.fromstring(parts["xl/_rels/workbook.xml.rels"]):
        target = link.get("Target", "")
        name = target.lstrip("/") if target.startswith("/") else f"xl/{target}"
        if name in parts and name not in kinds:
            kinds[name] = "worksheet"
            links.append(f"<Relationship Id={quoteattr(link.get('Id', ''))} Type={quoteattr(f'{office}/worksheet')} "
                         f"Target={quoteattr('/' + name)}/>")  # fmt: skip
    listed = "".join(
        f"<Override PartName={quoteattr('/' + name)} ContentType={quoteattr(f'{kind}{what}+xml')}/>"
        for name, what in kinds.items()
        if name in parts
    )
    completed = io.BytesIO()
    with zipfile.ZipFile(completed, "w") as archive:
        archive.writestr(_TYPES, f"<Types xmlns={quoteattr(f'{package}/content-types')}>{listed}</Types>")
        body = f"<Relationships xmlns={quoteattr(f'{package}/relationships')}>{''.join(links)}</Relationships>"
        for name, data in (parts | {"xl/_rels/workbook.xml.rels": body.encode()}).items():
            archive.writestr(name, data)
    return completed


def _text(cell: Any) -> str:
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        # A name such as 001 is often the number 1 shown with three digits.
        form = str(cell.number_format or "")
        return f"{int(value):0{len(form)}d}" if re.fullmatch("0{2,}", form) and value == int(value) else repr(value)
    return str(value)
