"""The documents: their lines are short enough to read and to compare."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
LONGEST_LINE = 120
LONGEST_README = 130

if not (ROOT / "README.md").is_file():
    pytest.skip("the documents are not in an installed package", allow_module_level=True)


def code_lines(text: str) -> dict[int, str]:
    """Lines of fenced and indented code, by their number."""
    found: dict[int, str] = {}
    fence, indented, before = False, False, ""
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*(```|~~~)", line):
            fence = not fence
        elif line.strip():
            indented = bool(re.match(r" {4}", line)) and (indented or not before.strip())
            if fence or indented:
                found[number] = line
        before = line
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_of_documents_are_short_enough(path: Path):
    """Rows of tables cannot be broken, and what a command printed is shown as it was; commands themselves are broken."""
    text = path.read_text(encoding="utf-8")
    code = code_lines(text)
    long = [
        f"{path}:{number}: {len(line)} characters"
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > LONGEST_LINE
        if not line.lstrip().startswith("|")
        if number not in code or line.lstrip().startswith(("harness ", "pip ", "$ "))
    ]
    assert not long, "\n".join(long)
