"""Hashes in records over the rows of a table, and figures, which do not depend on how the rows are held or ordered."""

from __future__ import annotations

import math
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make, table_of, typed

from harness.datasets import Dataset
from harness.datasets.splits import split_hash
from harness.datasets.table import table_hash
from harness.engine.content import pictures_by_reference
from harness.engine.measure import figures_stamp, measured
from harness.files.atomic import sha256_json
from harness.files.score_table import scores_hash
from harness.results.run_scores import ScoreFile

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=4)
ROWS = st.dictionaries(
    NAMES,
    st.tuples(
        st.sampled_from(["a", "b", "\ufb01", "\U0001f600"]), st.floats(allow_infinity=False), st.sampled_from(["test", ""])
    ),
    min_size=1,
    max_size=6,
)


@given(rows=ROWS)
def test_hashes_over_columns_are_those_of_the_sorted_rows(rows: dict[str, tuple[str, float, str]]):
    ids, scores, parts = (list(column) for column in zip(*rows.values(), strict=True))
    table = pd.DataFrame({"name": list(rows), "reference_id": ids, "score": scores, "distortion": ids, "level": scores})
    labels = {name: None if math.isnan(score) else score for name, score in zip(rows, scores, strict=True)}
    ordered = sorted(rows)
    assert table_hash(table) == sha256_json([[n, "", rows[n][0], labels[n]] for n in ordered])
    assert split_hash(table, pd.Series(parts)) == sha256_json([[n, rows[n][2]] for n in ordered if rows[n][2]])
    assert scores_hash(table) == sha256_json([[n, repr(rows[n][1])] for n in ordered])
    with_images = table.assign(distorted=table["name"], reference=[f"x/{i}.PNG" for i in ids])
    files = {n: unicodedata.normalize("NFC", f"{rows[n][0]}.PNG").casefold() for n in rows}
    assert table_hash(with_images) == sha256_json([[n, files[n], rows[n][0], labels[n]] for n in ordered])
    pictures = pd.DataFrame([(n, n * 2, "r") for n in rows], columns=list(ScoreFile.PICTURES))
    expected = {i: sha256_json([[n, n * 2, "r"] for n in ordered if rows[n][0] == i])[:16] for i in sorted(set(ids))}
    assert list(pictures_by_reference(table, pictures).items()) == list(expected.items())


def test_the_stamp_of_figures_is_a_hash_of_their_columns_in_order_of_names(tmp_path: Path):
    _, document = make(tmp_path)
    table = table_of(12).assign(raters=[None if n % 7 == 0 else 20.0 for n in range(180)])[::-1]
    data: Any = Dataset(typed(document).cards.dataset, table)
    columns = [c for c in ("name", "std", "raters", "distortion", "level", "pair") if c in table]
    values = [[None if v != v else v for v in row] for row in table[columns].astype(object).to_numpy().tolist()]
    used: dict[str, Any] = {"columns": columns, "rows": sorted(values, key=lambda row: str(row[0])), "raters": data.card.raters}
    used |= {"deviation": data.card.deviation} if "std" in columns else {}
    assert figures_stamp(data, table)["columns"] == sha256_json([used, list(data.card.controls)])[:16]


def test_figures_and_their_stamp_do_not_depend_on_the_order_of_rows(tmp_path: Path):
    _, document = make(tmp_path, noise=0.5)
    record, table = typed(document), table_of(12)
    data: Any = Dataset(record.cards.dataset, table)
    scores = table[["name"]].assign(score=np.sin(np.arange(len(table))))
    mixed = scores.sample(frac=1, random_state=0)
    one, other = (measured(record.cards.model, data, given) for given in (scores, mixed))
    assert one is not None
    assert other is not None
    assert one.figures["n"] == other.figures["n"] == len(table)
    for name in ("srcc", "krcc"):
        assert abs(one.figures[name] - other.figures[name]) < 1e-12
    assert figures_stamp(data, table) == figures_stamp(data, table.sample(frac=1, random_state=1))
    assert measured(record.cards.model, data, scores[:0]) is None
