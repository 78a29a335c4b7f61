"""`harness.evaluate`: names, tables, DataFrames and the caller's own objects, which are not modified."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from small import write_table

import harness
from harness.results.record import read_record
from harness.runtime.errors import UsageError


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


CALLS: list[str] = []


@dataclass(frozen=True)
class Distance:
    """A frozen dataclass with attributes that the harness has words of its own for."""

    alpha: float = 1.0
    protocol: str = "half"
    identical: str = "mine"
    members: tuple[int, ...] = (1, 2)
    higher_is_better: bool = False

    def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
        CALLS.append("scored")
        return ((reference - distorted).abs() ** self.alpha).mean((1, 2, 3))

    def details(self) -> str:
        return "a method, not facts"


class Slotted:
    __slots__ = ("power",)
    higher_is_better = False

    def __init__(self, power: float) -> None:
        self.power = power

    def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
        CALLS.append("scored")
        return ((reference - distorted).abs() ** self.power).mean((1, 2, 3))


class Named(Slotted):
    __slots__ = ()

    def identity(self) -> str:
        return f"power {self.power}"


class Network(torch.nn.Module):
    higher_is_better = False

    def __init__(self, power: Any = 1.0) -> None:
        super().__init__()
        self.power = power
        self.members = [1, 2]
        self.drop = torch.nn.Dropout(0.5)

    def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
        CALLS.append("scored")
        return self.drop((reference - distorted).abs() ** float(self.power)).mean((1, 2, 3))


@pytest.mark.slow
def test_a_name_and_a_tables_path_give_the_figures_of_the_command_line(table: Path):
    found = harness.evaluate("psnr", table)
    assert found.srcc == read_record(found.path).test.srcc
    assert found.ci["srcc"][0] <= found.srcc <= found.ci["srcc"][1]
    assert list(found.scores.columns) == ["name", "score", "part"]
    assert len(found.scores) == found.agreement.n == 36
    assert found.to_json()["key"] == found.key == found.path.name
    assert harness.evaluate("psnr", str(table)).created == found.created


@pytest.mark.slow
def test_a_frame_with_a_tables_columns_is_a_dataset(table: Path):
    frame = pd.read_csv(table)
    assert harness.evaluate("psnr", frame, root=table.parent).srcc == harness.evaluate("psnr", table).srcc
    with pytest.raises(UsageError, match="missing columns"):
        harness.evaluate("psnr", frame.drop(columns="score"), root=table.parent)


@pytest.mark.slow
@pytest.mark.parametrize("make", [Distance, lambda: Named(1.0), Network])
def test_an_object_that_can_be_distinguished_from_others_is_scored_once(table: Path, make: Any):
    first = harness.evaluate(make(), table)
    CALLS.clear()
    second = harness.evaluate(make(), table)
    assert (second.srcc, second.path, CALLS) == (first.srcc, first.path, [])
    assert second.rebuildable


@pytest.mark.slow
@pytest.mark.parametrize("make", [Distance, Named, Network])
def test_two_settings_are_two_models(table: Path, make: Any):
    assert harness.evaluate(make(2.0), table).path != harness.evaluate(make(3.0), table).path


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: Slotted(1.0), lambda: Network(torch.nn.Parameter), lambda: Network(object())])
def test_any_other_object_is_scored_every_time_and_marked(table: Path, make: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Network, "score", lambda self, a, b: Slotted(1.0).score(a, b))
    one, two = harness.evaluate(make(), table), harness.evaluate(make(), table)
    assert one.srcc == two.srcc
    assert one.path != two.path
    assert not one.rebuildable


@pytest.mark.slow
def test_a_module_is_scored_in_evaluation_mode_and_given_back_as_it_was(table: Path):
    model = Network().train()
    before = dict(vars(model))
    found = harness.evaluate(model, table)
    assert model.training
    assert dict(vars(model)) == before
    assert found.srcc == harness.evaluate(Distance(), table).srcc


def test_verify_says_that_an_object_cannot_be_built_from_a_record(table: Path):
    found = harness.verify(harness.evaluate(Named(1.0), table).path)
    assert not found.ok
    assert "was a Python object" in found.findings[0].text


@pytest.mark.parametrize(
    ("model", "words"),
    [(object(), "has no score"), (type("M", (), {"score": print})(), "higher_is_better should be True or False")],
)
def test_what_is_no_model_is_refused_by_name(table: Path, model: Any, words: str):
    with pytest.raises(UsageError, match=words):
        harness.evaluate(model, table)


def test_an_object_is_refused_with_workers(table: Path):
    with pytest.raises(UsageError, match="cannot be sent to workers"):
        harness.evaluate(Named(1.0), table, workers=2)


def test_models_and_datasets_are_listed_and_the_version_is_the_packages():
    assert {"psnr", "ahiq"} <= set(harness.list_models())
    assert {"pipal", "demo"} <= set(harness.list_datasets())
    assert harness.__version__.count(".") == 2
    assert set(harness.__all__) <= set(dir(harness))
