"""Suite cards: a list of datasets whose results are shown in one table of models by datasets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.runtime.errors import listed, near


@dataclass(frozen=True)
class SuiteCard:
    """A list of datasets, in the order of the table's columns."""

    name: str
    title: str
    datasets: tuple[str, ...]
    """Names of dataset cards, or tables (.csv, .tsv, .txt, .xlsx) by their path from the card's folder."""
    description: str = ""
    protocol: str = ""
    """The protocol of all datasets that `protocols` does not name; empty: each dataset's own default."""
    protocols: Mapping[str, str] = field(default_factory=dict)
    """Protocols by dataset, as `datasets` names them."""
    path: str = ""

    @property
    def problems(self) -> list[str]:
        """What a card of the right types can still get wrong."""
        found = [] if self.datasets else ["datasets is empty"]
        twice = sorted({name for name in self.datasets if self.datasets.count(name) > 1})
        found += [f"datasets names {listed(twice)} more than once"] if twice else []
        found += ["datasets holds an empty name"] if "" in self.datasets else []
        for name in self.protocols:
            if name not in self.datasets:
                found.append(f"protocols.{name} does not belong to a dataset of the suite{near(name, self.datasets)}")
        return found
