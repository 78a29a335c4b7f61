"""Challenge cards: phases and their images, the submission format, the scoring, the ranking and the published board.

Challenge cards lie next to the dataset cards; `harness.cards.loading` reads them, `harness.challenges` acts on them.
This module runs on Python 3.7 too (`harness.runtime.python37`).
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.runtime.python37 import Literal


@dataclass(frozen=True)
class Phase:
    """One set of images that submissions give scores for."""

    images: int
    dataset: str = ""
    protocol: str = ""
    """The dataset and protocol whose test pairs are this phase's images; needed to submit a model, not to score a zip."""
    listed: str = ""
    """With `references` and `types`: every name, such as `{reference}_10_{type}.bmp`. Where neither `listed` nor `names` nor
    `names_file` says them, names are taken from the folder, and without it only their pattern and number are known."""
    references: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """All names, where no rule gives them."""
    names_file: str = ""
    """A file of names, one a line, relative to the card."""
    start: str = ""
    """UTC, `2027-01-31 12:00:00`; for a competition's bundle."""
    end: str = ""
    """UTC; the last phase may have none."""
    submissions_per_day: int = 0
    """Most submissions of one entrant; 0: the server's own rule."""
    submissions: int = 0
    """Most submissions of one entrant in the whole phase; 0: the server's own rule."""
    note: str = ""

    @property
    def lists_names(self) -> bool:
        """Whether the card itself gives all names."""
        return bool(self.listed or self.names or self.names_file)

    @property
    def problems(self) -> list[str]:
        """What is wrong with a phase whose fields have the right types."""
        ways = [key for key in ("listed", "names", "names_file") if getattr(self, key)]
        found = [f"{' and '.join(ways)} both give the names; keep one"] if len(ways) > 1 else []
        if self.images < 1:
            found.append(f"images = {self.images}: a phase needs images")
        elif self.listed and self.images != len(self.references) * len(self.types):
            found.append(f"images = {self.images}, but it lists {len(self.references)} references x {len(self.types)} types")
        elif self.names and self.images != len(self.names):
            found.append(f"images = {self.images}, but it names {len(self.names)}")
        return found + [f"names: {name} is listed twice" for name, count in Counter(self.names).items() if count > 1]


@dataclass(frozen=True)
class Lines:
    """The file of scores: a name, the separator and a score on each line, nothing else."""

    file: str = "output.txt"
    separator: Literal[",", ";", " ", "\t"] = ","
    header: str = ""
    """The first line, exactly; empty: the first line is an image's."""
    decimals: int = 6
    any_decimals: bool = False
    """Whether scores may have any number of decimals; ours are written with `decimals`."""
    extension: bool = True
    """Whether names are written with their extension."""
    sorted: bool = True
    """Whether lines are in the order of names."""


@dataclass(frozen=True)
class ReadmeField:
    """One line of the readme: `label : value`."""

    label: str
    fact: Literal["runtime", "operations", "cpu", "extra-data", "description", "full-reference", "fixed"]
    """How the value is obtained. runtime: seconds per image, measured. operations: GFLOP per image, counted. cpu: 1 on a CPU,
    0 on a GPU. extra-data: 1 if the model was trained with other data than the challenge's. description: one line of text.
    full-reference: always 1. fixed: `value`."""
    value: str = ""


