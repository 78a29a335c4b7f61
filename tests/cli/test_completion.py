"""Shell completion, asked as bash, zsh and fish ask: a process with the words in its environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CARD = 'name = "mine"\ntitle = "A model of mine"\nclass = "mine:Mine"\nhigher_is_better = true\n'


def _asked(shell: str, *words: str, code: str = "", **environment: str) -> str:
    """What the shell is answered where the last word is being typed."""
    line, place = " ".join(("harness", *words)), words[-1] if shell == "fish" else str(len(words))
    reported = {"_HARNESS_COMPLETE": f"{shell}_complete", "COMP_WORDS": line, "COMP_CWORD": place}
    program = ["-c", code] if code else ["-m", "harness"]
    command = [sys.executable, *program]
    done = subprocess.run(command, env=os.environ | reported | environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def _values(*words: str, **environment: str) -> list[str]:
    return [line.partition(",")[2] for line in _asked("bash", *words, **environment).splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("li",), ["list"]),
        (("run", "--dat"), ["--dataset"]),
        (("run", "ahiq-t"), ["ahiq-tiny", "ahiq-tiny-heads"]),
        (("run", "psnr", "--dataset", "tid"), ["tid2008", "tid2013"]),
        (("run", "psnr", "--dataset", "tid2013", "--protocol", ""), ["by-reference", "full"]),
        (("run", "psnr", "--test-on", "csiq,tid"), ["csiq,tid2008", "csiq,tid2013"]),
        (("run", "psnr", "--suite", ""), ["classic"]),
        (("submit", "psnr", "--challenge", "ntire"), ["ntire2021", "ntire2022-fr"]),
        (("submit", "psnr", "--challenge", "ntire2022-fr", "--phase", ""), ["test", "validation"]),
        (("show", "ntire2022"), ["ntire2022-fr"]),
        (("data", "get", "kad"), ["kadid10k"]),
        (("weights", "check", "lpips-v"), ["lpips-vgg", "lpips-vgg-v0.0"]),
        (("leaderboard", "wr"), ["write"]),
        (("leaderboard", "mdi"), ["mdid"]),
        (("compare", "ssim", "ssim-"), ["ssim-256", "ssim-rgb", "ssim-sr"]),
        (("list", "d"), ["datasets"]),
    ],
    ids=" ".join,
)
def test_commands_options_and_names_are_offered(words: tuple[str, ...], offered: list[str]):
    assert _values(*words) == offered


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "kind"), [(("run", "cards/x"), "file"), (("verify", ""), "dir"), (("run", "--runs", ""), "dir")]
)
def test_files_and_folders_are_left_to_the_shell(words: tuple[str, ...], kind: str):
    assert _asked("bash", *words).split(",")[0] == kind


def test_zsh_and_fish_get_titles_too():
    assert _asked("zsh", "run", "psnr-s").splitlines() == ["plain", "psnr-sr", "PSNR (Y, border 4)"]
    assert _asked("fish", "run", "psnr-s").splitlines() == ["plain,psnr-sr\tPSNR (Y, border 4)"]


@pytest.mark.slow
def test_own_cards_are_offered_and_a_broken_one_stops_nothing(tmp_path: Path):
    (tmp_path / "mine.toml").write_text(CARD)
    (tmp_path / "broken.toml").write_text("name = ")
    assert _values("run", "--cards", str(tmp_path), "mi") == ["mine"]
    assert _values("run", "mi", HARNESS_CARDS=str(tmp_path)) == ["mine"]
    assert _asked("bash", "run", "--cards", str(tmp_path / "absent"), "psnr-s") == "file,psnr-s\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("run", "ah"), ("run", "psnr", "--dataset", "pipal", "--protocol", ""), ("show", "p")], ids=" ".join
)
def test_completion_imports_no_heavy_library(words: tuple[str, ...]):
    code = (
        "import sys; from harness.cli.main import main\n"
        "try: main([])\n"
        "finally: print(sorted({'torch', 'pandas', 'scipy', 'ray', 'mlflow', 'cv2', 'PIL', 'requests'} & set(sys.modules)))"
    )
    assert _asked("bash", *words, code=code).splitlines()[-1] == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_it_takes(shell: str):
    script = subprocess.run(
        [sys.executable, "-m", "harness"],
        env=os.environ | {"_HARNESS_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"_HARNESS_COMPLETE={shell}_complete" in script
    if program := shutil.which(shell):
        assert subprocess.run([program, "-n"], input=script, text=True, check=False).returncode == 0


BASH = """eval "$(_HARNESS_COMPLETE=bash_source harness)"
COMP_WORDS=(harness run psnr --dataset kad) COMP_CWORD=4
_harness_completion harness; echo "${COMPREPLY[@]}"
"""
FISH = """_HARNESS_COMPLETE=fish_source harness | source
complete -C"harness run psnr --dataset kad"
"""
# A terminal is needed to press Tab in zsh: here its own functions are replaced by ones that print what they are given.
ZSH = """compdef() { :; }
eval "$(_HARNESS_COMPLETE=zsh_source harness)"
_describe() { print -l -- "${(@P)3}"; }
compstate() { :; }
words=(harness run psnr --dataset kad) CURRENT=5
_harness_completion
"""


@pytest.mark.slow
@pytest.mark.parametrize(("shell", "options", "script"), [("bash", "--norc", BASH), ("fish", "-N", FISH), ("zsh", "-f", ZSH)])
def test_a_shell_completes_a_line(shell: str, options: str, script: str, tmp_path: Path):
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"no {shell} on this machine")
    (tmp_path / "harness").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m harness "$@"\n')
    (tmp_path / "harness").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    given = os.environ | {"PATH": path, "HOME": str(tmp_path)}
    done = subprocess.run([program, options, "-c", script], env=given, capture_output=True, text=True, check=True)
    assert re.split(r"[\t:\n]", done.stdout)[0] == "kadid10k"
