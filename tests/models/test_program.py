"""Programs as models: the card's table, the program's input and environment, failures, and real programs."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import distorted, picture, write_table

import harness
from harness.cards.loading import load_cards
from harness.cards.overrides import apply_set
from harness.cards.program import Program as Table
from harness.cards.program import ProgramScore, program_table
from harness.cards.schema import ModelCard, parse_card
from harness.cards.tables import parse_table
from harness.engine.request import Request
from harness.engine.run import run
from harness.engine.scorer import Pair, Scorer
from harness.engine.verify import verify
from harness.imaging import encode
from harness.models.identity import code_of
from harness.models.program import number_in
from harness.runtime.errors import RunError, UsageError

TABLE = {
    "command": ["beside:tool", "{reference}", "{distorted}"],
    "version": ["beside:tool", "--version"],
    "score": {"line": -1},
}
MEAN = """
import json, os, sys, time
if sys.argv[1:] == ["--version"]:
    print("tool 1.0"); sys.exit(0)
import numpy as np
from PIL import Image
reference, distorted = (np.asarray(Image.open(p)).astype(float) for p in sys.argv[1:3])
value = abs(reference - distorted).mean()
"""


def write_tool(folder: Path, body: str = "print(value)", before: str = MEAN) -> Path:
    """An executable `tool` of Python: prints its version, else runs `body`, which has the two images' mean difference `value`."""
    folder.mkdir(parents=True, exist_ok=True)
    tool = folder / "tool"
    tool.write_text(f"#!{sys.executable}\n{before}\n{body}\n", encoding="utf-8")
    tool.chmod(0o755)
    return tool


def card_in(folder: Path, **changes: object) -> ModelCard:
    table = {"name": "tool", "title": "tool", "higher_is_better": False, "program": TABLE | changes}
    (folder / "tool.toml").write_text(_toml(table), encoding="utf-8")
    return harness.models.find_model(str(folder / "tool.toml"))


def _toml(table: dict) -> str:
    inner = "\n".join(f"{k} = {_value(v)}" for k, v in table["program"].items())
    outer = "\n".join(f"{k} = {_value(v)}" for k, v in table.items() if k != "program")
    return f"{outer}\n[program]\n{inner}\n"


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)


def model_in(folder: Path, body: str = "print(value)", **changes: object):
    write_tool(folder, body)
    return harness.models.build(card_in(folder, **changes), None)


STILL = picture(1, 24, 20)
MOVED = distorted(STILL, "noise", 2, 1)


@pytest.mark.slow
def test_a_program_is_given_the_very_pixels_and_its_number_is_the_score(tmp_path):
    want = np.abs(STILL.astype(float) - MOVED.astype(float)).mean()
    for kind in ("png", "ppm"):
        model = model_in(tmp_path, input=kind)
        assert model.score_uint8(STILL, MOVED) == want
        assert model.score_embedded_uint8(model.embed_uint8(STILL), MOVED) == want
    tensors = [torch.from_numpy(x[None].copy()).permute(0, 3, 1, 2).float() / 255 for x in (STILL, MOVED)]
    assert model.score(*tensors).tolist() == [pytest.approx(want, rel=1e-6)]


def test_a_program_sees_two_plain_names_and_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.chdir(tmp_path)
    body = (
        f"open({str(tmp_path / 'seen.json')!r}, 'w').write(json.dumps({{'argv': sys.argv[1:], 'files': sorted(os.listdir()),"
        " 'cwd': os.getcwd(), 'secret': 'SECRET_TOKEN' in os.environ, 'home': os.environ['HOME'], 'stdin': sys.stdin.read()}))"
        "\nprint(value)"
    )
    model_in(tmp_path, body).score_uint8(STILL, MOVED)
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["argv"] == seen["files"][::-1] == ["reference.png", "distorted.png"]
    assert (seen["secret"], seen["stdin"], seen["home"]) == (False, "", seen["cwd"])
    assert not os.path.exists(seen["cwd"])


