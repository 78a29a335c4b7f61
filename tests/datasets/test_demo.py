"""The demonstration dataset: its images, its labels, and their cache."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.cards import loading
from harness.cards.loading import find_dataset
from harness.cards.plugins import resolve
from harness.cards.schema import DatasetCard
from harness.datasets import demo
from harness.datasets.demo import distortions
from harness.datasets.splits import split
from harness.imaging import decode
from harness.runtime.errors import RunError, UsageError

REFERENCES = ("coffee", "rocket")
KINDS = ("gaussian_blur", "white_noise", "jpeg", "mean_shift")
PAIRS = 2 * (4 * 5 - 2)


@pytest.fixture(scope="module")
def card() -> DatasetCard:
    return find_dataset("demo")


def small(card: DatasetCard, root: Path, progress: demo.Progress | None = None) -> pd.DataFrame:
    return demo.read(card, root, progress, references=REFERENCES, kinds=KINDS)


def files(root: Path) -> dict[str, tuple[int, bytes]]:
    """Time of last change and content of every image under `root`."""
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(root.rglob("*.bmp"))}


def content(root: Path) -> dict[str, bytes]:
    return {name: data for name, (_, data) in files(root).items()}


@pytest.fixture(scope="module")
def made(card: DatasetCard, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    small(card, root)
    return root


@pytest.fixture
def cache(made: Path, tmp_path: Path) -> Path:
    """A copy of a finished cache, to be damaged."""
    shutil.copytree(made, tmp_path / "cache")
    return tmp_path / "cache"


def worker(root: Path) -> subprocess.Popen[str]:
    """A process that makes the small set under `root` and says how far it is."""
    code = f"""if True:
        from pathlib import Path
        from harness.cards import loading
        from harness.datasets import demo
        table = demo.read(
            loading.find_dataset("demo"), Path({str(root)!r}),
            lambda done, total: print(done, total, flush=True), references={REFERENCES!r}, kinds={KINDS!r},
        )
        print("pairs", len(table), flush=True)
    """
    here = Path(loading.__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=here)


def test_the_table_has_a_row_for_each_image(card: DatasetCard, made: Path) -> None:
    table = small(card, made)
    assert list(table) == ["name", "distorted", "reference", "reference_id", "distortion", "level", "score"]
    assert len(table) == PAIRS
    assert table["name"].is_unique
    assert table["level"].dtype == np.int64
    assert table["score"].dtype == np.float64
    row = table[table["name"] == "rocket_jpeg_2.bmp"].iloc[0]
    assert (row["reference_id"], row["distortion"], row["level"], row["score"]) == ("rocket", "jpeg", 2, 4.246)
    assert os.path.isabs(row["distorted"])
    assert (decode.read(row["reference"]) == demo.reference_image("rocket")).all()
    expected = distortions.distort(demo.reference_image("rocket"), "jpeg", 2, "rocket")
    assert (decode.read(row["distorted"]) == expected).all()


def test_rows_of_a_reference_lie_together_in_the_order_of_kinds_and_levels(card: DatasetCard, made: Path) -> None:
    table = small(card, made)
    order = [
        (r, distortions.KINDS.index(k), v) for r, k, v in zip(table.reference_id, table.distortion, table.level, strict=True)
    ]
    assert order == sorted(order)


def test_pairs_that_equal_their_reference_are_dropped_and_never_written(card: DatasetCard, made: Path) -> None:
    names = set(small(card, made)["name"])
    gone = {f"{r}_{cell}.bmp" for r in REFERENCES for cell in ("gaussian_blur_1", "mean_shift_3")}
    assert not gone & (names | set(content(made)))
    assert {n for r in REFERENCES for n in (f"{r}_gaussian_blur_2.bmp", f"{r}_mean_shift_2.bmp")} < names


def test_a_pair_that_differs_by_one_grey_level_is_dropped(
    card: DatasetCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_pixel(image: np.ndarray, kind: str, level: int, seed_name: str) -> np.ndarray:
        result = image.astype(int)
        # Levels 1 to 3 differ by at most one grey level, 4 and 5 by two in a single sample.
        result[3, 4, 1] += (2 if level > 3 else level % 2) * (1 if result[3, 4, 1] < 128 else -1)
        return result.astype(np.uint8)

    monkeypatch.setattr(distortions, "distort", one_pixel)
    table = demo.read(card, tmp_path, references=["wine"], kinds=["jitter"])
    assert list(table["level"]) == [4, 5]


def test_labels_are_the_means_of_the_packaged_table_and_higher_is_better(card: DatasetCard, made: Path) -> None:
    table = small(card, made)
    assert card.higher_is_better
    assert card.label == "prior_dmos"
    cells = table.groupby(["distortion", "level"])["score"].agg(["nunique", "first"])
    assert (cells["nunique"] == 1).all()
    assert cells["first"].to_dict() == {(kind, level): demo.priors()[kind][level - 1] for kind, level in cells.index}
    worst, best = card.label_range or (0, 0)
    assert all(worst <= value <= best for means in demo.priors().values() for value in means)
    assert all(demo.priors()[kind][4] < demo.priors()[kind][0] for kind in ("gaussian_blur", "white_noise", "jpeg"))


def test_the_labels_are_those_of_the_real_database(shared: Path) -> None:
    scores = pd.read_csv(shared / "data" / "labels" / "pyiqa_KADID10k.csv")
    cell = scores["dist_name"].str.extract(r"I\d+_(\d+)_(\d+)").astype(int)
    means = scores["dmos"].groupby([cell[0], cell[1]]).mean()
    for (kind, level), mean in means.items():
        assert demo.priors()[distortions.KINDS[kind - 1]][level - 1] == pytest.approx(mean, abs=0.001)


def test_a_second_reading_makes_nothing_and_is_fast(card: DatasetCard, made: Path) -> None:
    before = files(made)
    calls: list[tuple[int, int]] = []
    began = time.process_time()
    table = small(card, made, lambda *c: calls.append(c))
    assert time.process_time() - began < 0.3
    assert not calls
    assert len(table) == PAIRS
    assert files(made) == before


def test_progress_counts_every_image_in_the_callers_thread(card: DatasetCard, tmp_path: Path) -> None:
    import threading

    calls = []
    demo.read(
        card, tmp_path, lambda *c: calls.append((c, threading.current_thread())), references=["wine"], kinds=["darken", "jpeg"]
    )
    assert calls == [((i, 10), threading.main_thread()) for i in range(1, 11)]


def test_missing_and_truncated_images_are_made_again_and_no_others(card: DatasetCard, cache: Path) -> None:
    before = files(cache)
    (folder,) = cache.glob("demo-*")
    (folder / "distorted" / "coffee_jpeg_3.bmp").unlink()
    (folder / "distorted" / "rocket_white_noise_1.bmp").write_bytes(b"BM")
    (folder / "references" / "rocket.bmp").write_bytes(b"")
    calls: list[tuple[int, int]] = []
    small(card, cache, lambda *c: calls.append(c))
    assert calls == [(1, 2), (2, 2)]
    assert content(cache) == {name: data for name, (_, data) in before.items()}
    changed = {name for name, (changed, _) in files(cache).items() if changed != before[name][0]}
    assert changed == {"coffee_jpeg_3.bmp", "rocket_white_noise_1.bmp", "rocket.bmp"}


@pytest.mark.parametrize("damage", [None, "", "{}", "[1]", '{"dropped": [1]}', '{"dropped": {"x": null}}', "\0\1"])
def test_a_lost_or_damaged_manifest_costs_only_the_dropped_pairs(card: DatasetCard, cache: Path, damage: str | None) -> None:
    before = files(cache)
    (manifest,) = cache.glob("demo-*/manifest.json")
    good = manifest.read_bytes()
    if damage is None:
        manifest.unlink()
    else:
        manifest.write_text(damage)
    calls: list[tuple[int, int]] = []
    assert len(small(card, cache, lambda *c: calls.append(c))) == PAIRS
    assert len(calls) == 4
    assert files(cache) == before
    assert manifest.read_bytes() == good


@pytest.mark.slow
def test_a_killed_generation_is_taken_up_where_it_stopped(card: DatasetCard, made: Path, tmp_path: Path) -> None:
    process = worker(tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("12 "):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not list(tmp_path.glob("demo-*/manifest.json"))
    before = files(tmp_path)
    calls: list[tuple[int, int]] = []
    assert len(small(card, tmp_path, lambda *c: calls.append(c))) == PAIRS
    assert 4 <= len(calls) <= 40 - 8
    assert content(tmp_path) == content(made)
    assert {name: files(tmp_path)[name] for name in before} == before


@pytest.mark.slow
def test_two_processes_at_once_end_with_the_same_images(made: Path, tmp_path: Path) -> None:
    processes = [worker(tmp_path), worker(tmp_path)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all(f"pairs {PAIRS}\n" in output for output in outputs)
    assert content(tmp_path) == content(made)
    assert not list(tmp_path.rglob("*.tmp"))


def test_what_a_killed_process_left_behind_is_removed_after_an_hour(card: DatasetCard, cache: Path) -> None:
    (folder,) = cache.glob("demo-*/distorted")
    old, new = folder / ".old.bmp.1.tmp", folder / ".new.bmp.2.tmp"
    for path, age in ((old, 4000), (new, 60)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    small(card, cache)
    assert not old.exists()
    assert new.exists()


def test_other_images_go_to_another_folder(card: DatasetCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo.read(card, tmp_path, references=["wine"], kinds=["darken"])
    monkeypatch.setattr(distortions, "VERSION", distortions.VERSION + 1)
    calls: list[tuple[int, int]] = []
    demo.read(card, tmp_path, lambda *c: calls.append(c), references=["wine"], kinds=["darken"])
    assert len(calls) == 5
    assert len(list(tmp_path.glob("demo-*"))) == 2


def test_without_a_root_the_cache_is_where_the_environment_says(
    card: DatasetCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    table = demo.read(card, None, references=["wine"], kinds=["darken"])
    assert Path(table["distorted"][0]).is_relative_to(tmp_path / "mine" / "harness")
    monkeypatch.delenv("HARNESS_CACHE")
    assert demo.cache_folder() == tmp_path / "xdg" / "harness"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert demo.cache_folder().is_relative_to(Path.home())


def test_a_cache_that_cannot_be_written_is_a_fault_that_names_the_way_out(card: DatasetCard, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        RunError, match=r"file.*cannot be written: Not a directory; name another folder .*--root, \$HARNESS_CACHE"
    ):
        small(card, tmp_path / "file")


def test_unknown_references_and_kinds_of_a_users_card_are_named(card: DatasetCard, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no reference called 'rockett'; did you mean 'rocket'"):
        demo.read(card, tmp_path, references=["rockett"])
    with pytest.raises(UsageError, match="no kind called 'blur'"):
        demo.read(card, tmp_path, kinds=["blur", "jpeg"])
    assert not list(tmp_path.iterdir())


def test_the_packaged_references_are_thirteen_colour_images_with_a_notice_each() -> None:
    folder = Path(demo.__file__).parent / "data"
    notice = (folder / "NOTICE.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line for line in notice.splitlines() if line.startswith("|") and ".webp" in line}
    assert set(rows) == {path.name for path in folder.glob("*.webp")}
    assert len(rows) == 13
    for row in rows.values():
        licence = row.split("|")[-2].strip()
        assert f"{licence}: https://creativecommons.org/" in notice
    assert "**downscaled**" in notice
    assert "cropped" in notice
    for reference in demo.reference_ids():
        image = demo.reference_image(reference)
        assert image.shape == (demo.SIDE, demo.SIDE, 3)
        assert np.ptp(image.astype(int), axis=2).mean() > 5, f"{reference} has no colour"


def test_the_packaged_references_are_the_images_that_were_chosen(shared: Path) -> None:
    for reference in demo.reference_ids():
        original = decode.read(shared / "data" / "demo-references" / f"{reference}.png")
        assert (demo.reference_image(reference) == original).all()


def test_the_packaged_labels_say_where_they_come_from() -> None:
    text = (Path(demo.__file__).parent / "data" / "kadid_cell_means.csv").read_text(encoding="utf-8")
    head = "".join(line for line in text.splitlines() if line.startswith("#"))
    assert "KADID-10k" in head
    assert "Lin" in head
    assert "higher is better" in head
    rows = list(csv.reader(line for line in text.splitlines() if not line.startswith("#")))
    assert rows[0] == ["distortion", "1", "2", "3", "4", "5"]


def every_pair() -> pd.DataFrame:
    """The whole table's columns that splits look at, without images."""
    rows = [(r, k, v) for r in demo.reference_ids() for k in distortions.KINDS for v in range(1, 6)]
    return pd.DataFrame(rows, columns=["reference_id", "distortion", "level"]).assign(part="")


