"""Write the JSON schema of record.json into the documents.

python tools/record_schema.py
"""

from __future__ import annotations

import json
from pathlib import Path

from harness.results.record import schema

if __name__ == "__main__":
    place = Path(__file__).resolve().parents[1] / "docs" / "record.schema.json"
    place.write_text(json.dumps(schema(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
