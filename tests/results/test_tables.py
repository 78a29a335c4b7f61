"""Tables of results in a narrow terminal: no line is wider than it, and no mark is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from record_factory import PUBLISHED, make, typed

from harness.results import tables
from harness.results.published import compare_published, published_table

NAMES = ("net", "a-network-with-a-name-of-more-than-forty-characters-in-all")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Results of a model that was trained on the dataset, and of one with a long name that was scored in part."""
    folder = tmp_path_factory.mktemp("runs")
    made = [make(folder, NAMES[0], noise=0.5, seen=True), make(folder, NAMES[1], noise=1.0, limit=40)]
    return [tables.result(place, typed(record)) for place, record in made]


def table_of(text: str) -> list[str]:
    """The lines from the header to the blank line below the rows."""
    lines = text.split("\n")
    start = next(n for n, line in enumerate(lines) if set(line) == {"-", " "}) - 1
    return lines[start : next((n for n in range(start, len(lines)) if not lines[n]), len(lines))]


@pytest.mark.parametrize("width", [50, 60, 80, 100, 120])
def test_the_table_of_a_run_fits(results: list[dict[str, Any]], width: int):
    lines = table_of(tables.run_table(results, width))
    assert max(map(len, lines)) <= width
    assert lines[0].split()[:2] == ["model", "SRCC"]
    assert lines[2].startswith("net ")
    assert lines[3].startswith("a-network-with-a-name-")


def test_marks_without_room_are_reported_below_the_table(results: list[dict[str, Any]]):
    full, narrow = tables.run_table(results), tables.run_table(results, 80)
    assert "marks" in table_of(full)[0]
    assert "marks" not in table_of(narrow)[0]
    below = narrow[narrow.index("(no room for") :]
    assert "net: seen: its weights were trained on this dataset" in below
    assert f"{NAMES[1]}: partial" in below
    assert "net: seen" not in full


def test_columns_leave_from_the_least_important_one(results: list[dict[str, Any]]):
    kept = {width: table_of(tables.run_table(results, width))[0] for width in range(50, 200, 5)}
    for header in ("SRCC", "main"):
        assert all(header in heads for width, heads in kept.items() if width >= 60), header
    first = {name: min(width for width, heads in kept.items() if name in heads) for name in ("main", "PLCC", "KRCC", "pairs/s")}
    assert list(first.values()) == sorted(first.values())


@pytest.mark.parametrize("width", [60, 80])
def test_published_figures_next_to_ours_fit(tmp_path: Path, width: int):
    _, record = make(tmp_path, NAMES[1], published=PUBLISHED, protocol="held-out")
    found = compare_published(typed(record))
    assert found
    assert max(map(len, table_of(published_table(found, width)))) <= width
