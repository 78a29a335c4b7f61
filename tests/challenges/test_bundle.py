"""Competition bundles: their content, the scoring program in isolation, and cards and labels that are refused."""

from __future__ import annotations

import ast
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from challenge import SMALL_CARD, SMALL_NAMES, good, made_labels, save, write_small

from harness.challenges import bundle as bundling
from harness.challenges import server_run
from harness.challenges.bundle import MODULES, bundle
from harness.challenges.figures import server_scores
from harness.challenges.score import score
from harness.files.atomic import write_text
from harness.runtime.errors import RunError, UsageError

pytestmark = pytest.mark.slow  # its tests train, or start commands

LABELS = made_labels()
HARNESS = Path(bundling.__file__).parents[1]
SCHEMA = json.loads((Path(__file__).parents[1] / "support" / "codabench.schema.json").read_text(encoding="utf-8"))
OLD = os.environ.get("HARNESS_PYTHON37") or shutil.which("python3.7") or ""


def members(data: bytes) -> dict[str, bytes]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    return {name: archive.read(name) for name in archive.namelist()}


def unpack(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of ntire2022-fr, made by the command line: the folder with labels.csv and out/."""
    folder = tmp_path_factory.mktemp("bundle")
    write_text(folder / "labels.csv", "name,score\n" + "".join(f"{name},{label!r}\n" for name, label in LABELS.items()))
    words = ["challenge", "bundle", "ntire2022-fr", "--labels", "labels.csv", "--out", "out", "--start", "2027-01-31", "--json"]
    done = subprocess.run([sys.executable, "-m", "harness", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "told.json").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def files(made: Path) -> dict[str, bytes]:
    return members((made / "out" / "competition.zip").read_bytes())


def test_the_command_says_what_was_run_and_how_near_the_scores_were(made: Path):
    reported = json.loads((made / "told.json").read_text())
    assert (reported["phases"], reported["left_out"]) == ({"test": 1650}, ["validation"])
    first = reported["trials"][0]
    assert (first["difference"], first["defective_refused"]) == (0.0, 10)
    assert set(first["scores"]) == {"MainScore", "PLCC", "SRCC"}
    assert sorted(path.name for path in (made / "out").iterdir()) == ["competition", "competition.zip"]


def test_competition_yaml_holds_against_the_schema_and_names_files_that_are_there(files: dict[str, bytes]):
    table = yaml.safe_load(files["competition.yaml"])
    jsonschema.validate(table, SCHEMA)
    named = [table["image"], table["terms"], *(page["file"] for page in table["pages"])]
    named += [task[key] for task in table["tasks"] for key in ("scoring_program", "reference_data")]
    named += [solution["path"] for solution in table["solutions"]] + [phase["starting_kit"] for phase in table["phases"]]
    assert all(files[name] for name in named)
    assert table["phases"][0]["start"] == "2027-01-31 00:00:00"
    columns = table["leaderboards"][0]["columns"]
    assert [(c["key"], c["index"], c["sorting"]) for c in columns] == [
        ("MainScore", 0, "desc"),
        ("PLCC", 1, "desc"),
        ("SRCC", 2, "desc"),
    ]
    assert files["logo.png"].startswith(b"\x89PNG")


def test_the_program_is_our_modules_byte_for_byte_over_numpy_and_scipy(files: dict[str, bytes]):
    program = members(files["scoring_program.zip"])
    for module in MODULES:
        assert program[f"harness/{module}.py"] == (HARNESS / f"{module}.py").read_bytes()
    own = {f"harness.{module.replace('/', '.')}" for module in MODULES} | {"harness.challenges"}
    for name, data in program.items():
        if name.endswith(".py"):
            tree = ast.parse(data, name, feature_version=(3, 7))
            imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
            others = {word.partition(".")[0] for word in imported - own} - set(sys.stdlib_module_names)
            # Of pandas only types are named, which nobody looks up when the program runs.
            assert others <= {"numpy", "scipy"} | ({"pandas"} if name.endswith("findings.py") else set()), name


def test_labels_lie_in_the_reference_data_and_nowhere_else(files: dict[str, bytes]):
    from harness.challenges.figures import Truth

    truth = Truth(LABELS)
    holding = [name for name, data in files.items() if server_run.holds_labels(name, data, truth)]
    assert holding == ["reference_data_test.zip"]
    for name, data in files.items():
        everything = b"".join(members(data).values()) if name.endswith(".zip") else data
        found = [label for label in LABELS.values() if repr(label).encode() in everything]
        assert bool(found) == (name == "reference_data_test.zip"), name


def bare() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def clean_venv(folder: Path) -> Path:
    """An environment with numpy and scipy and nothing else."""
    import numpy

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in ("numpy", "numpy.libs", "scipy", "scipy.libs"):
        if (there := Path(numpy.__file__).parents[1] / name).exists():
            (packages / name).symlink_to(there)
    return folder / "bin" / "python"


def server(folder: Path, files: Mapping[str, bytes], submission: Mapping[str, bytes], python: str | Path) -> Any:
    """The program's end in the server's folders, started as metadata.yaml says."""
    unpack(folder / "program", members(files["scoring_program.zip"]))
    unpack(folder / "input" / "ref", members(files["reference_data_test.zip"]))
    unpack(folder / "input" / "res", submission)
    (folder / "output").mkdir()
    command = yaml.safe_load((folder / "program" / "metadata.yaml").read_text())["command"]
    words = command.replace("/app", str(folder)).split()
    assert words[0] == "python3"
    return subprocess.run([str(python), *words[1:]], cwd=folder / "program", capture_output=True, text=True, env=bare())


def test_in_a_clean_environment_the_program_gives_our_scores_to_the_last_digit(
    made: Path, files: dict[str, bytes], tmp_path: Path
):
    python = clean_venv(tmp_path / "venv")
    probe = "import importlib.util as u; print([n for n in ('harness', 'torch', 'pandas', 'numpy') if u.find_spec(n)])"
    assert subprocess.run([python, "-c", probe], capture_output=True, text=True, env=bare()).stdout.strip() == "['numpy']"
    done = server(tmp_path / "app", files, good(), python)
    assert done.returncode == 0, done.stderr
    scored = score(save(tmp_path / "x.zip", good()), made / "labels.csv")
    assert json.loads((tmp_path / "app/output/scores.json").read_text()) == server_scores(scored.report.card, scored.whole)


def has_numpy(python: str) -> bool:
    return bool(python) and subprocess.run([python, "-c", "import numpy, scipy"], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_numpy(OLD), reason="no Python 3.7 with numpy and scipy ($HARNESS_PYTHON37)")
def test_the_default_image_s_python_gives_our_scores(made: Path, files: dict[str, bytes], tmp_path: Path):
    done = server(tmp_path / "app", files, good(), OLD)
    assert done.returncode == 0, done.stderr
    scored = score(save(tmp_path / "x.zip", good()), made / "labels.csv")
    found = json.loads((tmp_path / "app/output/scores.json").read_text())
    assert found == pytest.approx(server_scores(scored.report.card, scored.whole), abs=1e-12)


@pytest.mark.parametrize("name", ["files in a folder", "a line is missing", "a score that is NaN", "a link to the labels"])
def test_a_defective_submission_gets_a_page_that_says_why_and_no_score(name: str, files: dict[str, bytes], tmp_path: Path):
    from harness.cards.loading import find_challenge

    app = tmp_path / "app"
    unpack(tmp_path / "sub", good())
    server_run.defects(find_challenge("ntire2022-fr"))[name](tmp_path / "sub")
    (app / "input").mkdir(parents=True)
    shutil.copytree(tmp_path / "sub", app / "input" / "res", symlinks=True)
    done = server(app, files, {}, sys.executable)
    assert done.returncode == 1
    assert sorted(path.name for path in (app / "output").iterdir()) == ["detailed_results.html"]
    page = (app / "output" / "detailed_results.html").read_text()
    wanted = {
        "files in a folder": "in the folder submission; it must be at the zip&#x27;s root",
        "a line is missing": "A0249_10_75.bmp has no line",
        "a score that is NaN": "the score is nan",
        "a link to the labels": "a link or a folder instead of a file",
    }[name]
    assert wanted in page
    assert "output.txt" in done.stderr
    assert "Traceback" not in done.stderr
    assert not any(repr(label) in page + done.stderr + done.stdout for label in LABELS.values())


def test_what_an_entrant_writes_is_shown_as_text(files: dict[str, bytes], tmp_path: Path):
    lines = good()["output.txt"].decode().splitlines()
    lines[0] = "<script>alert(1)</script>\x1b[31m,1.000000"
    done = server(
        tmp_path / "app", files, good() | {"output.txt": "".join(f"{line}\n" for line in lines).encode()}, sys.executable
    )
    page = (tmp_path / "app/output/detailed_results.html").read_text()
    assert done.returncode == 1
    assert "<script>" not in page
    assert "\x1b" not in page + done.stderr


def test_damaged_reference_data_is_reported_as_the_organisers_fault_without_a_value(files: dict[str, bytes], tmp_path: Path):
    reference = members(files["reference_data_test.zip"])
    reference["labels.csv"] = reference["labels.csv"].replace(b",1", b",secret1", 1)
    unpack(tmp_path / "app" / "input" / "ref", reference)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in reference.items():
            archive.writestr(name, data)
    done = server(tmp_path / "app", {**files, "reference_data_test.zip": out.getvalue()}, good(), sys.executable)
    assert done.returncode == 1
    assert "the submission is not the cause" in done.stderr
    assert "secret" not in done.stderr + (tmp_path / "app/output/detailed_results.html").read_text()


# -- small cards of one's own ----------------------------------------------------------------------------------------


def test_two_phases_have_their_own_images_labels_and_dates(tmp_path: Path):
    card, labels = write_small(tmp_path)
    made = bundle(card, labels, tmp_path / "out")
    files = members(made.file.read_bytes())
    table = yaml.safe_load(files["competition.yaml"])
    jsonschema.validate(table, SCHEMA)
    assert [(p["name"], p["start"], p.get("end"), p.get("max_submissions_per_day")) for p in table["phases"]] == [
        ("open", "2027-01-01 08:00:00", "2027-02-01 08:00:00", 3),
        ("final", "2027-02-01 08:00:00", None, None),
    ]
    assert [(c["key"], c["sorting"]) for c in table["leaderboards"][0]["columns"]] == [
        ("score", "desc"), ("KRCC", "desc"), ("RMSE", "asc"), ("apart", "desc"), ("2AFC", "desc"),
    ]  # fmt: skip
    for phase, own in (("open", SMALL_NAMES[:4]), ("final", SMALL_NAMES[4:])):
        reference = members(files[f"reference_data_{phase}.zip"])
        assert [line.split(",")[0] for line in reference["labels.csv"].decode().splitlines()[1:]] == own
        assert len(reference["pairs-chosen.csv"].splitlines()) == {"open": 3, "final": 2}[phase]
        zipped = members(files[f"sample_submission_{phase}.zip"])
        assert zipped["prediction.csv"].startswith(b"filename,score\n")
    assert [(t.phase, t.difference, t.refused) for t in made.trials if "3.7" not in t.python] == [
        ("open", 0, 10),
        ("final", 0, 10),
    ]
    again = bundle(card, labels, tmp_path / "again")
    assert again.sha256 == made.sha256


def test_mean_rank_is_left_to_the_server_and_an_unknown_python_is_refused(tmp_path: Path):
    card, labels = write_small(tmp_path, SMALL_CARD + '\n[ranking]\nby = "mean-rank"\n')
    with pytest.raises(UsageError, match="--python nowhere: no such program"):
        bundle(card, labels, tmp_path / "out", python="nowhere")
    table = yaml.safe_load((bundle(card, labels, tmp_path / "out").file.parent / "competition/competition.yaml").read_text())
    jsonschema.validate(table, SCHEMA)
    first, *rest = table["leaderboards"][0]["columns"]
    assert (first["computation"], first["computation_indexes"], first["sorting"]) == ("avg_rank", [1, 2, 3, 4], "asc")
    assert [column["key"] for column in rest] == ["KRCC", "RMSE", "apart", "2AFC", "score"]


def test_all_that_is_wrong_with_card_and_labels_is_reported_at_once(tmp_path: Path):
    wrong = SMALL_CARD.replace('start = "2027-02-01 08:00:00"', 'start = "2027-01-15"\nend = "2027-01-10"')
    wrong += "\n[phases.none]\nimages = 0\n"
    card, labels = write_small(tmp_path, wrong)
    text = (labels / "mos.csv").read_text().replace("a1.png", "z9.png").replace(",0.5,15\n", ",,\n")
    write_text(labels / "mos.csv", text)
    (labels / "pairs-chosen.csv").unlink()
    with pytest.raises(UsageError) as refused:
        bundle(card, labels, tmp_path / "out")
    reported = str(refused.value)
    for part in (
        "phases.none: images = 0: a phase needs images",
        "phases.final ends (2027-01-10) before it starts (2027-01-15)",
        "phases.final starts (2027-01-15) before open ends",
        "1 labels belong to images of no phase: z9.png",
        "phase open: no labels for 1 of 4 images: a1.png",
        "phase open: apart: pairs = 'different' needs a column std; 2 of 4 images have none",
        "phase open: apart: pairs = 'different' needs a column raters",
        "phase open: 2AFC: no list of pairs 'chosen'",
        "phase final: 2AFC: no list of pairs 'chosen'",
    ):
        assert part in reported
    assert not (tmp_path / "out").exists()


def test_one_phase_of_several_is_bundled_where_only_that_is_asked_for(tmp_path: Path):
    card, labels = write_small(tmp_path, SMALL_CARD.replace("any_decimals = true", "decimals = 1"))
    made = bundle(card, labels, tmp_path / "out", phases=["final"])
    assert dict(made.images) == {"final": 6}
    assert "reference_data_open.zip" not in members(made.file.read_bytes())
    with pytest.raises(UsageError, match="no phase 'finl'; did you mean 'final'"):
        bundle(card, labels, tmp_path / "no", phases=["finl"])


def test_a_folder_in_use_is_not_touched_and_dates_are_all_or_none(tmp_path: Path):
    card, labels = write_small(tmp_path)
    (tmp_path / "out").mkdir()
    write_text(tmp_path / "out" / "mine.txt", "mine")
    with pytest.raises(UsageError, match="exists already"):
        bundle(card, labels, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    card, labels = write_small(tmp_path, SMALL_CARD.replace('start = "2027-02-01 08:00:00"\n', ""))
    with pytest.raises(UsageError, match=r"phases.final: no start, but open has one"):
        bundle(card, labels, tmp_path / "new")


def test_a_program_that_does_not_work_makes_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    card, labels = write_small(tmp_path)
    whole = bundling.MODULES
    monkeypatch.setattr(bundling, "MODULES", tuple(module for module in whole if module != "challenges/readme"))
    with pytest.raises(RunError, match="gave the sample submission no score"):
        bundle(card, labels, tmp_path / "out")
    monkeypatch.setattr(bundling, "MODULES", whole)
    monkeypatch.setattr(bundling, "sample", lambda card, images, above: {"prediction.csv": (labels / "mos.csv").read_bytes()})
    with pytest.raises(RunError, match=r"public files would hold labels: .*starting_kit"):
        bundle(card, labels, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".bundle-*"))
