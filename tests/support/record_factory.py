"""Realistic records without running anything: real cards, real agreement, a table of made-up labels."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image

from harness.cards.schema import DatasetCard, ModelCard, Protocol, Published
from harness.files.atomic import sha256_json, write_json, write_text
from harness.results.key import FORMAT, RunIdentity, card_facts, key_of
from harness.results.record import Record, of_document
from harness.results.run_folder import folder_of
from harness.results.run_scores import ScoreFile
from harness.statistics.agreement import agreement

LEVELS, KINDS = 5, ("blur", "noise", "jpeg")
PUBLISHED = (
    Published("toy", "Somebody et al., 2020, table 3", "read", srcc=0.9123, plcc=0.9, plcc_kind="logistic", protocol="held-out"),
    Published("toy", "recalled", "unverified", srcc=0.8),
    Published("elsewhere", "not about this dataset", "read", srcc=0.1),
)


def generator(*words: object) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256("|".join(map(str, words)).encode()).digest()[:8], "big"))


def dataset_card(name: str = "toy", split: Any = "hash") -> DatasetCard:
    return DatasetCard(
        name=name,
        title=f"{name} images",
        reader="nowhere",
        higher_is_better=True,
        default_protocol="held-out",
        protocols={
            "held-out": Protocol(split=split, description="tested on references held out", note="no published number uses it"),
            "full": Protocol(split="full", description="every row is tested"),
        },
        note="labels are made up",
        controls=("cell", "level"),
    )


def model_card(name: str, published: tuple[Published, ...] = ()) -> ModelCard:
    return ModelCard(name=name, title=f"{name} | with <angles> & pipes", class_="a:B", higher_is_better=True, published=published)


def pairs(references: int) -> list[tuple[str, str, str, int]]:
    """name, reference, kind, level"""
    return [(f"r{r:02d}_{k}_{n}.png", f"r{r:02d}", k, n) for r in range(references) for k in KINDS for n in range(1, LEVELS + 1)]


def labels(references: int) -> np.ndarray[Any, Any]:
    noise = generator("labels", references).normal(0, 0.3, references * len(KINDS) * LEVELS)
    return np.array([5 - level * 0.8 - KINDS.index(kind) * 0.3 for _, _, kind, level in pairs(references)]) + noise


@functools.cache
def measured(scores: tuple[float, ...], people: tuple[float, ...], ids: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures, and figures without each reference."""
    figures = agreement(scores, people, ids)
    assert figures.left_out is not None
    return figures.json() | {"score_2afc": None}, figures.left_out.json()


