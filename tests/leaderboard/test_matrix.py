"""Matrices of models by datasets: means, ranks, marks, and LaTeX of matrices and boards."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make, repeated
from scipy.stats import rankdata

from harness import leaderboard
from harness.leaderboard import latex, matrix_text
from harness.leaderboard.matrix import Matrix, MatrixRow, build_matrix, facts, midranks
from harness.leaderboard.rows import board
from harness.results.record import Record
from harness.runtime.errors import UsageError

SETS = ("first", "second", "third")


def shown(folder: Path, names: tuple[str, ...] = SETS, **options: object) -> Matrix:
    wanted = [(name, "held-out") for name in names]
    return build_matrix("mine", "Three sets", wanted, leaderboard.collect([folder]), **options)  # type: ignore[arg-type]


def the(found: Matrix, name: str) -> MatrixRow:
    (row,) = [row for row in found.rows if row.name == name]
    return row


def record_of(folder: Path, dataset: str, model: str) -> Record:
    (found,) = [r for _, r in leaderboard.collect([folder]) if (r.dataset, r.model) == (dataset, model)]
    assert isinstance(found, Record)
    return found


def compiled(text: str, folder: Path) -> str:
    """What pdflatex says of a document; the test skips where there is none."""
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not on this machine")
    (folder / "t.tex").write_text(text, encoding="utf-8")
    words = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "t.pdf").stat().st_size > 1000
    return done.stdout


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """good and poor on all three sets, of different sizes; half lacks one; seen was trained on one."""
    folder = tmp_path_factory.mktemp("records")
    for dataset, references in zip(SETS, (12, 16, 20), strict=True):
        make(folder, "good", dataset=dataset, noise=0.5, references=references)
        make(folder, "poor", dataset=dataset, noise=3.0, references=references)
        make(folder, "seen", dataset=dataset, noise=0.1, references=references, seen=dataset == "second")
        if dataset != "third":
            make(folder, "half", dataset=dataset, noise=0.2, references=references)
    return folder


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_matrix_fits_the_terminal_and_datasets_leave_last(three: Path, width: int) -> None:
    lines = matrix_text.terminal(shown(three), width=width).split("\n")
    rule = next(n for n, line in enumerate(lines) if set(line) == {"-", " "})
    end = next(n for n in range(rule, len(lines)) if not lines[n])
    assert max(map(len, lines[:end])) <= width
    heads = " ".join(lines[2:rule])
    assert "first" in heads
    assert ("weighted" in heads) <= ("third" in heads)


def test_means_are_over_complete_rows_and_blanks_are_never_averaged(three: Path) -> None:
    found = shown(three)
    assert [row.name for row in found.rows if row.complete] == ["good", "poor"]
    for name in ("half", "seen"):
        row = the(found, name)
        assert (row.complete, dict(row.mean), dict(row.weighted), dict(row.mean_rank)) == (False, {}, {}, {})
    for name in ("good", "poor"):
        records = [record_of(three, dataset, name) for dataset in SETS]
        for figure in ("srcc", "plcc"):
            values = [getattr(record, figure) for record in records]
            weights = [record.test.n for record in records if record.test]
            assert the(found, name).mean[figure] == pytest.approx(np.mean(values))
            assert the(found, name).weighted[figure] == pytest.approx(np.average(values, weights=weights))
    assert the(found, "good").mean_rank == {"srcc": 1, "plcc": 1}
    assert the(found, "poor").mean_rank == {"srcc": 2, "plcc": 2}


def test_ranks_are_among_complete_rows_alone(three: Path) -> None:
    # half is better than good on the two sets that it has, and yet good's mean rank is 1.
    half, good = (the(shown(three), name) for name in ("half", "good"))
    for one, other in zip(half.cells[:2], good.cells[:2], strict=True):
        assert one is not None
        assert other is not None
        assert (one.figures["srcc"] or 0) > (other.figures["srcc"] or 0)
    assert good.mean_rank["srcc"] == 1


def test_a_dataset_without_records_has_no_column_and_is_named(three: Path) -> None:
    found = shown(three, (*SETS, "fourth"))
    assert [column.dataset for column in found.columns] == list(SETS)
    assert found.absent == ("fourth",)
    assert "3 of the suite's 4 datasets" in matrix_text.terminal(found)
    assert "no record here: fourth" in matrix_text.terminal(found)


def test_groups_are_those_of_each_datasets_own_board(three: Path) -> None:
    found = shown(three)
    for i, dataset in enumerate(SETS):
        (group,) = board(leaderboard.collect([three]), dataset).groups
        own = {row.name: row.best for row in group.rows if row.kind == "measured"}
        assert {row.name: cell.best for row in found.rows if (cell := row.cells[i])} == own
    good = next(line for line in matrix_text.terminal(found).splitlines() if line.startswith("good"))
    assert good.count("*") == sum(f in cell.best for cell in the(found, "good").cells if cell for f in ("srcc", "plcc"))


def test_an_unranked_figure_is_shown_with_its_mark(three: Path) -> None:
    text = matrix_text.terminal(shown(three))
    row = next(line for line in text.splitlines() if line.startswith("seen"))
    assert len(re.findall(r"\.\d{3} a", row)) == 2
    assert "mark a: seen (its weights were trained on this dataset" in text


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=12))
def test_equal_figures_share_the_mean_of_their_ranks(values: list[float]) -> None:
    assert midranks(values) == rankdata([-v for v in values]).tolist()


def test_seeds_are_one_row_and_versions_of_a_model_are_two(tmp_path: Path) -> None:
    for dataset in SETS:
        for seed in (0, 1):
            make(tmp_path, "net", dataset=dataset, trained=True, seed=seed)
    make(tmp_path, "net", dataset="first", trained=True, settings={"recipe.epochs": "3"})
    rows = shown(tmp_path).rows
    assert len(rows) == 2
    assert [row.complete for row in rows] == [True, False]
    (whole, _) = rows
    assert all(cell and cell.kind == "seeds" for cell in whole.cells)


def test_json_and_csv_have_all_digits_and_null_where_nothing_is(three: Path) -> None:
    found = shown(three)
    rows = {row["model"]: row for row in facts(found)["rows"]}
    assert rows["half"]["figures"]["third"] is None
    assert rows["half"]["mean"] is None
    assert rows["good"]["figures"]["first"]["srcc"] == record_of(three, "first", "good").srcc
    lines = {row["model"]: row for row in csv.DictReader(io.StringIO(matrix_text.csv(found)))}
    assert float(lines["good"]["first_srcc"]) == record_of(three, "first", "good").srcc
    assert (lines["half"]["third_srcc"], lines["half"]["mean_srcc"]) == ("", "")
    assert lines["seen"]["second_marks"] == "seen"
    assert lines["good"]["mean_plcc"] == repr(the(found, "good").mean["plcc"])


def test_intervals_are_shown_on_request(three: Path) -> None:
    found = shown(three)
    cell = the(found, "good").cells[0]
    assert cell is not None
    low, high = cell.ci["srcc"] or (0.0, 0.0)
    ends = f"[{low:.3f}, {high:.3f}]".replace("0.", ".")
    for form in (matrix_text.terminal, matrix_text.markdown, latex.matrix_table):
        assert ends not in form(found)
        assert ends in form(found, intervals=True)
        assert "rackets: 95" in form(found, intervals=True)


def test_other_figures_may_be_chosen_and_an_unknown_one_lists_them(three: Path) -> None:
    found = shown(three, figures=("krcc",))
    assert "KRCC" in matrix_text.terminal(found)
    assert "PLCC" not in matrix_text.terminal(found)
    with pytest.raises(UsageError, match=r"no column kroc.*did you mean 'krcc'"):
        latex.chosen_columns(["kroc"], latex.FIGURES)


def heads_and_cells(table: str) -> tuple[list[str], list[list[str]]]:
    body = table[table.index(r"\toprule") : table.index(r"\bottomrule")]
    head, _, rows = body.partition(r"\midrule")
    lines = [re.split(r"(?<!\\) & ", line.removesuffix(r" \\")) for line in rows.strip().splitlines()]
    return re.split(r"(?<!\\) & ", head.splitlines()[1].removesuffix(r" \\")), lines


def test_a_range_never_stands_under_a_head_that_says_interval(tmp_path: Path) -> None:
    make(tmp_path, "metric")
    for seed in (0, 1, 2):
        make(tmp_path, "net", trained=True, seed=seed)
    repeated(tmp_path, "split")
    tables = latex.board_tables(board(leaderboard.collect([tmp_path]), "toy"))
    kinds = set()
    for table in tables:
        heads, rows = heads_and_cells(table)
        for row in rows:
            assert len(row) == len(heads)
            for head, cell in zip(heads, row, strict=True):
                kinds |= {"range"} if " to " in cell else {"interval"} if "[" in cell else set()
                assert ("[" in cell) <= (head == r"95\% interval"), (head, cell)
                assert (" to " in cell) <= (head == "range"), (head, cell)
    assert kinds == {"range", "interval"}


def test_the_dataset_is_in_caption_and_label_and_columns_are_chosen(tmp_path: Path) -> None:
    make(tmp_path, "psnr", dataset="my_set")
    (table,) = latex.board_tables(board(leaderboard.collect([tmp_path]), "my_set"), ("rank", "plcc", "references"))
    assert r"\label{tab:my-set-held-out}" in table
    assert re.search(r"\\caption\{My\\_set images", table)
    heads, rows = heads_and_cells(table)
    assert heads == ["Model", "Rank", "PLCC", r"95\% interval", "References"]
    assert rows[-1][-1] == "12" or rows[0][-1] == "12"
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert table.count(rule) == 1


def test_every_line_of_a_matrix_has_as_many_cells_as_columns(three: Path) -> None:
    table = latex.matrix_table(shown(three), intervals=True)
    body = table[table.index(r"\toprule") : table.index(r"\bottomrule")].splitlines()[1:]
    lines = [line for line in body if line.startswith("\\cmidrule") is False and line != r"\midrule"]
    wide = [sum(int(n) for n in re.findall(r"multicolumn\{(\d)\}", line)) or line.count(" & ") for line in lines]
    assert wide == [2 * (len(SETS) + 3)] * (2 + len(shown(three).rows))
    assert "Marks: a: seen" in table


def test_a_whole_document_of_boards_and_matrix_compiles(three: Path, tmp_path: Path) -> None:
    tables = [t for name in SETS for t in latex.board_tables(board(leaderboard.collect([three]), name), intervals=True)]
    compiled(latex.document([*tables, latex.matrix_table(shown(three), intervals=True)]), tmp_path)


@pytest.mark.parametrize("name", ["a_b&c%$#{}~^\\", "[x] *y", "*starred", "<a|b>", "é ß Œ", "中文 σ ð", '"quoted" --- dash'])
def test_any_name_compiles(name: str, tmp_path: Path) -> None:
    make(tmp_path, "psnr")
    shown_board = board(leaderboard.collect([tmp_path]), "toy")
    (group,) = shown_board.groups
    row = next(row for row in group.rows if row.kind == "measured")
    changed = type(group)(**{**vars(group), "rows": (*group.rows, type(row)(**{**vars(row), "name": name, "key": "0" * 16}))})
    compiled(latex.document(latex.board_tables(type(shown_board)(**{**vars(shown_board), "groups": (changed,)}))), tmp_path)
