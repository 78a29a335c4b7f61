"""A run's identity (everything that determines its scores, and nothing else) and its key, the identity's hash.

The identity is an allow-list. A field at the default that FORMAT 2 gave it is not hashed, and defaults never change, so that a
field that is added later changes no key. Not in it: device, threads, batch, workers, library versions, paths, prose, and import
paths of the harness's own classes; the conditions under which bits repeat are in `harness.results.conditions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.cards.schema import Cropping, ModelCard, Recipe
from harness.files.atomic import sha256_json

FORMAT = 2
"""The version of the format of identities and of records."""
_CROPPING = asdict(Cropping())
_RECIPE = asdict(Recipe(epochs=0, optimizer="adam", rate=0.0))
_REQUIRED = ("epochs", "optimizer", "rate")


@dataclass(frozen=True)
class RunIdentity:
    """What determines the scores of a run."""

    card: Mapping[str, Any]
    """The resolved model card without descriptive text (`card_facts`)."""
    code: Mapping[str, Any]
    """The model's code (`harness.models.identity.code_of`); empty for scores from a file."""
    weights: Mapping[str, str]
    """Hashes of tensors by the name of the part; of given scores, the hash of the scores."""
    labels_higher_is_better: bool
    """The labels' polarity."""
    table: str
    """Hash of the table's rows in use: names, pairing, labels, references."""
    images: str | None
    """Hash of the content of the images in use; None where there are none."""
    split: str
    """Hash of which image is in which part."""
    protocol: str
    """The protocol's name."""
    seed: int
    """The run's seed."""
    limit: int | None = None
    """The largest number of pairs of each scored part (`--limit`)."""

    def facts(self) -> dict[str, object]:
        """Plain values, as records keep them."""
        return {"format": FORMAT, **asdict(self), "weights": dict(sorted(self.weights.items()))}

    @property
    def key(self) -> str:
        """16 hexadecimal digits over the identity."""
        return key_of(self.facts())


def card_facts(card: ModelCard, *, trained: bool) -> dict[str, object]:
    """The part of a resolved model card that determines scores; the recipe only where the model is trained.

    A backbone that is a file is identified by its tensors, which are among the weights.
    """
    model = {k: v for k, v in card.model.items() if k != "backbone" or v in ("", "random")}
    if model.get("members"):
        # Classes and programs of members are part of the identity's code.
        others = ("class", "version", "program")
        model["members"] = [{k: v for k, v in dict(member).items() if k not in others} for member in model["members"]]
    facts: dict[str, object] = {"name": card.name, "higher_is_better": card.higher_is_better, "model": model}
    if cropping := {k: v for k, v in asdict(card.protocol).items() if v != _CROPPING[k]}:
        facts["protocol"] = cropping
    facts |= {"identical": card.identical} if card.identical is not None else {}
    if trained and card.recipe is not None:
        facts["recipe"] = {k: v for k, v in asdict(card.recipe).items() if k in _REQUIRED or v != _RECIPE[k]}
    return facts


def key_of(facts: Mapping[str, Any]) -> str:
    """The key of an identity's facts: 16 hexadecimal digits."""
    return sha256_json(facts)[:16]
