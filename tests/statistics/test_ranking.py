"""Real scores of published metrics through the whole path: nine score files, nine records, one leaderboard with groups."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "ranking.py"


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPT.is_file(), reason="only a checkout has the benchmarks")
def test_nine_score_files_give_the_published_table_and_its_best_group(shared: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("ranking", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ranking"] = module
    spec.loader.exec_module(module)
    source = module.SOURCES["csiq"]
    group = module.board_of(source, shared / "data" / "crossval", tmp_path)
    assert module.wrong(source, group) == []
    assert [row.rank for row in group.rows] == list(range(1, 10))
    assert {row.name: row.best for row in group.rows if row.best} == {
        "DSSIM": ("srcc", "plcc", "krcc", "main"),
        "SSIMULACRA": ("plcc",),
        "Butteraugli": ("plcc",),
    }
    assert all(row.marks == () for row in group.rows)
    wrong = module.Source(**{**vars(source), "published": {"DSSIM": (".804", ".946", ".793")}})
    assert module.wrong(wrong, group) == ["csiq, DSSIM, plcc: published .804, ours .803"]