def test_no_shell_reads_the_command(tmp_path):
    model = model_in(
        tmp_path,
        "print(sys.argv[3])",
        command=["beside:tool", "{reference}", "{distorted}", "$(echo 1);*"],
        score={"line": 1},
    )
    with pytest.raises(RunError, match=r"'\$\(echo 1\);\*' is not a number"):
        model.score_uint8(STILL, MOVED)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "changes", "said"),
    [
        ("pass", {}, "no score on standard output: it is empty; it printed nothing"),
        ("print('hello')", {}, "'hello' is not a number; its last lines: hello"),
        ("print('nan')", {}, "it is NaN"),
        (
            "print('a'); sys.exit('broken\\x1b[31m\\nbadly')",
            {},
            r"ended with status 1; its last lines: broken\\x1b\[31m \| badly",
        ),
        ("os.abort()", {}, "ended with signal SIGABRT"),
        (
            "print('soon', flush=True); time.sleep(60)",
            {"timeout": 1},
            "had not ended after 1 s and was killed; its last lines: soon",
        ),
        ("while True: print('x' * 9999)", {}, "printed more than 8 MiB and was killed"),
        ("print(value)", {"score": {"line": 3}}, "it has 1 lines, not a line 3"),
        ("print(value)", {"score": {"regex": "score=([0-9.]+)"}}, "nothing matches 'score="),
        ("print(value)", {"score": {"json": "a.b"}}, "its JSON has no a.b"),
        ("print('{')", {"score": {"json": "a.b"}}, "it is not JSON"),
    ],
)
def test_a_failing_program_is_one_line_with_its_last_words(tmp_path, body, changes, said):
    with pytest.raises(RunError, match=said) as error:
        model_in(tmp_path, body, **changes).score_uint8(STILL, MOVED)
    assert "\n" not in str(error.value)


def test_a_hanging_program_is_ended_with_what_it_started(tmp_path):
    pids = tmp_path / "pid"
    body = f"import subprocess; p = subprocess.Popen(['sleep', '60']); open({str(pids)!r}, 'w').write(str(p.pid)); time.sleep(60)"
    with pytest.raises(RunError, match="had not ended"):
        model_in(tmp_path, body, timeout=1.5).score_uint8(STILL, MOVED)
    for _ in range(50):
        if not _running(int(pids.read_text())):
            return
        time.sleep(0.1)
    pytest.fail("a program's own child still runs")


def _running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_an_output_file_is_read_and_a_link_is_not(tmp_path):
    changes = {
        "command": ["beside:tool", "{reference}", "{distorted}", "--out={output}"],
        "score": {"json": "pooled.1.mean", "from": "output"},
    }
    body = "open('output', 'w').write(json.dumps({'pooled': [0, {'mean': value}]}))"
    assert model_in(tmp_path, body, **changes).score_uint8(STILL, STILL) == 0.0
    with pytest.raises(RunError, match="wrote no usable file"):
        model_in(tmp_path, "os.symlink('/etc/passwd', 'output')", **changes).score_uint8(STILL, MOVED)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score": {"regex": "SSIM: [0-9.]+"}}, "program.score.regex = 'SSIM: .*' should have one group, for the number"),
        ({"score": {"regex": "("}}, "is not a regular expression"),
        ({"score": {}}, "exactly one of regex, json and line"),
        ({"score": {"line": 1, "json": "a"}}, "exactly one of regex, json and line"),
        ({"command": []}, "command is empty"),
        ({"command": ["./tool", "{reference}", "{distorted}"]}, r"command\[0\] = './tool' should be a program's name on PATH"),
        ({"command": ["beside:../tool", "{reference}", "{distorted}"]}, "should be a program's name on PATH"),
        ({"command": ["beside:tool", "{reference}"]}, "command lacks {distorted}"),
        ({"command": ["beside:tool", "{reference}", "{distorted}", "{name}"]}, "command holds {name}"),
        ({"command": ["beside:tool", "{reference}", "{distorted}", "{output}"]}, "belong together"),
        ({"version": ["other"]}, "should be the program of command"),
        ({"version": None}, "missing key 'program.version'"),
        ({"input": "y4m"}, "subsampling is missing"),
        ({"range": "full"}, "range = 'full' belongs to input = 'y4m'"),
        ({"input": "tiff"}, "program.input = 'tiff' is not one of"),
        ({"timeout": 0}, "timeout = 0 should be"),
        ({"threads": 0}, "threads = 0 should be at least 1"),
        ({"shell": True}, "unknown key 'program.shell'"),
    ],
)
def test_a_card_that_cannot_work_is_refused_when_it_is_read(changes, said):
    program = {k: v for k, v in (TABLE | changes).items() if v is not None}
    with pytest.raises(UsageError, match=said):
        parse_card(ModelCard, {"name": "tool", "title": "t", "higher_is_better": True, "program": program}, "tool.toml")


