"""Escaping of untrusted text for terminals, Markdown, CSV and LaTeX.

Records, cards and archives come from other people. Their text must not control a terminal, become markup or a formula, or
begin a new line where one line is expected.
"""

from __future__ import annotations

import json
import re
import shlex
import unicodedata

_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
"""Unicode categories that control a terminal, reorder or end a line, or show nothing."""
_FORMULA = ("=", "+", "-", "@")
"""Characters that make a spreadsheet read a cell as a formula when the cell begins with them."""
_BLOCK = re.compile(r"(#|>|[-+*]\s|\d+[.)]\s|```|~~~|=|\|)")
"""Text that begins a block of Markdown at the beginning of a line."""


def visible(text: str) -> str:
    """`text` with every character that controls a terminal or shows nothing escaped; line ends and tabs stay."""
    return text if _all_shown(text) else "".join(c if c in "\n\t" or not _hidden(c) else ascii(c)[1:-1] for c in text)


def visible_document(text: str) -> str:
    """`visible` with the escapes of JSON, so that a JSON document stays one."""
    return text if _all_shown(text) else "".join(c if c in "\n\t" or not _hidden(c) else json.dumps(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """`visible` text on one line."""
    return visible(re.sub(r"\s+", " ", text))


def _all_shown(text: str) -> bool:
    # Python counts the hidden categories, and blanks other than the space, as not printable.
    return text.replace("\n", "").replace("\t", "").isprintable()


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN


def markdown(text: str) -> str:
    """`text` inside a line of Markdown: no HTML, no link, no image, no new line. Emphasis and code stay."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", one_line(text)).replace("<", "&lt;")
    # An entity and not a backslash: a backslash in the text itself would cancel ours.
    return re.sub(r"\](?=[(\[:])", "&#93;", text)


def markdown_line(text: str) -> str:
    """`markdown` for text that begins a line: no heading, list, quotation, fence or table."""
    text = markdown(text).lstrip()
    return f"&#{ord(text[0])};{text[1:]}" if _BLOCK.match(text) else text


def markdown_code(text: str) -> str:
    """`text` for the inside of a code span."""
    return one_line(text).replace("`", "'")


def fenced(lines: list[str], kind: str) -> list[str]:
    """A code block of `lines`, its fence longer than any run of backticks in them."""
    lines = [one_line(line) for line in lines]
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence + kind, *lines, fence]


def csv_cell(text: str) -> str:
    """`text` for a cell of a table that a spreadsheet may open: no formula; a number stays a number."""
    text = one_line(text)
    if not text.lstrip().startswith(_FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def latex(text: str) -> str:
    """`text` as LaTeX that prints it, on one line."""
    table = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    # The default encoding has other signs in these places.
    table.update({"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"})
    return "".join(table.get(c, "\\" + c if c in "&%$#_{}" else c) for c in one_line(text))


def command(text: str) -> str:
    """A record's command, quoted for a shell; empty for text that is not a command of the harness.

    Readers copy it into a shell, so each of its words is quoted.
    """
    try:
        words = shlex.split(text)
    except ValueError:
        return ""
    plain = words[:1] == ["harness"] and not any(set("\n\r`<>").intersection(word) for word in words)
    return visible(shlex.join(words)) if plain else ""
