"""`harness score` with several models and folders, `harness codecs` and `compare --by` on tables from elsewhere."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from small import distorted, picture, write_table

Said = Callable[..., str]
ROOT = Path(__file__).resolve().parents[2]


def world(folder: Path, images: int = 3, levels: int = 4) -> None:
    for number in range(images):
        image = picture(number)
        for kind in ("noise", "fade"):
            for level in range(1, levels + 1):
                path = folder / "dist" / kind / str(level) / f"im{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(distorted(image, kind, level, number)).save(path)
        (folder / "refs").mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / "refs" / f"im{number}.png")


def spoil(path: Path) -> None:
    """Damage the pixels of a PNG and leave its header whole."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.write_bytes(data)


FOLDERS = ("--reference", "refs", "--distorted", "dist", "--pattern", "{codec}/{quality}/{name}")


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_several_models_give_the_bits_of_each_alone(tmp_path: Path, said: Said):
    world(tmp_path)
    said("score", "psnr", "ssim", "psnr-y", *FOLDERS, "--out", "s.csv", "--quiet")
    rows = read(tmp_path / "s.csv")
    fixed = ["name", "reference", "distorted", "reference_id", "codec", "quality", "bytes", "pixels"]
    assert list(rows[0]) == [*fixed, "psnr", "ssim", "psnr-y"]
    for row in rows[::7]:
        for model in ("psnr", "ssim", "psnr-y"):
            assert said("score", model, row["reference"], row["distorted"]).strip() == row[model]


NETWORK = """
import torch

class Net:
    higher_is_better = False
    def score(self, reference, distorted):
        return (reference - distorted).abs().mean((1, 2, 3))
"""


