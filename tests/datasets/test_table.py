from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import write_table

from harness.cards.loading import find_dataset
from harness.cards.schema import Protocol
from harness.datasets import load_dataset, splits
from harness.datasets.table import complete, read_csv, require_files, table_hash
from harness.runtime.errors import UsageError


def csv(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_of_pairs_becomes_a_dataset_with_paths_next_to_it(tmp_path: Path):
    data = load_dataset(str(write_table(tmp_path / "with space é")))
    assert len(data.table) == 36
    assert data.table["reference_id"].nunique() == 6
    assert all(Path(p).is_file() for p in data.table["distorted"])
    assert data.protocol()[0] == "full"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separators_line_ends_marks_and_a_missing_last_newline_do_not_matter(tmp_path: Path, separator: str, end: str):
    rows = [["distorted", "reference", "score"], ["a.png", "r.png", "1"], ["b.png", "r.png", "2.5"]]
    text = "\ufeff" + end.join(separator.join(row) for row in rows)
    frame = read_csv(csv(tmp_path / "t.csv", text))
    assert list(frame["score"]) == [1.0, 2.5]
    assert list(frame["name"]) == ["a.png", "b.png"]
    assert list(frame["reference_id"]) == ["r", "r"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("distorted,reference,score\n", "no rows"),
        ("distorted,referense,score\na,b,1\n", "missing columns reference; did you mean 'referense'"),
        ("distorted,reference,score\na,r,1\na,r,2\n", "names occur more than once: a"),
        (
            "distorted,reference,score\na,r,1\nb,r,nan\nc,r,x\nd,r,inf\n",
            "not a finite number in 3 rows: line 3 .* line 4 .* line 5",
        ),
        ("distorted,reference,score\na,r,2\nb,r,2\n", "agreement with a constant is not defined"),
        ("distorted,reference,score\na,r,2\nb,r\n", "fewer cells in lines 3"),
        ("distorted,reference,score,score\na,r,2,2\n", "repeated column names"),
        ("distorted,reference,score\na,x/r.png,2\nb,y/r.png,3\n", "add a reference_id column"),
        ("distorted,reference,score\n,r,2\nb,,3\n", "empty distorted in lines 2"),
    ],
)
def test_a_bad_table_gets_one_clear_message(tmp_path: Path, text: str, words: str):
    with pytest.raises(UsageError, match=words):
        read_csv(csv(tmp_path / "t.csv", text))


def test_missing_images_are_all_listed_up_to_twenty_and_counted(tmp_path: Path):
    rows = "\n".join(f"d{i}.png,r.png,{i}" for i in range(30))
    frame = read_csv(csv(tmp_path / "t.csv", f"distorted,reference,score\n{rows}\n"))
    with pytest.raises(UsageError, match="31 of 31 images are missing") as caught:
        require_files(frame, "t")
    assert str(caught.value).endswith("and 11 more")


@settings(max_examples=60)
@given(st.text(alphabet=st.sampled_from('abc,;"\n\r\t0189.-e '), max_size=120))
def test_any_text_is_a_table_or_a_bad_request(tmp_path_factory: pytest.TempPathFactory, text: str):
    path = tmp_path_factory.mktemp("fuzz") / "t.csv"
    path.write_text("distorted,reference,score\n" + text, encoding="utf-8", newline="")
    try:
        frame = read_csv(path)
    except UsageError:
        return
    assert frame["name"].is_unique
    assert frame["score"].notna().all()


def frame(references: int, per: int = 4) -> pd.DataFrame:
    rows = [
        {
            "name": f"{r}_{i}",
            "distorted": "d",
            "reference": f"{r}",
            "reference_id": f"{r}",
            "distortion": f"k{i % 2}",
            "score": i + r / 100,
        }
        for r in range(references)
        for i in range(per)
    ]
    return complete(pd.DataFrame(rows), "test")


@pytest.mark.parametrize("split", ["hash", "random"])
def test_a_split_keeps_each_reference_in_one_part(split):
    counts = (6, 2, 2) if split == "hash" else (0.6, 0.2, 0.2)
    protocol = Protocol(split=split, train=counts[0], validation=counts[1], test=counts[2], salt="s/")
    rows = frame(10)
    parts = splits.split(rows, protocol)
    assert parts.groupby(rows["reference_id"]).nunique().max() == 1
    assert parts.value_counts().to_dict() == {"train": 24, "validation": 8, "test": 8}


def test_held_out_kinds_are_tested_only_and_never_trained_on():
    rows = frame(10)
    parts = splits.split(rows, Protocol(split="hash", train=6, validation=2, test=2, held_out_kinds=("k1",)))
    assert set(rows["distortion"][parts == "test"]) == {"k1"}
    assert set(rows["distortion"][parts.isin(["train", "validation"])]) == {"k0"}


def test_repeats_differ_and_repeat_themselves():
    rows, protocol = frame(20), Protocol(split="random", train=0.6, validation=0.2, test=0.2, repeats=3)
    drawn = [splits.split_hash(rows, splits.split(rows, protocol, repeat=r)) for r in (0, 1, 2, 0)]
    assert len(set(drawn)) == 3
    assert drawn[0] == drawn[3]
    assert drawn[0] != splits.split_hash(rows, splits.split(rows, protocol, seed=1))


def test_a_hash_split_of_another_number_of_references_is_refused():
    with pytest.raises(UsageError, match="part of it missing"):
        splits.split(frame(9), Protocol(split="hash", train=6, validation=2, test=2))


def test_a_reference_in_two_parts_of_a_table_is_refused():
    rows = frame(3)
    rows["part"] = ["train", "test"] * 6
    with pytest.raises(UsageError, match="more than one part"):
        splits.split(rows, Protocol(split="parts"))


def test_hashes_ignore_the_order_of_rows_and_see_labels_names_and_pairing():
    rows = frame(5)
    assert table_hash(rows) == table_hash(rows.sample(frac=1, random_state=1))
    for column, value in (("score", 9.5), ("name", "x"), ("reference_id", "x")):
        changed = rows.copy()
        changed.loc[3, column] = value
        assert table_hash(changed) != table_hash(rows)


def test_pipal_local_split_is_the_documented_rule():
    import hashlib

    protocol = Protocol(split="hash", salt="pipal-local/", train=160, validation=20, test=20)
    rows = frame(200, per=1)
    order = sorted((str(i) for i in range(200)), key=lambda r: hashlib.sha256(f"pipal-local/{r}".encode()).hexdigest())
    parts = splits.split(rows, protocol)
    assert set(rows["reference_id"][parts == "test"]) == set(order[180:])


def test_the_demo_card_has_both_protocols():
    assert set(find_dataset("demo").protocols) >= {"held-out-references", "held-out-kinds"}