@dataclass(frozen=True)
class Term:
    """One figure of the main score. The main score is the weighted sum of the figures of all terms."""

    figure: Literal["srcc", "plcc", "krcc", "rmse", "pairs", "2afc"]
    """srcc, plcc, krcc (tau-b). rmse: in the labels' units. pairs: the share of pairs of images that the scores put in the order
    of the labels. 2afc: over a list of pairs, the mean share of people who chose as the scores do."""
    weight: float = 1.0
    """rmse is lower-is-better: give it a negative weight."""
    fit: Literal["raw", "logistic4", "logistic5", "poly3"] = "raw"
    """The fit applied to the scores before plcc and rmse."""
    absolute: bool = False
    """Whether the figure's absolute value is used."""
    key: str = ""
    """Its name in the server's file of scores; by default SRCC, PLCC, KRCC, RMSE, PAIRS, 2AFC."""
    pairs: Literal["all", "different", "listed"] = "all"
    """Which pairs. all: those whose labels differ. different: those with a clear difference: normal cdf(|label difference| /
    sqrt(s1^2 / n1 + s2^2 / n2)) >= 0.95 with the labels' deviations and numbers of raters (ITU-T J.149). listed: those of the
    list that `pair_list` names."""
    pair_list: str = ""
    """The labels' folder holds `pairs-<pair_list>.csv`: first, second, and which is better (1 or 2), or for 2afc the share of
    people who chose the first."""
    ties: Literal["half", "wrong", "first"] = "half"
    """How a pair with equal scores counts: as half a right answer, as none, or as if the first had the higher score."""

    @property
    def name(self) -> str:
        """The figure's key in the server's file of scores."""
        return self.key or self.figure.upper()

    @property
    def problems(self) -> list[str]:
        """What is wrong with a term whose fields have the right types."""
        found = []
        if self.fit != "raw" and self.figure not in ("plcc", "rmse"):
            found.append(f"fit = {self.fit!r} has no effect on {self.figure}: only plcc and rmse depend on a fit")
        if self.weight == 0:
            found.append("weight = 0 leaves the term without effect")
        if self.figure not in ("pairs", "2afc") and (self.pairs != "all" or self.pair_list or self.ties != "half"):
            found.append(f"pairs, pair_list and ties have no effect on {self.figure}")
        if self.figure == "2afc" and not self.pair_list:
            found.append("2afc needs pair_list = '...', the list of the compared pairs")
        if self.figure == "pairs" and (self.pairs == "listed") != bool(self.pair_list):
            found.append("pairs = 'listed' and pair_list = '...' go together")
        if self.pair_list and not re.fullmatch(r"[\w-]+", self.pair_list, re.ASCII):
            found.append(f"pair_list = {self.pair_list!r} should be one word of letters, digits, - and _")
        return found


@dataclass(frozen=True)
class Scoring:
    """The main score: by default |PLCC| + |SRCC|."""

    terms: tuple[Term, ...] = (Term("plcc", absolute=True), Term("srcc", absolute=True))
    main_key: str = "MainScore"
    """The main score's name in the server's file of scores."""

    @property
    def problems(self) -> list[str]:
        """What is wrong with a scoring table whose fields have the right types."""
        found = [f"terms[{i}]: {problem}" for i, term in enumerate(self.terms) for problem in term.problems]
        found += [] if self.terms else ["terms is empty: a score needs at least one"]
        keys = Counter([self.main_key, *(term.name for term in self.terms)])
        found += [f"key {key!r} is used {count} times; give each term its own key" for key, count in keys.items() if count > 1]
        return found + [
            f"key {key!r} should hold at most 36 letters, digits, -, _ and spaces"
            for key in keys
            if not re.fullmatch(r"[\w-][\w -]{0,35}", key, re.ASCII)
        ]


@dataclass(frozen=True)
class Limit:
    """The largest runtime or number of operations, as its readme states it, that a ranked submission may have."""

    figure: Literal["runtime", "operations"]
    """Seconds, or GFLOP, per image."""
    most: float


@dataclass(frozen=True)
class Ranking:
    """How submissions are ranked."""

    by: Literal["score", "mean-rank"] = "score"
    """score: by the main score. mean-rank: by the mean of the ranks that the terms give."""
    ties: Literal["shared", "dense", "mean"] = "shared"
    """Places of equal submissions: 1, 1, 3; or 1, 1, 2; or 1.5, 1.5, 3."""
    decimals: int = -1
    """Scores are rounded to this many decimals before they are compared; -1: not rounded."""
    limits: tuple[Limit, ...] = ()
    """A submission above one of these is refused."""