@pytest.mark.slow
def test_a_network_and_a_metric_share_a_command(tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch):
    world(tmp_path, 2, 2)
    (tmp_path / "a_net_of_i22.py").write_text(NETWORK)
    (tmp_path / "net.toml").write_text('name = "net"\ntitle = "n"\nclass = "a_net_of_i22:Net"\nhigher_is_better = false\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    said("score", "psnr", "net.toml", *FOLDERS, "--out", "s.csv", "--report", "s.html", "--quiet", "--device", "cpu")
    rows = read(tmp_path / "s.csv")
    (tmp_path / "p.csv").write_text(
        "\n".join(["name,reference,distorted", *(f"{r['name']},{r['reference']},{r['distorted']}" for r in rows)])
    )
    said("score", "net.toml", "--pairs", "p.csv", "--out", "one.csv", "--quiet", "--device", "cpu")
    assert [r["score"] for r in read(tmp_path / "one.csv")] == [r["net"] for r in rows]
    page = (tmp_path / "s.html").read_text(encoding="utf-8")
    worst = max(rows, key=lambda r: float(r["net"]))["name"]
    assert (
        page.index(worst, page.index("net (lower is better)")) < page.index("<article", page.index("net (lower is better)")) + 400
    )


def test_text_of_others_stays_text_in_the_page(tmp_path: Path, said: Said):
    world(tmp_path, 1, 1)
    (tmp_path / "dist/fade").rename(tmp_path / "dist/<script>alert(1)")
    said("score", "psnr", "ssim", *FOLDERS, "--out", "s.csv", "--report", "s.html", "--quiet")
    page = (tmp_path / "s.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_last_two_words_are_files_without_a_reference_option(tmp_path: Path, said: Said):
    world(tmp_path, 1, 1)
    text = said("score", "psnr", "ssim", "refs/im0.png", "dist/fade/1/im0.png", "--json")
    (found,) = json.loads(text)
    assert set(found["scores"]) == {"psnr", "ssim"}
    assert repr(found["scores"]["ssim"]) == said("score", "ssim", "refs/im0.png", "dist/fade/1/im0.png").strip()


@pytest.mark.parametrize("form", ["csv", "markdown", "latex", "json", "table"])
def test_every_form_holds_every_pair(tmp_path: Path, said: Said, form: str):
    world(tmp_path, 1, 2)
    text = said("score", "psnr", "ssim", *FOLDERS, "--format", form, "--quiet")
    assert text.count("im0.png") >= 4
    ending = {"csv": "csv", "markdown": "md", "latex": "tex", "json": "json", "table": "txt"}[form]
    said("score", "psnr", "ssim", *FOLDERS, "--out", f"o.{ending}", "--quiet")
    assert (tmp_path / f"o.{ending}").read_text(encoding="utf-8") == text


def test_means_are_reported_per_model_and_per_column(tmp_path: Path, said: Said):
    world(tmp_path)
    text = said("score", "psnr", "ssim", *FOLDERS, "--out", "s.csv", "--quiet")
    rows = read(tmp_path / "s.csv")
    noise = [float(row["psnr"]) for row in rows if row["codec"] == "noise"]
    (line,) = [line.split() for line in text.splitlines() if line.startswith("codec ") and "noise" in line]
    assert line[:4] == ["codec", "noise", "12", f"{sum(noise) / 12:.4f}"]


def test_other_columns_of_a_table_of_pairs_are_kept(tmp_path: Path, said: Said):
    write_table(tmp_path, references=2)
    said("score", "psnr", "ssim", "--pairs", "table.csv", "--out", "s.csv", "--quiet")
    rows = read(tmp_path / "s.csv")
    assert [(r["distortion"], r["level"], r["part"], bool(r["score"])) for r in rows[:1]] == [("noise", "1", "train", True)]
    said("score", "psnr", "--pairs", "table.csv", "--out", "one.csv", "--quiet")
    one = read(tmp_path / "one.csv")
    assert [r["score"] for r in one] == [r["psnr"] for r in rows]
    assert [r["label"] for r in one] == [r["score"] for r in rows]
    assert one[0]["distortion"] == "noise"


def test_broken_images_are_all_reported_and_what_was_scored_is_kept(tmp_path: Path, said: Said):
    world(tmp_path)
    for name in ("noise/2/im0.png", "fade/3/im1.png"):
        spoil(tmp_path / "dist" / name)
    text = said("score", "psnr", "ssim", *FOLDERS, "--out", "s.csv", "--quiet", status=2)
    assert "noise/2/im0.png" in text
    assert "fade/3/im1.png" in text
    assert "kept in s.csv.partial" in text
    assert not (tmp_path / "s.csv").exists()
    world(tmp_path)
    said("score", "psnr", "ssim", *FOLDERS, "--out", "s.csv", "--quiet")
    assert len(read(tmp_path / "s.csv")) == 24


def test_requests_that_do_not_go_together_are_refused_together(tmp_path: Path, said: Said):
    world(tmp_path, 1, 1)
    text = said("score", "psnr", "--reference", "refs", "--pairs", "t.csv", status=2)
    assert "--reference and --pairs" in text
    assert "--reference and --distorted go together" in text
    text = said("score", "nosuch", "psnr", "psnr", "alsonot", *FOLDERS, status=2)
    assert "models given twice: psnr" in text
    assert "nosuch" in text
    assert "alsonot" in text
    assert "--out x.xyz: its extension gives the format" in said("score", "psnr", *FOLDERS, "--out", "x.xyz", status=2)
    text = said("score", "psnr", "--reference", "refs", "--distorted", "dist", "--pattern", "{psnr}/{quality}/{name}", status=2)
    assert "a column and a model have the same name: psnr" in text


SLOW = """
import time
from pathlib import Path
from harness.models.psnr import PSNR

class Slow(PSNR):
    def score_uint8(self, reference, distorted):
        with open("calls", "a") as stream:
            stream.write("x")
        time.sleep(0.15)
        return super().score_uint8(reference, distorted)
"""
CARD = 'name = "slow"\ntitle = "slow"\nclass = "slow_model:Slow"\nhigher_is_better = true\nidentical = 120.0\n'


@pytest.mark.slow
def test_a_killed_command_goes_on_and_writes_the_same_bytes(tmp_path: Path):
    world(tmp_path)
    (tmp_path / "slow_model.py").write_text(SLOW)
    (tmp_path / "slow.toml").write_text(CARD)
    place = os.pathsep.join([str(ROOT), str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": place}
    words = [sys.executable, "-m", "harness", "score", "slow.toml", "ssim", *FOLDERS, "--batch", "2"]
    whole = subprocess.run([*words, "--out", "whole.csv"], cwd=tmp_path, env=environment, capture_output=True, timeout=120)
    assert whole.returncode == 0, whole.stderr
    (tmp_path / "calls").unlink()
    journal = tmp_path / "s.csv.partial"
    with subprocess.Popen(
        [*words, "--out", "s.csv"], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as killed:
        until = time.monotonic() + 60
        while time.monotonic() < until and (not journal.exists() or journal.read_bytes().count(b"\n") < 4):
            time.sleep(0.01)
        os.kill(killed.pid, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "s.csv").exists()
    finished = journal.read_bytes().count(b"\n") - 1
    assert 3 <= finished < 12
    with open(journal, "ab") as stream:
        stream.write(b'{"chunk": 11, "rows": [[[1.0')  # as a kill within a write leaves it
    (tmp_path / "calls").unlink()
    again = subprocess.run([*words, "--out", "s.csv"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert f"continuing: {2 * finished} of 24 pairs were scored before" in again.stderr
    assert len((tmp_path / "calls").read_text()) == 24 - 2 * finished
    assert (tmp_path / "s.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not journal.exists()


def test_chunks_whose_images_changed_since_are_scored_again(tmp_path: Path, said: Said):
    world(tmp_path)
    broken = tmp_path / "dist/noise/2/im0.png"
    good = broken.read_bytes()
    other = tmp_path / "dist/fade/1/im2.png"
    Image.fromarray(picture(8)).save(other, compress_level=0)
    before = other.stat()
    spoil(broken)
    said("score", "psnr", "ssim", *FOLDERS, "--out", "s.csv", "--quiet", status=2)
    broken.write_bytes(good)
    # Another image of the same size, with the same time: only its content tells.
    Image.fromarray(picture(9)).save(other, compress_level=0)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (other.stat().st_size, other.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    said("score", "psnr", "ssim", *FOLDERS, "--out", "s.csv", "--quiet")
    (row,) = [row for row in read(tmp_path / "s.csv") if row["name"] == "fade/1/im2.png"]
    assert row["psnr"] == said("score", "psnr", "refs/im2.png", str(other)).strip()


def table(path: Path, *codecs: tuple[str, float], images: int = 3, extra: str = "") -> None:
    lines = ["image,codec,quality,rate,psnr,lpips-alex"]
    for codec, scale in codecs:
        for image in range(images):
            for step in range(1, 6):
                lines.append(f"im{image},{codec},{step},{scale * 2**step},{30 + 2 * step + image},{1 / (step + image + 1)}")  # noqa: PERF401
    path.write_text("\n".join(lines) + "\n" + extra)


def test_metrics_whose_lower_is_better_are_turned(tmp_path: Path, said: Said):
    table(tmp_path / "s.csv", ("a", 1.0), ("b", 0.8))
    document = json.loads(said("codecs", "s.csv", "--anchor", "a", "--rate", "rate", "--json"))
    assert {(r["metric"], r["higher_is_better"], round(r["rate"]["mean"], 6), r["gaining"]) for r in document["results"]} == {
        ("psnr", True, -20.0, 3), ("lpips-alex", False, -20.0, 3),
    }  # fmt: skip


def test_every_problem_of_a_table_of_codecs_is_reported_at_once(tmp_path: Path, said: Said):
    table(
        tmp_path / "s.csv",
        ("a", 1.0),
        ("b", 0.8),
        extra="im0,a,9,0,50,0.1\nim0,b,9,3,x,0.1\nim7,b,1,3,50,0.1\nim1,b,2,3,50,0.1\n",
    )
    text = said("codecs", "s.csv", "--anchor", "a", "--rate", "rate", status=2)
    assert "psnr is not a finite number in 1 rows" in text
    assert "a rate (rate) that is not above 0 in 1 rows: line 32" in text
    assert "b has 1 images that the anchor lacks: im7" in text
    assert "no codec 'c' (it has a, b)" in said("codecs", "s.csv", "--anchor", "c", "--rate", "rate", status=2)
    table(tmp_path / "t.csv", ("a", 1.0), ("b", 0.8), extra="im1,b,2,3,50,0.1\n")
    assert "several rows for one codec, image and quality: b im1 2" in said(
        "codecs", "t.csv", "--anchor", "a", "--rate", "rate", status=2
    )
    assert "no rate: --rate COLUMN" in said("codecs", "t.csv", "--anchor", "a", status=2)
    text = said("codecs", "t.csv", "--anchor", "a", "--rate", "bpp", "--setting", "qp", status=2)
    assert "no column 'bpp' (--rate)" in text
    assert "no column 'qp' (--setting)" in text


def test_a_codec_without_the_anchors_images_is_reported_and_left_out_on_request(tmp_path: Path, said: Said):
    table(tmp_path / "s.csv", ("a", 1.0), ("b", 0.8))
    lines = (tmp_path / "s.csv").read_text().splitlines()
    (tmp_path / "s.csv").write_text("\n".join(line for line in lines if not line.startswith("im2,b")) + "\n")
    text = said("codecs", "s.csv", "--anchor", "a", "--rate", "rate", status=2)
    assert "b lacks 1 images of the anchor: im2" in text
    document = json.loads(said("codecs", "s.csv", "--anchor", "a", "--rate", "rate", "--inner", "--json"))
    assert {r["rate"]["n"] for r in document["results"]} == {2}
    assert "b lacks 1 images" in said("compare", "s.csv", "--by", "codec", status=2)


def test_images_without_a_rate_difference_are_said_and_not_in_the_mean(tmp_path: Path, said: Said):
    table(tmp_path / "s.csv", ("a", 1.0), ("b", 0.8))
    text = (tmp_path / "s.csv").read_text().replace("im1,b,3,6.4,37,", "im1,b,3,6.4,30,")
    (tmp_path / "s.csv").write_text(
        "\n".join(line for line in text.splitlines() if not line.startswith(("im2,b,1", "im2,b,2"))) + "\n"
    )
    reported = said("codecs", "s.csv", "--anchor", "a", "--rate", "rate", "--metrics", "psnr")
    assert "im1 (the codec is not monotone: the quality falls" in reported
    assert "im2 (the codec has 3 points, and 4 are needed)" in reported
    assert "1 of 3" in reported
    assert "-20.00 %" in reported


def test_rates_come_from_the_files_where_the_table_has_no_bytes(tmp_path: Path, said: Said):
    world(tmp_path, 2)
    said("score", "psnr", *FOLDERS, "--out", "s.csv", "--quiet")
    full = json.loads(said("codecs", "s.csv", "--anchor", "noise", "--json"))
    kept = ["reference_id", "distorted", "codec", "quality", "psnr"]
    lines = [",".join(kept), *(",".join(row[k] for k in kept) for row in read(tmp_path / "s.csv"))]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    assert json.loads(said("codecs", "t.csv", "--anchor", "noise", "--json"))["results"] == full["results"]


def test_codecs_are_ranked_on_the_images_that_all_have(tmp_path: Path, said: Said):
    world(tmp_path)
    said("score", "psnr", "ssim", *FOLDERS, "--out", "s.csv", "--quiet")
    found = json.loads(said("compare", "s.csv", "--by", "codec", "--json"))
    rows = read(tmp_path / "s.csv")
    for ranking in found:
        means = {c: sum(float(r[ranking["metric"]]) for r in rows if r["codec"] == c) / 12 for c in ("noise", "fade")}
        assert [p["name"] for p in ranking["places"]] == sorted(means, key=lambda c: -means[c])
        assert ranking["places"][0]["mean"] == pytest.approx(max(means.values()))
        assert (ranking["images"], ranking["cells"]) == (3, 12)
    assert "give A and B, or a table with --by COLUMN" in said("compare", "s.csv", status=2)


def test_one_model_over_a_table_of_pairs_goes_on_too(tmp_path: Path, said: Said):
    world(tmp_path)
    rows = [(f"dist/{kind}/{level}/im0.png", "refs/im0.png") for kind in ("noise", "fade") for level in (1, 2)]
    (tmp_path / "pairs.csv").write_text("distorted,reference\n" + "".join(f"{d},{r}\n" for d, r in rows))
    broken = tmp_path / rows[2][0]
    good = broken.read_bytes()
    spoil(broken)
    text = said("score", "psnr", "--pairs", "pairs.csv", "--out", "p.csv", "--batch", "1", "--quiet", status=2)
    assert "3 of 4 pairs are scored and kept in p.csv.partial" in text
    broken.write_bytes(good)
    said("score", "psnr", "--pairs", "pairs.csv", "--out", "p.csv", "--batch", "1")
    assert [row["score"] for row in read(tmp_path / "p.csv")] == [
        said("score", "psnr", reference, distorted).strip() for distorted, reference in rows
    ]
    assert not (tmp_path / "p.csv.partial").exists()
