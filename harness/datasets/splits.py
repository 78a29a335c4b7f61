"""Splits of a table into training, validation and test parts, always by reference."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from harness.cards.schema import Protocol
from harness.files.atomic import sha256_json
from harness.files.table_rows import rows_of
from harness.runtime.errors import UsageError, listed

PARTS = ("train", "validation", "test")


def split(table: pd.DataFrame, protocol: Protocol, *, seed: int = 0, repeat: int = 0) -> pd.Series:
    """The part of each row: `train`, `validation`, `test`, or empty for rows that the protocol leaves out.

    Raises UsageError when the table cannot be split by the protocol.
    """
    rows = table["part"].isin(protocol.parts) if protocol.parts else pd.Series(True, index=table.index)
    if not rows.any():
        raise UsageError(f"no rows of part {listed(list(protocol.parts))} in this dataset")
    if protocol.split == "full":
        return pd.Series(np.where(rows, "test", ""), index=table.index)
    if protocol.split == "parts":
        there, parts = set(table["part"]), table["part"].copy()
        if protocol.roles:
            wrong = sorted(set(protocol.roles.values()) - set(PARTS))
            if wrong:
                raise UsageError(f"roles should be train, validation or test, not {listed(wrong)}")
            parts = table["part"].map(protocol.roles).fillna("").astype(str)
            if absent := [part for part in protocol.roles if part not in there]:
                raise UsageError(f"no rows of part {listed(absent)} in this dataset, which this protocol needs")
        elif there - {*PARTS, ""} or "test" not in there:
            raise UsageError(f"the table's part column should hold train, validation, test; it holds {listed(sorted(there))}")
        seen = parts[parts != ""].groupby(table["reference_id"]).nunique()
        if shared := [str(r) for r in seen.index[seen > 1]]:
            raise UsageError(f"references in more than one part (train, validation, test): {listed(shared)}")
        return parts
    part_of = _parts_of_references(sorted(set(table["reference_id"][rows])), protocol, seed, repeat)
    parts = table["reference_id"].map(part_of).where(rows, "")
    if protocol.held_out_kinds:
        unknown_kinds = sorted(set(protocol.held_out_kinds) - set(table["distortion"]))
        if unknown_kinds:
            raise UsageError(f"held_out_kinds names kinds that no row has: {listed(unknown_kinds)}")
        held_out = table["distortion"].isin(protocol.held_out_kinds)
        parts = parts.where(held_out == (parts == "test"), "")
    return parts


def _parts_of_references(references: list[str], protocol: Protocol, seed: int, repeat: int) -> dict[str, str]:
    if protocol.split == "hash":
        order = sorted(references, key=lambda r: hashlib.sha256((protocol.salt + r).encode()).hexdigest())
        counts = [int(protocol.train), int(protocol.validation), int(protocol.test)]
        if sum(counts) != len(order):
            here = f"this dataset has {len(order)}"
            raise UsageError(f"the protocol splits {sum(counts)} references, {here}: is part of it missing?")
    else:
        digest = hashlib.sha256(f"{seed}|split|{repeat}".encode()).digest()
        generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
        order = [references[i] for i in generator.permutation(len(references))]
        validation, test = (max(1, round(share * len(order))) if share else 0 for share in (protocol.validation, protocol.test))
        counts = [len(order) - validation - test, validation, test]
        if counts[0] < (1 if protocol.train else 0):
            raise UsageError(f"{len(order)} references are too few for this protocol's split")
    labels = [part for part, count in zip(PARTS, counts, strict=True) for _ in range(count)]
    return dict(zip(order, labels, strict=True))


def split_hash(table: pd.DataFrame, parts: pd.Series) -> str:
    """sha256 of the names of each part; independent of the rows' order."""
    return sha256_json(rows_of(pd.DataFrame({"name": table["name"], "part": parts})[parts != ""].sort_values("name")))
