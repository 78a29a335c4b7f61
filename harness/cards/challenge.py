"""What a challenge is, as a card says it: which images, how scores are handed in, how they are judged, who stood where.

Challenge cards lie beside the dataset cards; `harness.cards.loading` reads them, `harness.challenges` acts on them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Phase:
    """One set of images that scores are handed in for."""

    dataset: str
    protocol: str
    """The dataset and its protocol whose tested pairs are this phase's."""
    images: int
    listed: str = ""
    """With `references` and `types`: every name, `{reference}_10_{type}.bmp`. Empty: names are taken from the folder, and
    without it only their pattern and number are known."""
    references: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Lines:
    """The file of scores: a name, the separator and a score on each line, nothing else."""

    file: str = "output.txt"
    separator: Literal[",", ";", " ", "\t"] = ","
    decimals: int = 6
    extension: bool = True
    """Whether names are written with their extension."""
    sorted: bool = True
    """Whether lines stand in the order of names."""


@dataclass(frozen=True)
class ReadmeField:
    """One line of the readme: `label : value`."""

    label: str
    fact: Literal["runtime", "cpu", "extra-data", "description", "full-reference", "fixed"]
    """Where the value comes from. runtime: seconds per image, measured. cpu: 1 on a CPU, 0 on a GPU. extra-data: 1 if
    anything but the challenge's own data went into the model. description: one line of text. full-reference: always 1.
    fixed: `value`."""
    value: str = ""


@dataclass(frozen=True)
class Scoring:
    """Main score = PLCC + SRCC."""

    plcc: Literal["raw", "poly3", "logistic4", "logistic5"] = "raw"
    """What is done to the scores before PLCC."""
    absolute: bool = True
    """Whether the absolute values of both correlations are taken."""
    main_key: str = "MainScore"
    srcc_key: str = "SRCC"
    plcc_key: str = "PLCC"
    """What the server's scores.txt calls them."""


@dataclass(frozen=True)
class Standing:
    """A line of the published board: numbers that others reported."""

    team: str
    phase: str
    source: str
    status: Literal["read", "unverified"]
    main: float | None = None
    plcc: float | None = None
    srcc: float | None = None
    note: str = ""


@dataclass(frozen=True)
class ChallengeCard:
    """One challenge: its phases, its submission format, its score and its board."""

    name: str
    title: str
    pattern: str
    r"""A distorted image's whole name, a regular expression; its groups fill `image` and `reference`. The group `kind` is the
    class of an image and `type` its id: `A(?P<number>\d{4})_(?P<kind>\d\d)_(?P<type>\d\d)\.bmp`."""
    image: str
    """How names are spelt: `A{number}_{kind}_{type}.bmp`."""
    reference: str
    """The reference of a name: `A{number}`."""
    phases: Mapping[str, Phase]
    default_phase: str
    lines: Lines = field(default_factory=Lines)
    readme: tuple[ReadmeField, ...] = ()
    """The readme's lines in order; none: there is no readme."""
    readme_file: str = "readme.txt"
    scoring: Scoring = field(default_factory=Scoring)
    training: tuple[str, ...] = ()
    """Datasets that are the challenge's own; a model trained on any other used extra data."""
    board: tuple[Standing, ...] = ()
    inferred: tuple[str, ...] = ()
    """What no source says and was inferred."""
    description: str = ""
    paper: str = ""
    home: str = ""
    next_step: str = ""
    """What to do with a finished zip."""
    note: str = ""
    path: str = ""

    @property
    def problems(self) -> list[str]:
        """What a card of the right types can still get wrong."""
        found = []
        if self.default_phase not in self.phases:
            found.append(f"default_phase = {self.default_phase!r} is none of its phases ({', '.join(self.phases)})")
        try:
            groups = set(re.compile(self.pattern).groupindex)
        except re.error as error:
            return [*found, f"pattern is no regular expression: {error}"]
        for key, template in (("image", self.image), ("reference", self.reference)):
            unknown = set(re.findall(r"\{(\w+)\}", template)) - groups
            found += [f"{key} = {template!r} names {word!r}, which pattern has no group for" for word in sorted(unknown)]
        for name, phase in self.phases.items():
            if phase.listed and phase.images != len(phase.references) * len(phase.types):
                count = f"{len(phase.references)} references x {len(phase.types)} types"
                found.append(f"phases.{name}: images = {phase.images}, but it lists {count}")
        return found
