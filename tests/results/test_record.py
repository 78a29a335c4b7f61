"""record.json: every field's type is checked, a record survives writing and reading, and its schema is documented."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from record_factory import make, repeated, typed

from harness.results.record import Record, RepeatsRecord, parse_record, read_record
from harness.runtime.errors import UsageError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from record_schema import schema

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "record.schema.json"


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path):
    place, document = make(tmp_path, "net", trained=True)
    record = read_record(place)
    assert isinstance(record, Record)
    assert record.path == place
    assert typed(record.to_json()) == record
    assert record.srcc == document["metrics"]["test"]["srcc"]
    assert record.ci["srcc"] == tuple(document["metrics"]["test"]["ci"]["srcc"])
    assert len(record.scores) == 180


def test_repeated_splits_are_a_type_of_their_own(tmp_path: Path):
    place, _ = repeated(tmp_path, "psnr")
    record = read_record(place)
    assert isinstance(record, RepeatsRecord)
    assert [repeat.repeat for repeat in record.repeats] == [0, 1, 2]
    assert record.higher_is_better


def test_the_command_follows_from_the_request(tmp_path: Path):
    _, document = make(tmp_path, "net", seed=2, settings={"recipe.epochs": "3"})
    assert typed(document).command == "harness run net --dataset toy --seed 2 --set recipe.epochs=3"
    assert "command" not in typed(document).to_json()
    assert typed(document | {"request": {"model": "a b", "dataset": "$(x)"}}).command == "harness run 'a b' --dataset '$(x)'"


FREE = ("libraries", "by_kind", "content", "protocols", "model", "request", "identity")
"""Tables whose keys are not the record's."""


def refusal(data: bytes, path: Path) -> str:
    """What reading these bytes as a record says; empty where it is one."""
    try:
        parse_record(data, path)
    except UsageError as error:
        return str(error)
    return ""


def places(document: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of a document of tables."""
    found = []
    for key, value in document.items():
        found.append((*path, key))
        if isinstance(value, dict) and key not in FREE:
            found += places(value, (*path, key))
    return found


@pytest.mark.parametrize("kind", ["deleted", "null", "text", "number", "list", "table"])
def test_any_field_of_another_kind_is_one_line_that_names_file_and_field(tmp_path: Path, kind: str):
    """Any field of another kind is one line that names file and field or no matter."""
    _, document = make(tmp_path, "net", trained=True)
    values = {"null": None, "text": "x", "number": 7.5, "list": [[1]], "table": {"x": {"y": []}}}
    refused = 0
    for path in places(document):
        damaged = json.loads(json.dumps(document))
        inner = damaged
        for key in path[:-1]:
            inner = inner[key]
        if kind == "deleted":
            del inner[path[-1]]
        else:
            inner[path[-1]] = values[kind]
        said = refusal(json.dumps(damaged).encode(), tmp_path / "record.json")
        refused += bool(said)
        assert not said or said.startswith(f"{tmp_path / 'record.json'}: "), path
        assert len(said.splitlines()) <= 1, path
        assert not said or path[0] in said, (path, said)
    assert refused > (20 if kind in ("deleted", "null") else 80)


@pytest.mark.parametrize("text", ['"\\ud800"', "1e999", "123456789012345678901234567890", "NaN", "[" * 100_000])
def test_values_that_cannot_be_kept_are_refused(tmp_path: Path, text: str):
    assert "not a readable record" in refusal(f'{{"format": 2, "note": {text}}}'.encode(), tmp_path / "record.json")


def test_a_record_of_format_1_says_how_to_make_it_again_or_to_test_its_weights(tmp_path: Path):
    old = {"format": 1, "command": "harness run net --dataset toy", "training": {"steps": 3}}
    with pytest.raises(UsageError) as error:
        parse_record(json.dumps(old).encode(), tmp_path / "record.json")
    assert "make it again (harness run net --dataset toy)" in str(error.value)
    assert f"--weights {tmp_path / 'weights.safetensors'}" in str(error.value)


def test_the_schema_in_the_documents_is_the_codes():

    def without_order(value: object) -> object:
        """Versions of msgspec write the alternatives of a field in orders of their own."""
        if isinstance(value, dict):
            return {key: without_order(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return sorted((without_order(inner) for inner in value), key=lambda inner: json.dumps(inner, sort_keys=True))
        return value

    assert without_order(json.loads(SCHEMA.read_text(encoding="utf-8"))) == without_order(json.loads(json.dumps(schema()))), (
        "python tools/record_schema.py writes it"
    )


def test_every_field_has_a_line_that_explains_it():
    source = Path(__import__("harness.results.record", fromlist=["x"]).__file__).read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(source) if line.startswith("class Record("))
    end = next(i for i, line in enumerate(source) if i > start and "def __post_init__" in line)
    inside = [i for i in range(start, end) if source[i][:4] == "    " and source[i][4:5].isalpha()]
    fields = [i for i in inside if ":" in source[i].split("=")[0]]
    bare = [source[i] for i in fields if not source[i + 1].strip().startswith('"""')]
    assert len(fields) > 30
    assert not bare
