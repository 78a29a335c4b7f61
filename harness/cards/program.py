"""The `[program]` table of a model's card: a metric that is an external command."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

CLASS = "harness.models.program:Program"
"""The class of every card with a `[program]` table."""
PLACEHOLDERS = ("reference", "distorted", "output")
"""Placeholders in a command: the temporary files of the two images, and of the program's output."""
BESIDE = "beside:"
_PLACEHOLDER = re.compile(r"\{(\w*)\}")
_PROGRAM = re.compile(rf"({BESIDE})?[\w.+-]+|/.*|[A-Za-z]:[\\/].*", re.ASCII | re.DOTALL)
"""The program in a command. A path must be absolute (POSIX or Windows); that it exists is checked when it is used."""


@dataclass(frozen=True)
class ProgramScore:
    """Where the score is in the program's output: exactly one of `regex`, `json` and `line`."""

    regex: str = ""
    """A regular expression with one group, the number; of several matches the last counts."""
    json: str = ""
    """Keys and list positions from the root of a JSON document to the number: `pooled_metrics.vmaf.mean`."""
    line: int = 0
    """The line that is the number and nothing else: 1 is the first, -1 the last; empty lines do not count."""
    from_: Literal["stdout", "stderr", "output"] = "stdout"
    """The text that is searched: standard output, standard error, or the file `{output}` of the command."""

    @property
    def problems(self) -> list[str]:
        """What is wrong with a table whose fields have the right types."""
        if sum(map(bool, (self.regex, self.json, self.line))) != 1:
            return ["score should have exactly one of regex, json and line"]
        if self.regex:
            try:
                groups = re.compile(self.regex).groups
            except (re.error, OverflowError, RecursionError) as error:
                return [f"score.regex = {self.regex!r} is not a regular expression: {error}"]
            if groups != 1:
                return [f"score.regex = {self.regex!r} should have one group, for the number: it has {groups}"]
        if self.json and "" in self.json.split("."):
            return [f"score.json = {self.json!r} has an empty key"]
        return []


@dataclass(frozen=True)
class Program:
    """A program that scores one pair: `command` is started without a shell, in a folder that holds only the two images."""

    command: tuple[str, ...]
    """The program, a name on PATH, an absolute path or `beside:FILE` (relative to the card), and its arguments, in which
    `{reference}` and `{distorted}` stand for the two files."""
    version: tuple[str, ...]
    """A command of the same program that prints its version (or, where it has none, its usage): part of the model's identity."""
    score: ProgramScore
    input: Literal["png", "ppm", "y4m"] = "png"
    """The format of the program's input files: 8-bit RGB, or for y4m 8-bit YCbCr."""
    matrix: Literal["", "bt601", "bt709"] = ""
    """y4m: the coefficients of Y."""
    range: Literal["", "limited", "full"] = ""
    """y4m: Y in 16..235 and Cb, Cr in 16..240, or all in 0..255."""
    subsampling: Literal["", "444", "420"] = ""
    """y4m: chroma of every pixel, or the mean of 2x2 pixels, sited in their middle."""
    timeout: float = 60.0
    """Seconds after which the program is killed."""
    threads: int = 1
    """CPU cores that one process of the program uses; as many run at once as the cores allow."""
    minimum_size: int = 1
    """The smallest height and width that the program takes."""
    install: str = ""
    """How a user gets the program."""

    @property
    def problems(self) -> list[str]:
        """What is wrong with a table whose fields have the right types."""
        found = list(self.score.problems)
        for key, words in (("command", self.command), ("version", self.version)):
            if not words:
                found.append(f"{key} is empty: it should name the program and its arguments")
            elif not _PROGRAM.fullmatch(words[0]):
                places = f"a program's name on PATH, an absolute path, or '{BESIDE}FILE' next to the card"
                found.append(f"{key}[0] = {words[0]!r} should be {places}")
        if self.command and self.version and self.command[0] != self.version[0]:
            found.append(f"version[0] = {self.version[0]!r} should be the program of command, {self.command[0]!r}")
        used = [name for word in self.command[1:] for name in _PLACEHOLDER.findall(word)]
        found += [f"command lacks {{{name}}}" for name in PLACEHOLDERS[:2] if name not in used]
        found += [
            f"command holds {{{name}}}: only {{reference}}, {{distorted}} and {{output}} are known"
            for name in used
            if name not in PLACEHOLDERS
        ]
        if (self.score.from_ == "output") != ("output" in used):
            found.append("score.from = 'output' and {output} in command belong together")
        yuv = {"matrix": self.matrix, "range": self.range, "subsampling": self.subsampling}
        if self.input == "y4m":
            found += [f"{key} is missing: input = 'y4m' needs it" for key, v in yuv.items() if not v]
        else:
            found += [f"{key} = {value!r} belongs to input = 'y4m'" for key, value in yuv.items() if value]
        if not 0 < self.timeout <= 86400:
            found.append(f"timeout = {self.timeout:g} should be between 0 and 86400 seconds")
        counts = {"threads": self.threads, "minimum_size": self.minimum_size}
        return found + [f"{key} = {value} should be at least 1" for key, value in counts.items() if value < 1]


def program_table(program: Program | ProgramScore) -> Mapping[str, object]:
    """This program as the table of a card, without keys at their defaults."""
    given = {f.name.rstrip("_"): getattr(program, f.name) for f in fields(program) if getattr(program, f.name) != f.default}
    for key, value in given.items():
        if isinstance(value, ProgramScore):
            given[key] = program_table(value)
        elif isinstance(value, tuple):
            given[key] = list(value)
    return given