@dataclass(frozen=True)
class Standing:
    """A line of the published leaderboard: figures that a team reported."""

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
    """The form of names: `A{number}_{kind}_{type}.bmp`."""
    reference: str
    """The name of an image's reference: `A{number}`."""
    phases: Mapping[str, Phase]
    default_phase: str
    lines: Lines = field(default_factory=Lines)
    readme: tuple[ReadmeField, ...] = ()
    """The readme's lines in order; none: there is no readme."""
    readme_file: str = "readme.txt"
    scoring: Scoring = field(default_factory=Scoring)
    ranking: Ranking = field(default_factory=Ranking)
    training: tuple[str, ...] = ()
    """The challenge's own datasets; a model trained on any other dataset used extra data."""
    board: tuple[Standing, ...] = ()
    inferred: tuple[str, ...] = ()
    """Facts that were inferred, because no source states them."""
    description: str = ""
    paper: str = ""
    home: str = ""
    next_step: str = ""
    """How to submit a finished zip."""
    note: str = ""
    docker_image: str = "codalab/codalab-legacy:py37"
    """The image in which a server runs the scoring program."""
    conditions: str = ""
    """The terms of participation, for a competition's bundle; Markdown."""
    contact: str = ""
    """The organisers' address, for a competition's bundle."""
    path: str = ""

    @property
    def problems(self) -> list[str]:
        """What is wrong with a card whose fields have the right types."""
        found = []
        if self.default_phase not in self.phases:
            found.append(f"default_phase = {self.default_phase!r} is not one of its phases ({', '.join(self.phases)})")
        try:
            groups = set(re.compile(self.pattern).groupindex)
        except re.error as error:
            return [*found, f"pattern is not a regular expression: {error}"]
        for key, template in (("image", self.image), ("reference", self.reference)):
            unknown = set(re.findall(r"\{(\w+)\}", template)) - groups
            found += [f"{key} = {template!r} names {word!r}, which pattern has no group for" for word in sorted(unknown)]
        for name, phase in self.phases.items():
            found += [f"phases.{name}: {problem}" for problem in phase.problems]
        found += [f"scoring.{problem}" for problem in self.scoring.problems]
        facts = {line.fact for line in self.readme}
        found += [
            f"ranking.limits: {limit.figure} is limited, but no line of the readme gives it"
            for limit in self.ranking.limits
            if limit.figure not in facts
        ]
        return found + _date_problems(self.phases)


def moment(text: str) -> datetime.datetime:
    """A date of a card, in UTC; raises ValueError."""
    found = datetime.datetime.fromisoformat(text)
    return found.astimezone(datetime.timezone.utc) if found.tzinfo else found.replace(tzinfo=datetime.timezone.utc)


def _date_problems(phases: Mapping[str, Phase]) -> list[str]:
    """Texts that are not dates, and phases that overlap or end before they start."""
    found = []
    dates: dict[str, list[datetime.datetime | None]] = {}
    for name, phase in phases.items():
        dates[name] = [None, None]
        for i, key in enumerate(("start", "end")):
            text = getattr(phase, key)
            try:
                dates[name][i] = moment(text) if text else None
            except ValueError:
                found.append(f"phases.{name}.{key} = {text!r} should be a date such as '2027-01-31 12:00:00' (UTC)")
        start, end = dates[name]
        if start and end and end <= start:
            found.append(f"phases.{name} ends ({phase.end}) before it starts ({phase.start})")
    names = list(phases)
    for before, after in zip(names, names[1:]):
        end, start = dates[before][1], dates[after][0]
        if start and not phases[before].end:
            found.append(f"phases.{before} needs an end, because {after} follows it")
        elif end and start and start < end:
            found.append(f"phases.{after} starts ({phases[after].start}) before {before} ends ({phases[before].end})")
    return found
