"""Miniature trees of every real dataset's layout: the archives' own names, quirks and label files, with tiny generated images.

`TREES[name](root)` builds one. All images of a reference are the reference plus noise that grows with the level, and
labels follow the noise, so direction, pairing and order can be checked. Nothing here comes from the datasets.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image
from scipy.io import savemat

from harness.cards.loading import find_dataset

HEIGHT, WIDTH = 12, 16


def generator(*words: object) -> np.random.Generator:
    digest = hashlib.blake2b("|".join(map(str, words)).encode(), digest_size=8).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def still(name: str, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A reference: coarse random blocks with fine texture, unlike any other."""
    rng = generator("still", name)
    coarse = rng.integers(30, 226, (4, 4, 3)).astype(float)
    big = np.kron(coarse, np.ones((-(-height // 4), -(-width // 4), 1)))[:height, :width]
    return np.clip(big + rng.normal(0, 4, big.shape), 0, 255).astype(np.uint8)


def noisy(pixels: np.ndarray, strength: float, *words: object) -> np.ndarray:
    return np.clip(pixels + generator(*words).normal(0, strength, pixels.shape), 0, 255).astype(np.uint8)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".bmp":
        path.write_bytes(bmp(pixels))
    else:
        Image.fromarray(pixels).save(path, compress_level=1)


def bmp(pixels: np.ndarray) -> bytes:
    """A 24-bit BMP, by hand: Pillow takes four times as long."""
    height, width = pixels.shape[:2]
    row = width * 3
    pad = -row % 4
    rows = np.zeros((height, row + pad), np.uint8)
    rows[:, :row] = pixels[::-1, :, ::-1].reshape(height, row)
    head = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54 + rows.size, 0, 0, 54, 40, width, height, 1, 24, 0, rows.size, 0, 0, 0, 0)
    return head + rows.tobytes()


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())


# Trees


def tid(root: Path, kinds: Sequence[int] = (1, 11, 13, 18), levels: int = 5) -> None:
    """reference_images/I01.BMP, i25.bmp; distorted_images of mixed case; CRLF lists that spell names differently."""
    lines, scores, deviations = [], [], []
    for number in (1, 2, 3, 4, 25):
        pixels = still(f"kodim{number}")
        write(root / "reference_images" / ("i25.bmp" if number == 25 else f"I{number:02d}.BMP"), pixels)
        for kind in kinds:
            for level in range(1, levels + 1):
                capital = kind in (1, 11, 13) and level == 1
                name = f"{'I' if capital else 'i'}{number:02d}_{kind:02d}_{level}"
                write(root / "distorted_images" / f"{name}.bmp", noisy(pixels, 6 * level, name.lower()))
                score = 7 - level - 0.01 * kind - 0.001 * number
                listed = f"{name}.BMP" if capital and kind in (11, 13) else f"{name}.bmp"
                lines.append(f"{score:.5f} {listed}")
                scores.append(f"{score:.5f}")
                deviations.append(f"{0.1 + 0.001 * level:.5f}")
    text(root / "mos_with_names.txt", "\r\n".join(lines) + "\r\n")
    text(root / "mos.txt", "\r\n".join(scores) + "\r\n")
    text(root / "mos_std.txt", "\r\n".join(deviations) + "\r\n")
    text(root / "metrics_values" / "PSNR.txt", "\n".join("30.0" for _ in lines))
    text(root / "readme", "TID\n")


def tid2013(root: Path) -> None:
    tid(root)


def tid2008(root: Path) -> None:
    tid(root, kinds=(1, 5, 11, 17), levels=4)


def kadid10k(root: Path) -> None:
    """kadid10k/images with references and distorted together; dmos.csv, higher is better, `var` a deviation."""
    lines = ["dist_img,ref_img,dmos,var"]
    for number in (1, 2, 3, 4, 81):
        pixels = still(f"kadid{number}")
        write(root / f"kadid10k/images/I{number:02d}.png", pixels)
        for kind in (1, 9, 25):
            for level in range(1, 6):
                name = f"I{number:02d}_{kind:02d}_{level:02d}.png"
                write(root / "kadid10k/images" / name, noisy(pixels, 6 * level, name))
                lines.append(f"{name},I{number:02d}.png,{5 - 0.7 * level - 0.001 * (kind + number):.3f},0.496")
    text(root / "kadid10k/dmos.csv", "\n".join(lines) + "\n")


LIVE_COUNTS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
LIVE_PRISTINE = {"jp2k": 58, "jpeg": 58, "wn": 29, "gblur": 29, "fastfading": 29}
LIVE_REFERENCES = (
    "bikes building2 buildings caps carnivaldolls cemetry churchandcapitol coinsinfountain dancers flowersonih35 "
    "house lighthouse lighthouse2 manfishing monarch ocean paintedhouse parrots plane rapids sailing1 sailing2 "
    "sailing3 sailing4 statue stream studentsculpture woman womanhat"
).split()


def live_vectors() -> dict[str, np.ndarray]:
    """The four vectors: realigned and first labels, marks of pristine copies, references' names."""
    names, realigned, first, marks = [], [], [], []
    for kind, count in LIVE_COUNTS.items():
        for i in range(count):
            reference = LIVE_REFERENCES[i % 29]
            pristine = i < LIVE_PRISTINE[kind]
            share = (i * 37 % count) / count
            names.append(f"{reference}.bmp")
            marks.append(1 if pristine else 0)
            realigned.append(0.0 if pristine else -2 + 110 * share)
            first.append(0.0 if pristine else 18 + 66 * share)
    return {
        "dmos_new": np.array([realigned]),
        "dmos": np.array([first]),
        "orgs": np.array([marks], dtype=np.uint8),
        "refnames_all": np.array([names], dtype=object),
    }


def live_mats(folder: Path, vectors: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    std = np.full_like(vectors["dmos_new"], 3.0)
    savemat(folder / "dmos_realigned.mat", {"dmos_new": vectors["dmos_new"], "dmos_std": std, "orgs": vectors["orgs"]})
    savemat(folder / "dmos.mat", {"dmos": vectors["dmos"], "orgs": vectors["orgs"]})
    savemat(folder / "refnames_all.mat", {"refnames_all": vectors["refnames_all"]})


def live(root: Path) -> None:
    """databaserelease2 with all of its 982 images (the vectors are read whole), of two sizes."""
    base = root / "databaserelease2"
    sizes = {r: (12, 16) if i % 2 else (16, 12) for i, r in enumerate(LIVE_REFERENCES)}
    stills = {r: still(r, *sizes[r]) for r in LIVE_REFERENCES}
    for reference, pixels in stills.items():
        write(base / "refimgs" / f"{reference}.bmp", pixels)
    vectors = live_vectors()
    live_mats(base, vectors)
    place = 0
    for kind, count in LIVE_COUNTS.items():
        info = []
        for number in range(1, count + 1):
            reference = str(vectors["refnames_all"][0, place])
            pixels = stills[reference[:-4]]
            if not vectors["orgs"][0, place]:
                pixels = noisy(pixels, 2 + vectors["dmos_new"][0, place] / 3, kind, number)
            write(base / kind / f"img{number}.bmp", pixels)
            info.append(f"{reference} img{number}.bmp 0.5")
            place += 1
        text(base / kind / "info.txt", "\n".join(info))
    text(base / "readme.txt", "LIVE\n")


CSIQ_KINDS = {"awgn": "AWGN", "jpeg": "JPEG", "jpeg2000": "jpeg2000", "fnoise": "fnoise", "blur": "BLUR", "contrast": "contrast"}
CSIQ_SPELT = {
    "AWGN": "noise",
    "JPEG": "jpeg",
    "jpeg2000": "jpeg 2000",
    "fnoise": "fnoise",
    "BLUR": "blur",
    "contrast": "contrast",
}


def csiq_rows() -> list[tuple[str, str, int, float]]:
    """(image, kind, level, dmos); one contrast level of elk is missing, as in the original."""
    rows = []
    for i, image in enumerate(("1600", "aerial_city", "elk", "woman", "swarm")):
        for j, kind in enumerate(CSIQ_KINDS.values()):
            levels = (
                (1, 2, 4) if (image, kind) == ("elk", "contrast") else (1, 2, 3, 4) if kind == "contrast" else (1, 2, 3, 4, 5)
            )
            rows += [(image, kind, level, round(level * 0.15 + 0.001 * i + 0.0001 * j, 4)) for level in levels]
    return rows


def csiq(root: Path, labels: str = "xlsx") -> None:
    """src_imgs and dst_imgs with folders by kind; the spreadsheet's header stands in row 4, column D."""
    for image in dict.fromkeys(row[0] for row in csiq_rows()):
        write(root / f"src_imgs/{image}.png", still(image))
    for image, kind, level, _ in csiq_rows():
        folder = next(f for f, k in CSIQ_KINDS.items() if k == kind)
        name = f"{image}.{kind}.{level}.png"
        write(root / "dst_imgs" / folder / name, noisy(still(image), 6 * level, name))
    if labels == "xlsx":
        rows: list[list[object]] = [["", "", "", "image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"]]
        rows += [["", "", "", int(i) if i.isdigit() else i, 1, CSIQ_SPELT[k], n, 0.05, d] for i, k, n, d in csiq_rows()]
        sheets = {"all_by_distortion": [["other"]], "all_by_image": [["CSIQ"], [], ["DMOS of all images"], *rows]}
        spreadsheet(root / "csiq.DMOS.xlsx", sheets)
    else:
        text(root / "csiq_label.txt", "\n".join(f"{i}.{k}.{n}.png {d:.6f}" for i, k, n, d in csiq_rows()))


def spreadsheet(path: Path, sheets: dict[str, list[list[object]]]) -> None:
    """An .xlsx with shared strings, as spreadsheet programs write them."""
    strings: dict[str, int] = {}

    def cell(column: int, row: int, value: object) -> str:
        if value == "":
            return ""
        place = f"{chr(65 + column)}{row}"
        if isinstance(value, str):
            return f'<c r="{place}" t="s"><v>{strings.setdefault(value, len(strings))}</v></c>'
        return f'<c r="{place}"><v>{value!r}</v></c>'

    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    parts = {}
    for number, rows in enumerate(sheets.values(), 1):
        body = "".join(
            f'<row r="{r}">{"".join(cell(c, r, v) for c, v in enumerate(row))}</row>' for r, row in enumerate(rows, 1) if row
        )
        parts[f"xl/worksheets/sheet{number}.xml"] = f'<worksheet xmlns="{main}"><sheetData>{body}</sheetData></worksheet>'
    entries = "".join(f'<sheet name="{n}" sheetId="{i}" r:id="rId{i}"/>' for i, n in enumerate(sheets, 1))
    parts["xl/workbook.xml"] = f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>{entries}</sheets></workbook>'
    links = "".join(f'<Relationship Id="rId{i}" Target="worksheets/sheet{i}.xml"/>' for i in range(1, len(sheets) + 1))
    parts["xl/_rels/workbook.xml.rels"] = f"<Relationships>{links}</Relationships>"
    items = "".join(f"<si><t>{escape(s)}</t></si>" for s in strings)
    parts["xl/sharedStrings.xml"] = f'<sst xmlns="{main}">{items}</sst>'
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, '<?xml version="1.0" encoding="UTF-8"?>' + content)


def _pipal_part(name: str, part: str) -> dict[str, list[str]]:
    layout = find_dataset(name).layout["parts"][part]
    return {"references": layout["references"], "types": layout["types"]}


def pipal_train_ids() -> list[str]:
    """A0000..A0249 without the references of NTIRE 2021's validation and NTIRE 2022's test."""
    others = {*_pipal_part("pipal", "ntire2021-validation")["references"], *_pipal_part("pipal-ntire2022", "test")["references"]}
    return [i for i in (f"A{n:04d}" for n in range(250)) if i not in others]


def pipal(root: Path, validation: bool = True, references: int = 200) -> None:
    """Train_Ref, four Distortion archives, Train_Label/Axxxx.txt; some labels with a space, no final newline."""
    for place, reference in enumerate(pipal_train_ids()[:references]):
        pixels = still(reference)
        write(root / "Train_Ref" / f"{reference}.bmp", pixels)
        lines = []
        for step, suffix in enumerate(("00_00", "02_03", "06_26")):
            name = f"{reference}_{suffix}.bmp"
            write(root / f"Distortion_{1 + place * 4 // references}" / name, noisy(pixels, 8 * (step + 1), name))
            lines.append(f"{name},{' ' if place % 7 == 0 else ''}{1600 - 150 * step + 0.25 * place:.4f}")
        text(root / f"Train_Label/{reference}.txt", "\n".join(lines) + ("" if place % 3 == 0 else "\n"))
    if validation:
        pictures(root / "Val_Ref", root / "Val_Dist", **_pipal_part("pipal", "ntire2021-validation"))
        test = _pipal_part("pipal-ntire2022", "test")
        pictures(root / "NTIRE2022_FR_Testing_Ref", root / "NTIRE2022_FR_Testing_Dis", **test)


def pipal_tenth(root: Path) -> None:
    pipal(root, validation=False, references=20)


def pipal_ntire2022(root: Path) -> None:
    """The four folders of the 2022 track, no labels. Validation names are made up and few: the real ones are not known."""
    test = _pipal_part("pipal-ntire2022", "test")
    pictures(root / "NTIRE2022_FR_Testing_Ref", root / "NTIRE2022_FR_Testing_Dis", **test)
    references = _pipal_part("pipal", "ntire2021-validation")["references"]
    types = [f"{i:02d}" for i in range(6)]
    pictures(root / "NTIRE2022_FR_Valid_Ref", root / "NTIRE2022_FR_Valid_Dis", references, types)


def pictures(references_folder: Path, distorted_folder: Path, references: Sequence[str], types: Sequence[str]) -> None:
    for reference in references:
        pixels = still(reference, 12, 12)
        write(references_folder / f"{reference}.bmp", pixels)
        for kind in types:
            write(distorted_folder / f"{reference}_10_{kind}.bmp", noisy(pixels, 5 + int(kind) / 4, reference, kind))


def pieapp(root: Path) -> None:
    """Three parts of images, per-image scores for the test part alone, headers with leading spaces."""
    kinds = ("gaussian_blur_custom", "jpeg", "super_resolution_x")
    for part, numbers in (("train", (0, 1)), ("val", (150,)), ("test", (160, 161, 162, 163, 164))):
        lines = ["ref image, distorted image, score for distorted image"]
        for number in numbers:
            pixels = still(f"pieapp{number}")
            write(root / f"reference_images/{part}/ref_{number}.png", pixels)
            for place, kind in enumerate(kinds * 2):
                use = "inter" if place < 3 else "intra"
                name = f"distort_{number}_{kind}_{use}_{place}.png"
                write(root / f"distorted_images/{part}/ref_{number}/{name}", noisy(pixels, 5 * (place + 1), name))
                lines.append(f"ref_{number}.png,{name},{0.3 * (place + 1) + 0.001 * number:.4f}")
            pairwise = "ref image, distorted image A, distorted image B, probability\n"
            text(root / f"labels/{part}/ref_{number}_pairwise_labels.csv", pairwise)
            if part == "test":
                lines.append(f"ref_{number}.png,ref_{number}.png,0.0")
                text(root / f"labels/{part}/ref_{number}_per_image_score.csv", "\n".join(lines) + "\n")
                lines = lines[:1]
        text(root / f"{part}_reference_list.txt", "\n".join(f"ref_{n}.png" for n in numbers))


def mdid(root: Path) -> None:
    """distortion_images, reference_images, and scores alone, in the order of the names."""
    scores = []
    for number in range(1, 6):
        pixels = still(f"mdid{number}")
        write(root / f"MDID/reference_images/img{number:02d}.bmp", pixels)
        for place in range(1, 11):
            name = f"img{number:02d}_{place:02d}.bmp"
            write(root / "MDID/distortion_images" / name, noisy(pixels, 4 * place, name))
            scores.append(f"{7.5 - 0.7 * place + 0.01 * number:.4f}")
    text(root / "MDID/mos.txt", "\n".join(scores) + "\n")
    text(root / "MDID/mos_std.txt", "\n".join("0.9" for _ in scores) + "\n")


def bapps(root: Path) -> None:
    """2afc/{train,val}/SUBSET/{ref,p0,p1,judge}; JND pairs next to them, which are not 2AFC."""
    for part, subsets in (("train", ("traditional", "cnn", "mix")), ("val", ("traditional", "superres"))):
        for subset in subsets:
            for number in range(6):
                folder = root / "dataset/2afc" / part / subset
                pixels = still(f"{part}{subset}{number}")
                write(folder / f"ref/{number:06d}.png", pixels)
                write(folder / f"p0/{number:06d}.png", noisy(pixels, 5 + 3 * number, part, subset, number, 0))
                write(folder / f"p1/{number:06d}.png", noisy(pixels, 20 - 2 * number, part, subset, number, 1))
                (folder / "judge").mkdir(exist_ok=True)
                np.save(folder / f"judge/{number:06d}.npy", np.array([[number / 5]], np.float32))
    for kind in ("p0", "p1"):
        write(root / f"dataset/jnd/val/traditional/{kind}/000000.png", still(kind))


def live_excerpt(root: Path) -> None:
    """The 54 images that the card names, and the label file of all of LIVE."""
    card = find_dataset("live-excerpt")
    names = [entry.file for entry in card.downloads[1:]]
    lines: list[str] = []
    for name in names:
        kind, _, rest = name.rpartition(".")[0].partition("_")
        reference = rest.partition("_")[0] or kind
        write(root / name, noisy(still(reference), 20, name) if rest else still(reference))
        files = card.layout["labelled_as"][name] if rest else []
        lines += [f"LIVE/{file},{kind},LIVE/refimgs/{reference}.bmp,{30 + len(lines)}" for file in files]
    lines.append("LIVE/jp2k/img2.bmp,jp2k,LIVE/refimgs/studentsculpture.bmp,15.5")
    text(root / "LIVE.txt", "\n".join(["dis_img_path,dis_type,ref_img_path,score", *lines]) + "\n")


TREES: dict[str, Callable[[Path], None]] = {
    "tid2013": tid2013,
    "tid2008": tid2008,
    "kadid10k": kadid10k,
    "live": live,
    "live-first": live,
    "live-excerpt": live_excerpt,
    "csiq": csiq,
    "pipal": pipal,
    "pipal-ntire2022": pipal_ntire2022,
    "pieapp": pieapp,
    "mdid": mdid,
    "bapps": bapps,
    "pipal, a tenth of the training set": pipal_tenth,
}


@functools.cache
def tree(name: str) -> Path:
    """The miniature of a dataset, made once a session: to be copied, not changed."""
    root = _folder() / name
    if name == "live-first":
        return tree("live")
    root.mkdir()
    TREES[name](root)
    return root


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="miniatures-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def copy(source: Path, target: Path) -> Path:
    """A tree's copy by hard links: files in it are to be replaced, never written into."""
    shutil.copytree(source, target, copy_function=os.link)
    return target


def replace(path: Path, content: bytes) -> None:
    """Put other bytes in a file's place, leaving those linked to it as they were."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)