def make(
    folder: Path,
    model: str = "psnr",
    *,
    dataset: str = "toy",
    protocol: str = "held-out",
    noise: float = 1.0,
    seed: int = 0,
    references: int = 12,
    limit: int | None = None,
    table: str = "table",
    images: str = "images",
    split: Any = "hash",
    seen: bool = False,
    trained: bool = False,
    settings: dict[str, str] | None = None,
    published: tuple[Published, ...] = (),
    labelled: bool = True,
    controls: bool = True,
    identical: int = 0,
    incomplete: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Write `folder/<dataset>/<model>/<key>` with record.json and scores.csv; returns that folder and the record.

    Scores are the labels plus `noise` standard deviations of noise.
    """
    card, data = model_card(model, published), dataset_card(dataset, split)
    rows, people = pairs(references)[:limit], labels(references)[:limit]
    scores = people + generator("scores", model, seed, settings).normal(0, noise, len(people))
    ids = tuple(reference for _, reference, _, _ in rows)
    (test, left_out), (oracle, _), (level, _) = (
        measured(tuple(map(float, values)), tuple(map(float, people)), ids)
        for values in (scores, people, [-level for _, _, _, level in rows])
    )
    identity = RunIdentity(
        card=card_facts(card, trained=trained) | ({"settings": settings} if settings else {}),
        code={"class": "B", "version": 1},
        weights={},
        labels_higher_is_better=True,
        table=sha256_json(table),
        images=sha256_json(images),
        split=sha256_json([split, seed if split == "random" else 0, protocol, references]),
        protocol=protocol,
        seed=seed,
        limit=limit,
    ).facts()
    key = key_of(identity)
    lines = [[name, float(score), "test"] for (name, _, _, _), score in zip(rows, scores, strict=True)]
    epochs = [{"epoch": n, "loss": 1 / n, "rate": 1e-3 / n, "srcc": 0.2 * n, "plcc": 0.3 * n, "main": 0.5 * n} for n in (1, 2, 3)]
    record = {
        "format": FORMAT,
        "key": key,
        "model": model,
        "dataset": dataset,
        "protocol": protocol,
        "split": "test",
        "seed": seed,
        "request": {"model": model, "dataset": dataset, "seed": seed, "settings": dict(settings or {})},
        "created": f"2026-01-{1 + seed:02d}T00:00:00+00:00",
        "partial": limit is not None,
        **({"incomplete": True} if incomplete else {}),
        "seen": seen,
        "random_weights": False,
        "trained_on": [dataset] if trained or seen else [],
        "metrics": {"test": test if labelled else None, "validation": None},
        "without_each_reference": left_out if labelled else None,
        "controls": {"cell": oracle, "level": level} if controls else {},
        "identical_pairs": identical,
        "training": {"steps": 30, "epochs": 3, "best_epoch": 2, "seconds": 12.5} if trained else None,
        "history": epochs if trained else None,
        "seconds": 2.5,
        "pairs_per_second": len(rows) / 2.5,
        "conditions": {
            "machine": "Linux x86_64",
            "python": "3.11",
            "device": "cpu",
            "threads": 1,
            "batch": 8,
            "libraries": {"numpy": "2.4"},
        },
        "details": None,
        "note": ". ".join(filter(None, (data.note, data.protocols[protocol].note))),
        "identity": identity,
        "hashes": {
            "weights": {},
            "table": identity["table"],
            "split": identity["split"],
            "scores": sha256_json([[n, repr(s), p] for n, s, p in lines]),
            "pictures": sha256_json([]),
            "images": sha256_json(images),
        },
        "cards": {"model": asdict(card), "dataset": asdict(data)},
    }
    place = folder_of(folder, dataset, model, key)
    write_json(place / "record.json", record)
    write_text(place / "scores.csv", "name,score,part\n" + "".join(f"{n},{s!r},{p}\n" for n, s, p in lines))
    return place, json.loads((place / "record.json").read_text())


def begun(folder: Path, model: str, dataset: str = "toy") -> Path:
    """A run that was cut off: state.json and no record."""
    place = folder / dataset / model / "feedfeedfeedfeed"
    identity = {"card": {"name": model}, "protocol": "held-out", "seed": 0}
    write_json(place / "state.json", {"format": FORMAT, "identity": identity, "conditions": {}})
    return place


def repeated(folder: Path, model: str, count: int = 3) -> tuple[Path, dict[str, Any]]:
    """A record over several seeded splits, its splits' own records next to it."""
    children = [make(folder, model, split="random", table="table", settings={"repeat": str(n)}) for n in range(count)]
    each = [
        {"repeat": n, "run": record["key"], "split": str(n), **record["metrics"]["test"]}
        for n, (_, record) in enumerate(children)
    ]
    values = {f: sorted(e[f] for e in each) for f in ("n", "references", "srcc", "plcc", "krcc", "main")}
    first = children[0][1]["identity"]
    keys = [e["run"] for e in each]
    key = key_of({"repeats": keys, "first": first})
    lines = [
        [name, float(score), f"test@{n}"] for n, (place, _) in enumerate(children) for name, score, _ in ScoreFile(place).read()
    ]
    record = children[0][1] | {
        "key": key,
        "repeats": each,
        "without_each_reference": None,
        "metrics": {
            "validation": None,
            "test": {f: v[count // 2] for f, v in values.items()}
            | {"ci": {}, "range": {f: [v[0], v[-1]] for f, v in values.items()}},
        },
        "controls": {},
        "identity": {"repeats": keys, "first": first},
        "hashes": children[0][1]["hashes"] | {"scores": sha256_json([[n, repr(s), p] for n, s, p in lines])},
    }
    place = folder_of(folder, "toy", model, key)
    write_json(place / "record.json", record)
    write_text(place / "scores.csv", "name,score,part\n" + "".join(f"{n},{s!r},{p}\n" for n, s, p in lines))
    return place, record


def table_of(references: int, folder: Path | None = None) -> pd.DataFrame:
    """The dataset table behind the records; with a folder, its images (24x32, noise) are made there."""
    columns = ["name", "reference_id", "distortion", "level"]
    table = pd.DataFrame(pairs(references), columns=columns).assign(score=labels(references), part="")
    if folder is not None:
        table["distorted"] = [str(folder / name) for name in table["name"]]
        table["reference"] = [str(folder / f"{r}.png") for r in table["reference_id"]]
        for path in dict.fromkeys([*table["distorted"], *table["reference"]]):
            Image.fromarray(generator(Path(path).name).integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(path)
    return table


class Brightness:
    """Quality is the patch's mean, weight its column's number: maps whose right answer is known."""

    crop_size = 16

    class Maps(NamedTuple):
        score: torch.Tensor
        quality: torch.Tensor
        weight: torch.Tensor

    def score_maps(self, reference: torch.Tensor, distorted: torch.Tensor) -> Maps:
        assert reference.shape == distorted.shape == (len(reference), 3, 16, 16)
        quality = torch.nn.functional.avg_pool2d(distorted.mean(1), 8)
        weight = torch.arange(2.0).repeat(len(reference), 2, 1)
        return self.Maps(quality.mean((1, 2)), quality, weight)


def typed(document: dict[str, Any], place: Path = Path()) -> Record:
    """The record that plain values are."""
    return of_document(document, place)