def test_a_program_and_a_class_exclude_each_other():
    table = {"name": "tool", "title": "t", "higher_is_better": True}
    with pytest.raises(UsageError, match="class has no effect on a model that is an external program"):
        parse_card(ModelCard, {**table, "class": "harness.models.psnr:PSNR", "program": TABLE}, "tool.toml")
    with pytest.raises(UsageError, match=r"needs a table \[program\]"):
        parse_card(ModelCard, {**table, "class": "harness.models.program:Program"}, "tool.toml")


def test_no_setting_reaches_a_program():
    card = load_cards("models")["butteraugli"]
    for path in ("program.command", "program.timeout", "program.install", "model.program", "class", "command"):
        with pytest.raises(UsageError, match=f"--set {path}: "):
            apply_set(card, {path: "x"})


@given(st.builds(ProgramScore, line=st.integers(1, 9)), st.floats(0.5, 99), st.sampled_from(["png", "ppm"]))
def test_a_programs_table_gives_the_program_again(score, timeout, kind):
    program = Table(("a", "{reference}", "{distorted}"), ("a",), score, kind, timeout=timeout, install="apt")
    assert parse_table(Table, program_table(program), "card", "program.") == program


@given(st.floats(allow_nan=False), st.lists(st.text(st.characters(codec="utf-8"), max_size=9), max_size=4))
def test_a_number_is_found_where_the_card_says(value, noise):
    lines = [line for text in noise for line in text.splitlines() if line.strip()]
    text = "\n".join([*lines, f"{value!r}"])
    assert number_in(text, ProgramScore(line=-1)) == value
    assert number_in(text, ProgramScore(line=len(lines) + 1)) == value
    assert number_in(f"score: 1\nscore: {value!r}\n", ProgramScore(regex=r"score: (\S+)")) == value


def test_programs_are_found_on_absolute_entries_of_path_only(tmp_path, monkeypatch):
    write_tool(tmp_path / "bin")
    changes = {"command": ["tool", "{reference}", "{distorted}"], "version": ["tool", "--version"], "install": "apt install tool"}
    card = card_in(tmp_path, **changes)
    monkeypatch.chdir(tmp_path / "bin")
    for path in ("", ".", f":{tmp_path}", "../bin"):
        monkeypatch.setenv("PATH", path)
        with pytest.raises(UsageError, match=r"^tool needs the program tool, which is not on PATH \(apt install tool\)$"):
            code_of(card)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.defpath}")
    assert harness.models.build(card, None).executable == tmp_path / "bin" / "tool"


def test_the_identity_is_the_programs_version_file_and_input_not_its_place(tmp_path):
    write_tool(tmp_path / "a")
    write_tool(tmp_path / "b")
    here = code_of(card_in(tmp_path / "a"))
    assert here == code_of(card_in(tmp_path / "b", timeout=5, threads=2))
    assert here["program"]["version"] == "tool 1.0"
    for changes in (
        {"input": "ppm"},
        {"score": {"line": 1}},
        {"command": ["beside:tool", "{distorted}", "{reference}"]},
        *({"input": "y4m", "range": r, "matrix": m, "subsampling": s} for r, m, s in (
            ("full", "bt601", "420"), ("limited", "bt601", "420"), ("full", "bt709", "420"), ("full", "bt601", "444"),
        )),
    ):  # fmt: skip
        other = code_of(card_in(tmp_path / "b", **changes))
        assert other != here
        here = other
    write_tool(tmp_path / "b", "print(value + 1)")
    assert code_of(card_in(tmp_path / "b")) != code_of(card_in(tmp_path / "a"))


def test_a_version_that_cannot_be_had_is_refused(tmp_path):
    write_tool(tmp_path, before="import sys; sys.exit(127)")
    with pytest.raises(UsageError, match="its version command ended with status 127"):
        code_of(card_in(tmp_path))
    write_tool(tmp_path, before="import os; os.abort()")
    with pytest.raises(UsageError, match="its version command ended with signal SIGABRT"):
        code_of(card_in(tmp_path))
    (tmp_path / "tool").write_text("no program", encoding="utf-8")
    with pytest.raises(UsageError, match=r"its version cannot be read: .*cannot be started: Exec format error"):
        code_of(card_in(tmp_path))


