"""Text that others wrote, shown as text: on a terminal, in Markdown, CSV and LaTeX.

Records, cards and archives come from others. What they say must not steer a terminal, become markup or a formula, or begin
a new line where one line is expected.
"""

from __future__ import annotations

import json
import re
import shlex
import unicodedata

_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
"""Unicode categories that steer a terminal, reorder or end a line, or show nothing."""
_FORMULA = ("=", "+", "-", "@")
"""What a spreadsheet takes for a formula at the beginning of a cell."""
_BLOCK = re.compile(r"(#|>|[-+*]\s|\d+[.)]\s|```|~~~|=|\|)")
"""What begins a block of Markdown at the beginning of a line."""


def visible(text: str) -> str:
    """`text` with every character that steers a terminal or shows nothing written as its escape; line ends and tabs stay."""
    return "".join(c if c in "\n\t" or not _hidden(c) else ascii(c)[1:-1] for c in text)


def visible_document(text: str) -> str:
    """`visible` with the escapes of JSON, so that a JSON document stays one."""
    return "".join(c if c in "\n\t" or not _hidden(c) else json.dumps(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """`visible` text on one line."""
    return visible(re.sub(r"\s+", " ", text))


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN


def markdown(text: str) -> str:
    """`text` inside a line of Markdown: no HTML, no link, no image, no line of its own. Emphasis and code stay what they are."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", one_line(text)).replace("<", "&lt;")
    # An entity: a backslash that the text itself brings would undo one of ours.
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

    It is shown to be repeated, so that nothing in it may mean more to a shell than a word.
    """
    try:
        words = shlex.split(text)
    except ValueError:
        return ""
    plain = words[:1] == ["harness"] and not any(set("\n\r`<>").intersection(word) for word in words)
    return visible(shlex.join(words)) if plain else ""
