"""Writing an ensemble's model card: members with their settings, files with sha256, frozen scalings and weights."""

from __future__ import annotations

import json
import os
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.cards.plugins import resolve
from harness.cards.schema import ModelCard, parse_card
from harness.ensembles.blends import Blend
from harness.ensembles.members import Gathered, Source, fitting_hash
from harness.files.atomic import write_text
from harness.runtime.errors import RunError, UsageError

CLASS = "harness.models.ensemble:Ensemble"


def refuse_place(path: str | Path, classes: Mapping[str, str]) -> None:
    """Raise UsageError where the `classes` of the members cannot be imported from a card at `path`."""
    path = Path(path)
    if path.suffix != ".toml":
        raise UsageError(f"--out {path}: a card's name ends in .toml")
    for name, made_by in classes.items():
        try:
            resolve(made_by, str(path))
        except UsageError:
            raise UsageError(
                f"--out {path}: {name}'s class {made_by} is next to its own card, and cannot be imported from there; "
                "write the ensemble's card to that folder"
            ) from None


def write(path: str | Path, blend: Blend, gathered: Gathered, facts: Mapping[str, Any], command: Sequence[str]) -> None:
    """Write the card of `blend`; `facts`: method, objective, trials and seed of the search, part of the model's key."""
    path = Path(path)
    text = f"# Made by: {shlex.join(command)}\n\n" + toml(table(path, blend, gathered, facts))
    # Read it back as a run does.
    parse_card(ModelCard, tomllib.loads(text), str(path))
    write_text(path, text)
    if not path.is_file():
        raise RunError(f"{path}: was not written")


def table(path: Path, blend: Blend, gathered: Gathered, facts: Mapping[str, Any]) -> dict[str, object]:
    """The card as a TOML table."""
    used = [gathered.sources[s] for s in blend.sources]
    models = [source for source in used if source.card]
    images = gathered.fitting
    trained_on = dict.fromkeys([*(d for source in used for d in source.trained_on), images.dataset])
    clean = not gathered.whole and all(set(source.trained_on) <= {images.dataset} for source in used)
    return {
        "name": path.stem,
        "title": f"Ensemble of {', '.join(source.name for source in used)}",
        "class": CLASS,
        "higher_is_better": True,
        "description": (
            f"A weighted sum of {len(used)} members' scores, each brought to one scale first; "
            f"fitted on {len(images.names)} images of {images.dataset}, {images.part} part of {gathered.protocol}."
        ),
        "licence": "; ".join(dict.fromkeys(str(s.card["licence"]) for s in models if s.card.get("licence"))),
        "extra_data": any(bool(source.card.get("extra_data")) for source in models),
        "trained_on": list(trained_on),
        **({"trained_split": gathered.split} if clean else {}),
        "model": {
            "intercept": blend.intercept,
            "fitted": {
                "dataset": images.dataset,
                "protocol": gathered.protocol,
                "part": images.part,
                "images": len(images.names),
                "references": len(set(images.references)),
                "sha256": fitting_hash(gathered),
                **facts,
            },
            "members": [
                _member(source, scaling.table(), weight)
                for source, scaling, weight in zip(used, blend.scalings, blend.weights, strict=True)
            ],
        },
        "weights": [entry for source in used for entry in _weights(source, path)],
    }


def _member(source: Source, scaling: Mapping[str, Any], weight: float) -> dict[str, object]:
    facts = {k: v for k, v in source.facts.items() if v not in (None, "", [])}
    nested: dict[str, object] = {k: facts.pop(k) for k in ("model", "protocol", "program") if k in facts}
    own = {"name": source.name, "higher_is_better": source.higher_is_better, "weight": weight, **facts}
    return {**own, **nested, "scaling": scaling}


def _weights(source: Source, card: Path) -> list[dict[str, object]]:
    entries = []
    for part, facts, path in source.files:
        entry: dict[str, object] = {"name": f"{source.name}/{part}", **facts}
        if path is not None:
            # Relative, so that a folder of cards and runs can be moved, and holds no path of this machine.
            entry["sources"] = [f"beside:{Path(os.path.relpath(path.resolve(), card.resolve().parent)).as_posix()}"]
        entries.append(entry)
    return entries


def toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """A table as TOML: plain values first, then tables, then lists of tables."""
    lines: list[str] = []
    for key, value in table.items():
        if not isinstance(value, Mapping) and not _is_tables(value):
            lines.append(f"{_key(key)} = {_value(value)}")
    for key, value in table.items():
        name = f"{prefix}{_key(key)}"
        if isinstance(value, Mapping) and value:
            lines += ["", f"[{name}]", toml(value, f"{name}.")]
        elif _is_tables(value):
            for entry in value:
                lines += ["", f"[[{name}]]", toml(entry, f"{name}.")]
    return "\n".join(lines).strip("\n") + ("\n" if not prefix else "")


def _is_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _key(key: str) -> str:
    plain = key.replace("-", "").replace("_", "")
    return key if plain.isalnum() and plain.isascii() else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # JSON's escapes are valid in TOML, except for one control character that JSON does not escape.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        words = [_value(v) for v in value]
        line = f"[{', '.join(words)}]"
        if len(line) <= 110:
            return line
        rows = [", ".join(words[i : i + 5]) for i in range(0, len(words), 5)]
        return "[\n  " + ",\n  ".join(rows) + ",\n]"
    raise RunError(f"a card cannot hold {value!r}")
