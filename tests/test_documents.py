"""The documents: short lines, commands that exist, links that lead somewhere, a reference that is current."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from harness.cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
GENERATED = ROOT / "docs" / "reference"
LONGEST_LINE = 120
LONGEST_README = 130
RUN = {
    "docs/quickstart.md": "tests/test_documents.py",
    "docs/guides/codecs.md": "tests/integration/test_codec_guide.py",
    "docs/guides/hold-a-challenge.md": "tests/challenges/test_contest.py",
    "docs/guides/own-model.md": "tests/integration/test_own_cards.py",
    "docs/guides/own-dataset.md": "tests/integration/test_own_cards.py",
}
"""Documents whose commands a test runs, and the test."""

if not (ROOT / "README.md").is_file():
    pytest.skip("the documents are not in an installed package", allow_module_level=True)

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def code_lines(text: str) -> dict[int, str]:
    """Lines of fenced and indented code, by their number."""
    found: dict[int, str] = {}
    fence, indented, before = False, False, ""
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*(```|~~~)", line):
            fence = not fence
        elif line.strip():
            indented = bool(re.match(r" {4}", line)) and (indented or not before.strip())
            if fence or indented:
                found[number] = line
        before = line
    return found


def commands(path: Path) -> dict[int, list[str]]:
    """The words of every `harness ...` in a document's code, by the number of its last line; no comments."""
    found: dict[int, list[str]] = {}
    whole = ""
    for number, line in code_lines(path.read_text(encoding="utf-8")).items():
        whole += line.strip()
        if whole.endswith("\\"):
            whole = whole[:-1]
            continue
        for command in re.split(r" && | \| ", whole):
            if command.startswith("harness "):
                words = shlex.split(command, comments=True)
                found[number] = words[1 : words.index(">")] if ">" in words else words[1:]
        whole = ""
    return found


def invocation(words: list[str], *, strict: bool = True) -> tuple[click.Command, list[str]]:
    """The command that the words lead to, and what is left of them; where `strict`, all its arguments are read too."""
    command: click.Command = cli
    context = click.Context(cli, info_name="harness")
    while isinstance(command, click.Group):
        words = list(words)
        if not words or words[0].startswith("-") or words[0] not in command.commands:
            # A group may choose a subcommand for words that are none: `leaderboard demo`.
            command.parse_args(context, words)
            words = [*getattr(context, "_protected_args", []), *context.args]
            if not words:
                return command, []
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, context, info_name=name)
    if strict:
        command.make_context(context.info_name, list(words), parent=context.parent)
    return command, list(words)


@each_document
def test_lines_of_documents_are_short_enough(path: Path):
    """Rows of tables cannot be broken, and what a command printed is shown as it was; commands themselves are broken."""
    text = path.read_text(encoding="utf-8")
    code = code_lines(text)
    long = [
        f"{path}:{number}: {len(line)} characters"
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > LONGEST_LINE
        if not line.lstrip().startswith("|")
        if number not in code or line.lstrip().startswith(("harness ", "pip ", "$ "))
    ]
    assert not long, "\n".join(long)


def test_the_readme_is_short_enough():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README