class Cards:
    """A folder of cards with one program, and a table of pairs."""

    def __init__(self, folder: Path, body: str = "print(value)", **changes: object) -> None:
        self.cards, self.runs = folder / "cards", folder / "runs"
        write_tool(self.cards, body)
        card_in(self.cards, **changes)
        self.table = write_table(folder / "data", references=2, levels=2, height=24, width=20)

    def request(self, **more: object) -> Request:
        return Request("tool", str(self.table), cards=(str(self.cards),), runs=str(self.runs), mlflow_uri="off", batch=1, **more)


@pytest.mark.slow
def test_a_failure_names_the_pair_and_keeps_what_was_computed(tmp_path):
    body = "if value > 20: sys.exit('no idea')\nprint(value)"
    world = Cards(tmp_path, body)
    with pytest.raises(RunError, match=r"r\d_\w+_\d\.png: tool ended with status 1; its last lines: no idea"):
        run(world.request())
    kept = next(world.runs.rglob("scores.csv")).read_text().splitlines()
    assert len(kept) > 1
    with pytest.raises(UsageError, match="too small: this model needs at least 99 pixels"):
        run(Cards(tmp_path / "b", minimum_size=99).request())


@pytest.mark.slow
def test_a_run_repeats_and_another_program_does_not_verify(tmp_path):
    world = Cards(tmp_path)
    done = run(world.request())
    assert done.record.details["version"] == "tool 1.0"
    assert done.record.cards.model.program.command[0] == "beside:tool"
    assert run(world.request()).folder == done.folder
    again = verify(done.folder, cards=[str(world.cards)])
    assert again.ok
    write_tool(world.cards, "print(value * 2)")
    assert {f.what for f in verify(done.folder, cards=[str(world.cards)]).findings} == {"code"}


@pytest.mark.slow
def test_a_record_sets_no_program(tmp_path):
    world = Cards(tmp_path)
    done = run(world.request())
    marker = tmp_path / "started"
    path = done.folder / "record.json"
    document = json.loads(path.read_text())
    document["cards"]["model"]["program"]["command"] = ["touch", str(marker), "{reference}", "{distorted}"]
    path.write_text(json.dumps(document))
    verify(done.folder, cards=[str(world.cards)])
    document["request"]["settings"] = {"program.command": ["touch", str(marker)]}
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match=r"program\.command=.* names a file or a program"):
        verify(done.folder, cards=[str(world.cards)])
    with pytest.raises(UsageError, match="neither built in nor in your folders of cards"):
        verify(done.folder)
    assert not marker.exists()


def test_an_ensemble_holds_a_program_by_its_table(tmp_path):
    write_tool(tmp_path)
    member = {
        "name": "tool",
        "higher_is_better": False,
        "weight": 1.0,
        "class": "harness.models.program:Program",
        "program": TABLE,
    }
    scaling = {"kind": "raw"}
    table = {
        "name": "both",
        "title": "both",
        "class": "harness.models.ensemble:Ensemble",
        "higher_is_better": True,
        "model": {"members": [{**member, "scaling": scaling}]},
    }
    card = parse_card(ModelCard, table, str(tmp_path / "both.toml"))
    model = harness.models.build(card, None)
    assert model.members[0].model.score_uint8(STILL, STILL) == 0.0
    assert code_of(card)["members"][0]["program"]["version"] == "tool 1.0"


def test_work_that_ends_early_ends_its_programs(tmp_path):
    started = tmp_path / "started"
    model = model_in(tmp_path, f"open({str(started)!r}, 'w').close(); time.sleep(60)")
    path = write_table(tmp_path / "data", references=2, levels=1, height=24, width=20)
    names = [(f"r{r}_noise_1.png", f"r{r}.png") for r in range(2)]
    pairs = [[Pair(d, str(path.parent / d), str(path.parent / r), r)] for d, r in names]
    scores = Scorer(model, harness.models.find_model("psnr").protocol, workers=2).score(pairs)

    def interrupt() -> None:
        while not started.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), 2)

    begun = time.monotonic()
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        next(scores)
    assert time.monotonic() - begun < 20


