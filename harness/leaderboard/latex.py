"""Boards and matrices as LaTeX: booktabs tables with caption and label, or a complete document.

A table needs only the package booktabs. Intervals and ranges have separate columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from harness.leaderboard.board_document import Board, Group, Row
from harness.leaderboard.columns import against_best, row_name, seeds, speed
from harness.leaderboard.formats import GENERATED, best_explained, best_meaning
from harness.leaderboard.matrix import Matrix, letters_of
from harness.leaderboard.row_groups import FEWEST_REFERENCES
from harness.results.marks import LEGEND, sentences
from harness.results.tables import figure as shown_figure
from harness.results.tables import number
from harness.runtime import text as plain
from harness.runtime.errors import UsageError, listed, near

FIGURES = {"score_2afc": "2AFC", "srcc": "SRCC", "plcc": "PLCC", "plcc_fitted": "PLCC fitted", "krcc": "KRCC", "rmse": "RMSE"}
FIGURES |= {"main": "Main", "srcc_within": "SRCC within refs"}
OTHERS = {"rank": "Rank", "p": "p", "n": "Images", "references": "References", "speed": "Pairs/s", "seeds": "Seeds"}
DEFAULT = ("srcc", "plcc", "krcc", "main", "n")
_BEST = r"\textbf{{{}}}"
_PLAIN = frozenset(chr(c) for c in range(0xC0, 0x100)) - set("ÐðÞþ×÷") | set("–—‘’“”…")
"""Characters outside ASCII that every TeX prints in its default encoding."""


def chosen_columns(words: Sequence[str], known: Mapping[str, str] | Sequence[str]) -> tuple[str, ...]:
    """`--columns`, each once; raises UsageError for a word that is not one of the `known` columns."""
    if unknown := [word for word in words if word not in known]:
        hints = "".join(near(word, known) for word in unknown)
        raise UsageError(f"--columns {','.join(words)}: no column {listed(unknown)}{hints} (known: {listed(list(known))})")
    return tuple(dict.fromkeys(words))


def board_tables(board: Board, columns: Sequence[str] = (), *, intervals: bool = False) -> list[str]:
    """A table for each protocol of a board.

    Args:
        board: one dataset's tables.
        columns: some of `FIGURES` and `OTHERS`; empty: SRCC, PLCC, KRCC, main (and 2AFC where it ranks) and the number of images.
        intervals: show intervals of every chosen figure; else of the first only.
    """
    return [_group_table(board, group, columns, intervals=intervals) for group in board.groups]


def _group_table(board: Board, group: Group, columns: Sequence[str], *, intervals: bool) -> str:
    afc = group.headline == "score_2afc"
    chosen = tuple(columns) or (*(("score_2afc",) if afc else ()), *DEFAULT)
    first = next((name for name in chosen if name in FIGURES), None)
    behind = {key for row in group.rows for key in row.members}
    # A letter for each mark that occurs.
    letters = letters_of([row.marks for row in group.rows])
    heads, cells = ["Model"], list[list[str]]()
    for row in group.rows:
        about = f", {seeds(row)}" if row.kind == "seeds" else f", seed {seeds(row)}" if row.key in behind else ""
        model = plain.latex(row_name(row) + about)
        model = rf"\textit{{{model}}}" if row.kind == "control" else model
        cells.append([model + _superscript(row.marks, letters)])
    for name in chosen:
        heads.append(plain.latex(FIGURES.get(name) or OTHERS[name]))
        for row, line in zip(group.rows, cells, strict=True):
            line.append(_best(row, name) if name in FIGURES else _other(row, name, group))
        if name in FIGURES and (intervals or name == first):
            # A range is over splits or seeds, an interval is for the choice of references: a column for each.
            parts = (
                (f"{group.confidence:.0%} interval", {i: row.ci.get(name) for i, row in enumerate(group.rows)}, "[{}, {}]"),
                ("range", {i: row.spread.get(name) for i, row in enumerate(group.rows)}, "{} to {}"),
            )
            for head, ends, form in parts:
                if any(ends.values()):
                    heads.append(plain.latex(head))
                    for i, line in enumerate(cells):
                        line.append(_signs(form.format(*map(number, found))) if (found := ends[i]) else "--")
            if any(row.whole.get(name) is not None for row in group.rows):
                heads += [plain.latex("all images"), plain.latex(f"{group.confidence:.0%} interval")]
                for row, line in zip(group.rows, cells, strict=True):
                    whole = row.whole_ci.get(name)
                    line.append(_signs(shown_figure(name, row.whole.get(name))) or "--")
                    line.append(_signs("[{}, {}]".format(*map(number, whole))) if whole else "--")
    described = [f"{board.title}: agreement with {board.label or 'the labels'}", f"protocol {group.protocol}"]
    caption = sentences(", ".join(described), group.description, group.note, board.note)
    caption += f" Bold: {best_explained(group)}." if any(row.best for row in group.rows) else ""
    if any(row.spread for row in group.rows):
        caption += (
            " Figures with a range are medians over splits or means over seeds, the range is from the smallest to the largest."
            + (" Images are those of one split." if any(row.repeats for row in group.rows) else "")
        )
    title = (board.dataset, group.protocol)
    return _table(title, caption, letters, "l" + "r" * (len(heads) - 1), [" & ".join(heads) + r" \\"], cells)


def matrix_table(shown: Matrix, *, intervals: bool = False) -> str:
    """A matrix as one table; `intervals`: with the intervals (brackets) or ranges (parentheses) of its figures."""
    names, count, letters = shown.figures, len(shown.figures), shown.marks
    blocks = [plain.latex(column.dataset) for column in shown.columns] + ["Mean", "Weighted mean", "Mean rank"]
    top = ["", *(rf"\multicolumn{{{count}}}{{c}}{{{block}}}" for block in blocks)]
    rules = "".join(rf"\cmidrule(lr){{{2 + i * count}-{1 + (i + 1) * count}}}" for i in range(len(blocks)))
    named = [plain.latex(FIGURES[f]) for f in names]
    heads = [" & ".join(top) + r" \\", rules, " & ".join(["Model", *named * len(blocks)]) + r" \\"]
    lines = []
    for row in shown.rows:
        line = [plain.latex(row.name)]
        for cell in row.cells:
            for figure in names:
                text = "--" if cell is None else _best(cell, figure) + (_signs(ends(cell, figure)) if intervals else "")
                line.append(text + _superscript(cell.marks if cell and text != "--" else (), letters))
        line += [_signs(number(values.get(f))) or "--" for values in (row.mean, row.weighted) for f in names]
        line += [rank_text(row.mean_rank.get(f)) or "--" for f in names]
        lines.append(line)
    caption = " ".join(map(sentences, [shown.title, *explained(shown, intervals=intervals, bold="Bold")]))
    return _table(("suite", shown.name), caption, letters, "l" + ("r" * count) * len(blocks), heads, lines)


def explained(shown: Matrix, *, intervals: bool, bold: str) -> list[str]:
    """The explanations below a matrix; `bold` is how the group of the best is marked."""
    texts = []
    for column in shown.columns:
        counted = ((column.n, "image"), (column.references, "reference"))
        counts = [f"{value:g} {what}{'' if value == 1 else 's'}" for value, what in counted if value]
        texts.append(f"dataset {column.dataset}: {', '.join([f'protocol {column.protocol}', *counts])}")
    levels = dict.fromkeys((column.confidence, column.over_splits) for column in shown.columns if column.compared)
    texts += [f"{bold}: {best_meaning(level, over_splits=splits)}" for level, splits in levels]
    if few := [column.dataset for column in shown.columns if column.too_few]:
        texts.append(f"no group of the best is marked on {listed(few)}: fewer than {FEWEST_REFERENCES} references")
    cells = [cell for row in shown.rows for cell in row.cells if cell]
    spread = any(f in cell.spread for cell in cells for f in shown.figures)
    if intervals and any(cell.ci.get(f) for cell in cells for f in shown.figures):
        confidence = ", ".join(dict.fromkeys(f"{column.confidence:.0%}" for column in shown.columns))
        texts.append(f"brackets: {confidence} intervals")
    if spread:
        ranges = "; parentheses: from the smallest to the largest" if intervals else ""
        texts.append(f"some figures are medians over splits or means over seeds{ranges}")
    over = listed([column.dataset for column in shown.columns])
    share = f" ({len(shown.columns)} of the suite's {len(shown.columns) + len(shown.absent)} datasets)" if shown.absent else ""
    texts.append(
        f"means and ranks are over {over}{share}, of the models that are ranked on each of them; the weighted mean weighs by "
        "images; equal figures share a rank"
    )
    texts += [f"no record here: {listed(list(shown.absent))}"] if shown.absent else []
    return [*texts, *shown.notes]


def rank_text(value: float | None) -> str:
    """A mean rank with two decimals at most: 1, 1.5, 2.33; blank where there is none."""
    return "" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def document(tables: Sequence[str]) -> str:
    """A complete LaTeX document with the tables."""
    body = "\n\n\\clearpage\n".join(tables)
    foreign = sorted({c for c in body if ord(c) > 127} - _PLAIN)
    # pdfTeX stops at undeclared characters; other engines neither know nor need this command.
    declared = [rf"  \DeclareUnicodeCharacter{{{ord(c):04X}}}{{[U+{ord(c):04X}]}}%" for c in foreign]
    lines = [f"% {GENERATED}", r"\documentclass{article}", r"\usepackage{booktabs}"]
    lines += [r"\usepackage[a3paper,landscape,margin=15mm]{geometry}"]
    lines += [r"\ifdefined\DeclareUnicodeCharacter", *declared, r"\fi"] if declared else []
    return "\n".join([*lines, r"\pagestyle{empty}", r"\begin{document}", body, r"\end{document}"]) + "\n"


def _table(
    place: tuple[str, str],
    caption: str,
    letters: Mapping[str, str],
    columns: str,
    heads: Sequence[str],
    cells: Sequence[Sequence[str]],
) -> str:
    meanings = "; ".join(f"{letter}: {mark} ({LEGEND[mark]})" for mark, letter in letters.items())
    name = "-".join(re.sub(r"[^A-Za-z0-9]+", "-", word).strip("-") or "x" for word in place)
    about = plain.latex(" ".join(filter(None, (caption, f"Marks: {meanings}." if meanings else ""))))
    lines = [f"% {GENERATED}", r"\begin{table}[htbp]", r"\centering\small", rf"\caption{{{about}}}", rf"\label{{tab:{name}}}"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *heads, r"\midrule"]
    # LaTeX would read a bracket or a star at the beginning of a line as an option of the line break before it.
    lines += [("{}" if line[0][:1] in ("[", "*") else "") + " & ".join(line) + r" \\" for line in cells]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def _best(row: Row, figure: str) -> str:
    text = _signs(shown_figure(figure, row.figures.get(figure)))
    return "--" if not text else _BEST.format(text) if figure in row.best else text


def ends(row: Row, figure: str) -> str:
    """The ends to be printed after a figure: a range in parentheses, an interval in brackets."""
    if figure in row.spread:
        return " ({} to {})".format(*map(number, row.spread[figure]))
    interval = row.ci.get(figure)
    return " [{}, {}]".format(*map(number, interval)) if interval else ""


def _other(row: Row, name: str, group: Group) -> str:
    values = {
        "rank": "" if row.rank is None else str(row.rank),
        "p": against_best(row, group).replace("<", "$<$"),
        "n": "" if row.n is None else str(row.n),
        "references": "" if row.references is None else str(row.references),
        "speed": speed(row.pairs_per_second),
        "seeds": plain.latex(seeds(row)),
    }
    return values[name] or "--"


def _superscript(marks: Sequence[str], letters: Mapping[str, str]) -> str:
    found = [letters[mark] for mark in marks if mark in letters]
    return rf"\textsuperscript{{{','.join(found)}}}" if found else ""


def _signs(text: str) -> str:
    return text.replace("-", "$-$")