def test_the_card_holds_out_references_and_in_the_headline_kinds_as_well(card: DatasetCard) -> None:
    table = every_pair()
    parts = split(table, card.protocols["held-out-references"])
    by_reference = parts.groupby(table["reference_id"]).unique()
    assert all(len(found) == 1 for found in by_reference)
    assert by_reference.map(lambda found: found[0]).value_counts().to_dict() == {"train": 7, "validation": 2, "test": 4}
    headline = split(table, card.protocols["held-out-kinds"])
    tested = set(table["distortion"][headline == "test"])
    assert tested == {"lens_blur", "multiplicative_noise", "jpeg2000", "color_diffusion", "pixelate"}
    assert not tested & set(table["distortion"][headline.isin(["train", "validation"])])
    assert set(table["reference_id"][headline == "test"]) == set(table["reference_id"][parts == "test"])


def test_the_card_says_that_it_is_a_demonstration_and_whose_means_the_labels_are(card: DatasetCard) -> None:
    assert "a demonstration" in card.note
    assert "KADID-10k's mean per kind and level, not per-image opinions" in card.note
    assert card.controls == ("cell", "level")
    assert card.default_protocol == "held-out-references"
    assert resolve(card.reader, card.path) is demo.read


@pytest.fixture(scope="module")
def whole(card: DatasetCard, tmp_path_factory: pytest.TempPathFactory) -> Iterator[pd.DataFrame]:
    root = tmp_path_factory.mktemp("whole")
    yield demo.read(card, root)
    # 400 MB that pytest would keep for three sessions.
    shutil.rmtree(root)


@pytest.mark.slow
def test_no_pair_of_the_whole_demonstration_equals_its_reference(card: DatasetCard, whole: pd.DataFrame) -> None:
    assert len(whole) == card.pairs == 1586
    assert whole["reference_id"].nunique() == card.references == 13
    present = set(zip(whole["distortion"], whole["level"], strict=True))
    every = {(kind, level) for kind in distortions.KINDS for level in range(1, 6)}
    assert every - present == {("gaussian_blur", 1), ("mean_shift", 3), ("color_saturation_2", 1)}
    for path, pairs in whole.groupby("reference"):
        reference = decode.read(str(path)).astype(np.int16)
        for name, distorted in zip(pairs["name"], pairs["distorted"], strict=True):
            assert np.abs(decode.read(distorted) - reference).max() > 1, name


@pytest.mark.slow
def test_the_whole_demonstration_is_listed_fast(card: DatasetCard, whole: pd.DataFrame) -> None:
    root = Path(whole["distorted"][0]).parents[2]
    began = time.process_time()
    assert demo.read(card, root).equals(whole)
    assert time.process_time() - began < 0.3