needs_butteraugli = pytest.mark.skipif(not shutil.which("butteraugli"), reason="the program butteraugli is not installed")
needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="the program ffmpeg is not installed")
REAL = [
    pytest.param("butteraugli", marks=needs_butteraugli),
    pytest.param("ffmpeg-ssim", marks=needs_ffmpeg),
    pytest.param("ffmpeg-psnr", marks=needs_ffmpeg),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_real_program_falls_with_every_step_of_a_ladder_of_noise(name):
    model = harness.load_model(name)
    image = picture(3, 96, 112)
    scores = [model.model.score_uint8(image, distorted(image, "noise", level, 1)) for level in (1, 2, 3, 4)]
    assert scores == sorted(scores, reverse=model.higher_is_better)
    assert len(set(scores)) == 4
    best = model.model.score_uint8(image, image)
    assert best == {"butteraugli": 0.0, "ffmpeg-ssim": 1.0, "ffmpeg-psnr": float("inf")}[name]


@needs_ffmpeg
def test_ffmpegs_psnr_is_that_of_the_planes_it_was_given():
    image, moved = picture(3, 51, 47), distorted(picture(3, 51, 47), "noise", 2, 1)
    planes = [encode.ycbcr(x, "bt601", "limited", "420") for x in (image, moved)]
    total = sum(((a.astype(float) - b) ** 2).sum() for a, b in zip(*planes, strict=True))
    want = 10 * np.log10(255**2 / (total / sum(p.size for p in planes[0])))
    assert harness.load_model("ffmpeg-psnr").model.score_uint8(image, moved) == pytest.approx(want, abs=2e-6)


@pytest.mark.slow
@needs_ffmpeg
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("levels", ["limited", "full"])
@pytest.mark.parametrize("subsampling", ["444", "420"])
def test_ffmpeg_reads_our_y4m_back_as_the_image(tmp_path, matrix, levels, subsampling):
    image = picture(5, 50, 46)
    (tmp_path / "x.y4m").write_bytes(encode.y4m(image, matrix, levels, subsampling))
    spaces = f"scale=in_color_matrix={matrix}:in_range={'tv' if levels == 'limited' else 'pc'}:flags=accurate_rnd+full_chroma_inp"
    command = ["ffmpeg", "-v", "error", "-i", "x.y4m", "-vf", spaces, "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    back = np.frombuffer(raw, np.uint8).reshape(image.shape).astype(int)
    # Edges lose colour where chroma is halved; a wrong matrix or range moves whole areas.
    assert np.median(np.abs(back - image)) <= (1 if subsampling == "444" else 2)
    assert np.abs(back - image).mean() < (1 if subsampling == "444" else 3)


def test_images_for_programs_are_lossless_and_headers_are_plain():
    image = picture(2, 21, 33)
    assert np.array_equal(cv2.imdecode(np.frombuffer(encode.png(image), np.uint8), 1)[..., ::-1], image)
    assert np.array_equal(cv2.imdecode(np.frombuffer(encode.ppm(image), np.uint8), 1)[..., ::-1], image)
    file = encode.y4m(image, "bt709", "full", "420")
    header, frame = file.split(b"\nFRAME\n", 1)
    assert header == b"YUV4MPEG2 W33 H21 F1:1 Ip A1:1 C420jpeg XCOLORRANGE=FULL"
    assert len(frame) == 21 * 33 + 2 * 11 * 17


@pytest.mark.parametrize(("matrix", "red"), [("bt601", (81, 90, 240)), ("bt709", (63, 102, 240))])
def test_primaries_have_the_standards_codes(matrix, red):
    """ITU-R BT.601 and BT.709: 100 % red, white and black in 8-bit YCbCr of limited range."""
    colours = np.array([[[255, 0, 0], [255, 255, 255], [0, 0, 0]]], np.uint8)
    planes = np.stack(encode.ycbcr(colours, matrix, "limited", "444"), axis=-1)[0]
    assert planes.tolist() == [list(red), [235, 128, 128], [16, 128, 128]]


def test_shipped_cards_of_programs_that_were_not_run_say_so():
    cards = {name: card for name, card in load_cards("models").items() if card.program is not None}
    assert set(cards) == {"butteraugli", "ffmpeg-psnr", "ffmpeg-ssim", "ssimulacra2", "vmaf"}
    for name in ("ssimulacra2", "vmaf"):
        assert "not run here" in cards[name].title
        assert cards[name].description.startswith("Not run here")
    assert not any(re.search("not run", cards[name].title) for name in ("butteraugli", "ffmpeg-psnr", "ffmpeg-ssim"))
    assert all(dataclasses.asdict(card)["program"]["version"] for card in cards.values())
