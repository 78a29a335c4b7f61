"""Write the JSON schema of record.json into the documents.

python tools/record_schema.py
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from harness.results.record import Record, RepeatsRecord


def schema() -> dict[str, object]:
    """The JSON schema of record.json, of a run and of repeated splits."""
    documents, definitions = msgspec.json.schema_components((Record, RepeatsRecord), ref_template="#/$defs/{name}")
    for definition in definitions.values():
        for entry in definition.get("properties", {}).values():
            if entry.get("default") == {}:  # msgspec writes it from 0.23 on
                del entry["default"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "anyOf": list(documents), "$defs": definitions}


if __name__ == "__main__":
    place = Path(__file__).resolve().parents[1] / "docs" / "record.schema.json"
    place.write_text(json.dumps(schema(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
