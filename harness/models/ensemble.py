"""An ensemble as a model: a weighted sum of its members' scaled scores; scalings and weights are fixed in the card.

A card's `[model]` table holds everything: the members' classes and settings, their croppings, scalings and weights
(`harness ensemble` writes such cards). Each member is scored with its own cropping (`harness.engine.scorer.Scorer`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.cards.schema import Cropping, ModelCard, parse_card
from harness.models import build, score_scaling, version_of
from harness.models.base import Model
from harness.models.capabilities import capabilities, move
from harness.models.score_scaling import Scaling
from harness.runtime.errors import UsageError, listed
from harness.statistics.correlations import Floats

if TYPE_CHECKING:
    import torch

_CARD_KEYS = ("name", "class", "higher_is_better", "identical", "model", "protocol", "program", "requires", "extra")
"""Keys of a member's table that are keys of a model's card."""
KEYS = (*_CARD_KEYS, "weight", "scaling", "version", "record")
SCORES, FILE = "scores", "file"
"""Names of parts: `member/scores` is filled by a file of scores, `member/file` by one of weights."""


@dataclass
class Member:
    """One member: a model with its cropping, or a file of scores (`model` is None)."""

    name: str
    model: Any
    protocol: Cropping
    identical: float | None
    sign: float
    """-1.0 where lower scores are better."""
    scaling: Scaling
    weight: float
    scores: Mapping[str, float] = field(default_factory=dict)
    """By image name, for a member without a model."""

    def known(self, names: Sequence[str]) -> list[float]:
        """The file's scores of these images. Raises UsageError naming those that it lacks."""
        absent = [name for name in names if name not in self.scores]
        if absent:
            raise UsageError(
                f"{self.name} exists only as a file of scores, with none for {len(absent)} of these images: {listed(absent, 5)}; "
                "only the images that it names can be scored with it"
            )
        return [self.scores[name] for name in names]


class Ensemble(Model):
    """`intercept` + sum over members of weight * scaling(score turned to higher-is-better).

    `members`: tables as in a card's `[[model.members]]`; `fitted`: the fitting data, part of the key.
    """

    version = 1
    higher_is_better = True
    combines_members = True

    def __init__(
        self,
        members: Sequence[Mapping[str, Any]],
        intercept: float = 0.0,
        fitted: Mapping[str, Any] | None = None,
        *,
        path: str = "",
    ) -> None:
        where = path or "an ensemble"
        if not members:
            raise UsageError(f"{where}: [model] has no members")
        names = [str(table.get("name")) for table in members]
        if len(set(names)) < len(names):
            raise UsageError(f"{where}: members with the same name: {listed(sorted({n for n in names if names.count(n) > 1}))}")
        self.intercept = float(intercept)
        self.members = [_member(table, where, path) for table in members]
        self.minimum_size = max((capabilities(m.model).minimum_size for m in self.members if m.model is not None), default=1)
        found = {m.name: known for m in self.members if m.model is not None and (known := capabilities(m.model).details)}
        self.details = found or None

    @classmethod
    def from_card(cls, card: ModelCard) -> Ensemble:
        """Built from a card, whose path is needed for the members' own modules."""
        return cls(**card.model, path=card.path)

    def combine(self, values: Floats) -> Floats:
        """Scores (n,) of the ensemble from the members' own scores (members, n)."""
        # One member after the other, so that an image's score does not depend on how many are scored with it.
        total = np.full(np.shape(values)[1], self.intercept)
        for member, row in zip(self.members, values, strict=True):
            total += member.weight * member.scaling(member.sign * np.asarray(row, dtype=np.float64))
        return total

    def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
        """Scores (N,) of uncropped batches, for members that accept any size; float32 RGB in [0, 1], (N, 3, H, W)."""
        import torch

        rows = []
        for member in self.members:
            if member.model is None:
                raise UsageError(f"{member.name} exists only as a file of scores: it cannot score images")
            scores = member.model.score(reference, distorted).double().cpu().numpy()
            rows.append(np.where(np.isposinf(scores), member.identical, scores) if member.identical is not None else scores)
        return torch.from_numpy(self.combine(np.stack(rows))).float().to(distorted.device)

    def load_part(self, part: str, state: Mapping[str, torch.Tensor]) -> None:
        """Fill `member/part`, or all of a member from one file (`member/file`)."""
        model, inner = self._named(part).model, part.rpartition("/")[2]
        if inner == FILE:
            (getattr(model, "load_state", None) or model.load_state_dict)(state)
        else:
            model.load_part(inner, state)

    def load_scores(self, part: str, path: Path) -> None:
        """Read the scores of `member/scores` from a file of name,score."""
        from harness.files.score_table import read_scores

        frame = read_scores(path)
        self._named(part).scores = {name: float(score) for name, score in zip(frame["name"], frame["score"], strict=True)}

    def of_names(self, names: Sequence[str]) -> list[float]:
        """Scores of images by name, where every member is a file of scores. Raises UsageError for names that one lacks."""
        return [float(v) for v in self.combine(np.array([member.known(names) for member in self.members]))]

    def _named(self, part: str) -> Member:
        members = {member.name: member for member in self.members}
        if (name := part.rpartition("/")[0]) not in members:
            raise UsageError(f"[[weights]] name = {part!r}: the ensemble has no such member (it has {listed(list(members))})")
        return members[name]

    def eval(self) -> Ensemble:
        """Set all members that have an evaluation mode to it."""
        for member in self.members:
            if callable(getattr(member.model, "eval", None)):
                member.model.eval()
        return self

    def to(self, device: str) -> Ensemble:
        """Move all members that can be moved to `device`."""
        for member in self.members:
            if member.model is not None:
                move(member.model, device)
        return self

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """The parameters of all members that are networks."""
        for member in self.members:
            if callable(getattr(member.model, "named_parameters", None)):
                yield from ((f"{member.name}.{name}", parameter) for name, parameter in member.model.named_parameters())


def _member(table: Mapping[str, Any], where: str, path: str) -> Member:
    name = str(table.get("name"))
    place = f"{where}: member {name!r}"
    unknown = sorted(set(table) - set(KEYS))
    absent = [key for key in ("name", "higher_is_better", "weight", "scaling") if key not in table]
    if unknown or absent:
        words = [f"{what} keys {listed(keys)}" for what, keys in (("unknown", unknown), ("missing", absent)) if keys]
        raise UsageError(f"{place}: {' and '.join(words)}")
    card = member_card(table, path)
    model = None
    if card is not None:
        if "version" in table and (present := version_of(card)) != table["version"]:
            raise UsageError(
                f"{place}: its scores have changed since this ensemble was made (version {table['version']}, now {present}), "
                "so its frozen scaling is no longer valid; make the ensemble again"
            )
        model = build(card, None)
    return Member(
        name,
        model,
        card.protocol if card is not None else Cropping(),
        card.identical if card is not None else None,
        1.0 if table["higher_is_better"] else -1.0,
        score_scaling.of_table(table["scaling"], place),
        float(table["weight"]),
    )


def member_card(table: Mapping[str, Any], path: str) -> ModelCard | None:
    """A member's own card, from its table in the ensemble's; None for one that exists only as a file of scores."""
    if not table.get("class"):
        return None
    kept = {k: table[k] for k in _CARD_KEYS if k in table}
    return parse_card(ModelCard, {"title": str(table["name"]), **kept}, path)