def test_changelog_package_and_citation_name_one_version_and_date():
    newest, date = re.findall(r"^## (\d\S+) \((.+)\)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[0]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {newest}\n" in citation
    assert f'\ndate-released: "{date}"\n' in citation
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == newest


@pytest.mark.parametrize("path", [d for d in DOCUMENTS if commands(d) and GENERATED not in d.parents], ids=lambda path: path.stem)
def test_every_shown_command_is_one_of_the_command_line(path: Path):
    """Its options exist, it has the arguments that it needs, and their values can be read."""
    wrong = []
    for number, words in commands(path).items():
        try:
            invocation(words)
        except click.exceptions.Exit:
            pass
        except Exception as error:
            wrong.append(f"{path}:{number}: harness {shlex.join(words)}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", [d for d in DOCUMENTS if d.name != "CHANGELOG.md"], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_a_sentence_exists_with_its_options(path: Path):
    """A sentence may leave out arguments, so only names are looked at. The changelog names what is gone."""
    wrong = []
    for text in re.findall(r"`(harness [^`]*)`", path.read_text(encoding="utf-8")):
        words = shlex.split(text)[1:]
        try:
            command, _ = invocation(words, strict=False)
        except click.exceptions.Exit:
            continue
        except click.ClickException as error:
            wrong.append(f"{path}: `{text}`: {error.message}")
            continue
        known = {name for option in command.params for name in [*option.opts, *option.secondary_opts]} | {"--help", "--version"}
        wrong += [f"{path}: `{text}`: no {word}" for word in words if word.startswith("--") and word.split("=")[0] not in known]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", [d for d in DOCUMENTS if commands(d) and GENERATED not in d.parents], ids=lambda path: path.stem)
def test_every_shown_command_is_run_by_a_test_or_needs_data(path: Path):
    """A document whose commands no test runs says that they need data (or a network); a dataset's page says how to get it."""
    name = str(path.relative_to(ROOT))
    if name in RUN:
        assert path.name in (ROOT / RUN[name]).read_text(encoding="utf-8")
    elif path.parent.name != "datasets":
        assert re.search(r"\bneeds?\s+(data|a\s+network)\b", path.read_text(encoding="utf-8"), re.IGNORECASE), (
            f"{path}: 'needs data' is missing"
        )


def paths_in(text: str) -> Iterator[str]:
    """Paths of the repository's files that a text names in code: `harness/models/base.py`, `docs/scale.md`."""
    for found in re.findall(r"`((?:harness|tests|docs|benchmarks|tools|models|datasets|leaderboards)/[^`\s]*)`", text):
        if not re.search(r"[<>{}*]|\.\.\.|NAME|KEY", found):
            yield found.split("::")[0]


@pytest.mark.parametrize("path", [d for d in DOCUMENTS if d.name != "CHANGELOG.md"], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_names_exists(path: Path):
    """Links between documents, and paths in code; a site's links are checked by its build too."""
    text = path.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text) if ":" not in link]
    missing = [link for link in links if not (path.parent / link).exists()]
    missing += [name for name in paths_in(text) if not (ROOT / name).exists()]
    assert not missing, f"{path}: {missing}"


def test_every_test_that_a_document_names_exists():
    names = {
        node.name
        for file in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    } | {file.stem for file in (ROOT / "tests").rglob("*.py")}
    missing = [
        f"{path}: {name}"
        for path in DOCUMENTS
        for name in re.findall(r"\b(test_\w+)", path.read_text(encoding="utf-8"))
        if name not in names
    ]
    assert not missing, "\n".join(missing)


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says():
    """`python tools/reference.py` writes it."""
    stale = [
        name for name, text in tool("reference").pages().items() if (ROOT / "docs" / name).read_text(encoding="utf-8") != text
    ]
    assert not stale, f"run `python tools/reference.py`: {stale}"


# What is run as it stands


def started(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
def test_the_readmes_six_lines_of_python_run(tmp_path: Path):
    (script,) = python_blocks(ROOT / "README.md")
    assert len([line for line in script.splitlines() if line.strip()]) <= 6
    done = started(tmp_path, sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("0.56389")
    assert float(second) == 1.0


@pytest.mark.slow
def test_the_quickstarts_commands_run_in_their_order(tmp_path: Path):
    """And print the figures that are shown, to the digits shown."""
    path = ROOT / "docs" / "quickstart.md"
    make_images, from_python = python_blocks(path)
    assert started(tmp_path, sys.executable, "-c", make_images).returncode == 0
    said = {}
    for words in commands(path).values():
        expanded = [file for word in words for file in (map(str, tmp_path.glob(word)) if "*" in word else [word])]
        done = started(tmp_path, sys.executable, "-m", "harness", *expanded)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        said[words[0]] = done.stdout
    shown = [
        re.split(r"\s{2,}", line)[:6] for line in path.read_text(encoding="utf-8").splitlines() if re.match("(psnr|ssim) ", line)
    ]
    assert len(shown) == 2
    assert all(figure in said["run"] for row in shown for figure in row)
    assert "-.062" in said["compare"]
    assert "[-.278, .141]" in said["compare"]
    assert "repeats" in said["verify"]
    done = started(tmp_path, sys.executable, "-c", from_python)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0.56389")
