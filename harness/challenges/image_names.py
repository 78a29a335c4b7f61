"""Image names of a challenge's phases: the list of names, the parts of a name, and the phase that names belong to."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.cards.challenge import ChallengeCard
from harness.runtime.errors import UsageError, listed, near
from harness.runtime.python37 import cached_property

_LARGEST = 16 << 20


@dataclass(frozen=True)
class Names:
    """The names of one phase: all of them, or, where the card does not list them, their pattern and number."""

    card: ChallengeCard
    phase: str
    known: tuple[str, ...] | None

    @property
    def count(self) -> int:
        """How many images the phase has, by its card."""
        return self.card.phases[self.phase].images

    def holds(self, name: str) -> bool:
        """Whether `name`, in this exact spelling, is an image of this phase (as far as is known)."""
        return self.intended(name) == name

    def intended(self, text: str) -> str | None:
        """The image that `text` refers to: in any letter case, with a folder, without or with another extension."""
        if self.known is not None:
            return _by_stem(self.known).get(_stem(text))
        extension = PurePosixPath(self.card.image).suffix
        match = _pattern(self.card.pattern).fullmatch(_stem(text) + extension)
        return _filled(self.card.image, match) if match else None

    @cached_property
    def absent_elsewhere(self) -> dict[str, str]:
        """The stems of other phases' listed names, with the phase that they belong to."""
        others = {p: all_names(self.card, p) or () for p in self.card.phases if p != self.phase}
        return {stem: p for p, names in others.items() for stem in _by_stem(names)}

    def phase_of(self, text: str) -> str | None:
        """Another phase of the challenge that lists the image `text`."""
        return self.absent_elsewhere.get(_stem(text))


@dataclass(frozen=True)
class Parts:
    """The parts of a name: the reference, the class of the distortion and its id; empty where the name lacks them."""

    reference: str
    kind: str
    type: str


def parts_of(card: ChallengeCard, name: str) -> Parts:
    """The parts of `name` by the card's pattern."""
    match = _pattern(card.pattern).fullmatch(name)
    if match is None:
        return Parts("", "", "")
    groups = match.groupdict()
    return Parts(_filled(card.reference, match), groups.get("kind") or "", groups.get("type") or "")


def usable(card: ChallengeCard) -> bool:
    """Whether the card's pattern is a regular expression."""
    try:
        _pattern(card.pattern)
    except re.error:
        return False
    return True


def fits(card: ChallengeCard, name: str) -> bool:
    """Whether `name` matches the card's pattern of names."""
    return _pattern(card.pattern).fullmatch(name) is not None


def all_names(card: ChallengeCard, phase: str) -> tuple[str, ...] | None:
    """Every name of a phase in order, or None where the card does not list them.

    Raises UsageError where its file of names cannot be read, or has another number of names than the card says.
    """
    about = card.phases[phase]
    if not about.names_file:
        return tuple(sorted(about.names)) or (_filled_in(about.listed, about.references, about.types) if about.listed else None)
    path, what = Path(card.path).parent / about.names_file, f"{card.name}, phase {phase}"
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            raise UsageError(f"{path}: not a file of names of at most {_LARGEST:,} bytes ({what}: names_file)")
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {error} ({what}: names_file)") from None
    count = len(set(names))
    if count != len(names) or count != about.images:
        raise UsageError(f"{path}: {count:,} different names in {len(names):,} lines, {what} has {about.images:,} images")
    return tuple(sorted(names))


@functools.lru_cache(None)
def _filled_in(listed: str, references: tuple[str, ...], types: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(listed.replace("{reference}", r).replace("{type}", t) for r in references for t in types))


@functools.lru_cache(16)
def _by_stem(names: tuple[str, ...]) -> dict[str, str]:
    return {_stem(name): name for name in names}


def names_of(card: ChallengeCard, phase: str, from_folder: Sequence[str] | None = None) -> Names:
    """The names of a phase; where the card does not list them, those in its folder."""
    return Names(card, phase, all_names(card, phase) or (tuple(sorted(from_folder)) if from_folder is not None else None))


def phase_named(card: ChallengeCard, phase: str | None) -> str:
    """The phase called `phase`, or the card's default; raises UsageError with similar names."""
    if phase is not None and phase not in card.phases:
        known = list(card.phases)
        raise UsageError(f"{card.name} has no phase {phase!r}{near(phase, known)} (it has {listed(known)})")
    return phase or card.default_phase


def inferred(
    texts: Iterable[str], cards: Sequence[ChallengeCard], counts: Collection[int] = ()
) -> tuple[ChallengeCard, str] | None:
    """The challenge and phase that names belong to, in any spelling; None where fewer than half match any.

    Phases that list their names come first: a phase with a pattern only would accept any name. Of several such phases, one
    with as many images as `counts` says is preferred.
    """
    stems = {_stem(text) for text in texts}
    candidates = [(card, p) for card in cards for p in card.phases]
    overlap = [(len(stems & _by_stem(all_names(card, p) or ()).keys()), i) for i, (card, p) in enumerate(candidates)]
    most, best = max(overlap, default=(0, 0))
    if stems and 2 * most >= len(stems):
        return candidates[best]
    for card, p in sorted(candidates, key=lambda each: each[0].phases[each[1]].images not in counts):
        pattern, extension = _pattern(card.pattern), PurePosixPath(card.image).suffix
        fitting = sum(bool(pattern.fullmatch(stem + extension)) for stem in stems)
        if not card.phases[p].lists_names and 2 * fitting >= max(len(stems), 1):
            return card, p
    return None


def _stem(text: str) -> str:
    """A name without folders and extension, in lower case."""
    name = text.replace("\\", "/").rpartition("/")[2].lower()
    stem, dot, extension = name.rpartition(".")
    return stem if dot and stem and extension.isalnum() and not extension.isdigit() else name


@functools.lru_cache(None)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


def _filled(template: str, match: re.Match[str]) -> str:
    for key, value in match.groupdict().items():
        template = template.replace(f"{{{key}}}", value or "")
    return template
