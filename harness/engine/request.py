"""`Request`: what the user asked for; `Plan`: the resolved request (card, dataset, split, key), made before any work."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import datasets
from harness.cards.overrides import apply_set
from harness.cards.schema import ModelCard
from harness.datasets import Dataset, splits
from harness.datasets.table import has_images, require_files, table_hash
from harness.engine.scorer import BATCH
from harness.files.atomic import sha256_json
from harness.files.hash_index import WEAK, hash_files
from harness.files.score_table import read_scores, scores_hash
from harness.files.table_paths import require_utf8
from harness.models import find_model
from harness.models import weights as weight_files
from harness.models.identity import code_of, object_identity, weights_of
from harness.results.command import command_of
from harness.results.key import RunIdentity, card_facts
from harness.results.run_folder import folder_of
from harness.runtime.errors import UsageError, listed
from harness.runtime.progress import counted, downloads

if TYPE_CHECKING:
    import pandas as pd

    from harness.models.weights import ResolvedWeights


SCORED_PARTS = ("validation", "test")
_MANY = 1000
"""From this number of files on, reading them shows its progress."""


@dataclass(frozen=True)
class Request:
    """What the user asked for; the fields are options of the command line."""

    model: str
    dataset: str
    root: str | None = None
    protocol: str | None = None
    weights: str | None = None
    """A file, or a word of the card such as `released`: the model is only tested."""
    init: str | None = None
    """A file of weights from which training starts."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    limit: int | None = None
    force: bool = False
    device: str | None = None
    workers: int = 0
    """2 or more: the number of local processes that share the work; else this process, with a thread per core."""
    ray: str | None = None
    """A running Ray cluster that does the work: `host:port` or `auto`."""
    batch: int = BATCH
    offline: bool = False
    cards: tuple[str, ...] = ()
    runs: str = "runs"
    mlflow_uri: str | None = None
    """None: sqlite next to the runs; `off`: no mirror."""
    scores: str | None = None
    """A file of name,score: `model` is then only a name for the source of these scores."""
    lower_is_better: bool = False
    """Of `scores`."""
    inner: bool = False
    """Use the names that both `scores` and the dataset have."""
    repeat: int = 0
    """Which of a protocol's seeded repeats."""
    splits: int | None = None
    """Only the first `splits` of a protocol's seeded repeats are made; None: all."""
    trainings: int = 1
    """How many such trainings are left, this one included, for the estimate of the time."""
    exclude: tuple[str, ...] = ()
    """reference_ids that are left out of the scored parts."""
    remark: str = ""
    """Shown next to the result, such as why references were left out."""
    rehash: bool = False
    """Read every image again, without the index of file hashes."""
    object: Any = None
    """A model that is a Python object of the caller; `model` is then its name."""


@dataclass(frozen=True)
class Plan:
    """A resolved request: everything that is known before any work."""

    request: Request
    card: ModelCard
    data: Dataset
    protocol: str
    parts: pd.Series
    found: ResolvedWeights
    trained: bool
    identity: RunIdentity
    rebuildable: bool
    """Whether the model has an identity, so that its run can be reused."""
    content: Mapping[str, str]
    """sha256 by path of the images in use, from when the plan was made."""
    folder: Path

    @property
    def key(self) -> str:
        """The run's key, which names its folder."""
        return self.folder.name

    @property
    def facts(self) -> Mapping[str, Any]:
        """The identity as plain values."""
        return self.identity.facts()

    def rows(self, *parts: str) -> pd.DataFrame:
        """The table's rows of these parts; of the scored ones, at most `limit` each."""
        return _rows(self.data.table, self.parts, self.request.limit, parts)


def make_plan(request: Request, data: Dataset | None = None, *, look: bool = True) -> Plan:
    """Resolve a request without doing any of its work; raises UsageError for a request that cannot be served.

    `data`: the request's dataset, where it is loaded already. `look`: whether the images are hashed; without hashes, as for
    figures that are computed from scores only, the plan cannot be executed.
    """
    for place in (request.weights, request.init, request.scores, *request.cards):
        require_utf8(place)
    card = _card(request)
    data = data or datasets.load_dataset(request.dataset, request.root, cards=request.cards)
    if not has_images(data.table) and not request.scores and not _scores_only(card):
        raise UsageError(f"{data.name}: a table without images serves score files only (--scores FILE --name NAME)")
    name, protocol = data.protocol(request.protocol)
    trained = card.recipe is not None and request.weights is None
    if request.init is not None and not trained:
        why = "--weights only tests" if request.weights else "it has no recipe"
        raise UsageError(f"--init: {card.name} is not trained here ({why})")
    parts = splits.split(data.table, protocol, seed=request.seed, repeat=request.repeat)
    parts = parts.mask(data.table["reference_id"].isin(request.exclude) & parts.isin(SCORED_PARTS), "")
    if trained and not (parts == "train").any():
        others = [p for p, spec in data.card.protocols.items() if spec.split != "full"]
        raise UsageError(
            f"{card.name} is trained, but protocol {name!r} of {data.name} has no training part: "
            f"choose one that has ({listed(others)}), or give weights (--weights FILE|released)"
        )
    recipe, validation = card.recipe, parts == "validation"
    if trained and recipe is not None and recipe.selection != "last":
        if not validation.any() or not recipe.validate_every:
            lacking = "validate_every = 0" if validation.any() else f"protocol {name!r} of {data.name} has no validation part"
            specs = data.card.protocols.items()
            others = [p for p, s in specs if s.validation or {"train", "validation"} <= set(s.roles.values())]
            raise UsageError(
                f"{card.name}: its recipe keeps the epoch that validates best (selection = {recipe.selection!r}), but {lacking}: "
                f"choose a protocol that has one{f' ({listed(others)})' if others else ''}, or keep the last epoch "
                "(--set recipe.selection=last)"
            )
        if data.table["score"][validation].isna().all():
            raise UsageError(
                f"{card.name}: labels of the validation part of {data.name} ({name}) are missing, so no epoch can be selected: "
                f"{protocol.note or 'put them next to the images'}; or keep the last epoch (--set recipe.selection=last)"
            )
    code: Mapping[str, Any] | None = None
    if request.object is not None:
        if request.workers > 1 or request.ray:
            raise UsageError(f"{card.name}: a Python object cannot be sent to workers; write a card for it, or use one process")
        found = weight_files.ResolvedWeights({}, None, {}, (), False)
        code = object_identity(request.object)
    elif request.scores:
        found = weight_files.ResolvedWeights({}, None, {"scores": scores_hash(read_scores(request.scores))}, (), False)
    else:
        file = request.init if trained and request.init else request.weights
        with downloads() as fetched:
            found = weight_files.find(card, file, offline=request.offline, progress=fetched)
    content: dict[str, str] = {}
    images = None
    if look and has_images(data.table) and not request.scores and not _scores_only(card):
        wanted = ("train", *SCORED_PARTS) if trained else SCORED_PARTS
        rows = _rows(data.table, parts, request.limit, wanted)
        require_files(rows, data.name)
        files = [*dict.fromkeys(rows["reference"]), *rows["distorted"]]
        with counted(f"reading the images of {data.name}, once", unit="files", least=_MANY) as step:
            content = hash_files(files, rehash=request.rehash, progress=step)
        if WEAK and not request.rehash:
            weak = "this system has no reliable time of change of files; --rehash reads every image again"
            data.table.attrs.setdefault("notes", []).append(weak)
        # One hash over the images' content, by name; the files' folders do not matter.
        columns = zip(rows["name"], rows["distorted"], rows["reference"], strict=True)
        images = data.images or sha256_json(sorted([n, content[image], content[reference]] for n, image, reference in columns))
    identity = RunIdentity(
        card=card_facts(card, trained=trained),
        code=code_of(card, trained=trained) if request.object is None else code or {"never the same": uuid.uuid4().hex},
        weights=found.sha256 if request.scores else weights_of(found),
        labels_higher_is_better=data.higher_is_better,
        table=table_hash(data.table[parts != ""]),
        images=images,
        split=splits.split_hash(data.table, parts),
        protocol=name,
        seed=request.seed,
        limit=request.limit,
    )
    folder = folder_of(request.runs, data.name, card.name, identity.key)
    rebuildable = request.object is None or code is not None
    return Plan(request, card, data, name, parts, found, trained, identity, rebuildable, content, folder)


def _rows(table: pd.DataFrame, split: pd.Series, limit: int | None, parts: Sequence[str]) -> pd.DataFrame:
    chosen = [table[split == part][: limit if part in SCORED_PARTS else None] for part in parts]
    if len(chosen) == 1:
        return chosen[0]
    import pandas as pd

    return pd.concat(chosen)


def _scores_only(card: ModelCard) -> bool:
    """Whether the model is an ensemble of score files, which needs no images."""
    members = card.model.get("members") or ()
    return bool(members) and not any(member.get("class") for member in members)


def _card(request: Request) -> ModelCard:
    if (model := request.object) is not None:
        if not callable(getattr(model, "score", None)):
            raise UsageError(f"{request.model}: has no score(reference, distorted)")
        higher = getattr(model, "higher_is_better", None)
        if not isinstance(higher, bool):
            raise UsageError(f"{request.model}: higher_is_better should be True or False, is {higher!r}")
        card = ModelCard(request.model, request.model, "", higher, description="an object of a Python session")
        return apply_set(card, request.settings) if request.settings else card
    if not request.scores:
        return apply_set(find_model(request.model, request.cards), request.settings)
    title, higher = f"{request.model} (scores from a file)", not request.lower_is_better
    return ModelCard(request.model, title, "", higher, description=f"external scores, read from {Path(request.scores).name}")


def request_facts(request: Request) -> dict[str, object]:
    """The request's fields that a record keeps, to repeat it: no paths of this machine except those of given files."""
    facts = asdict(replace(request, object=None)) | {"object": request.object is not None}
    here = ("root", "device", "workers", "ray", "offline", "cards", "runs", "mlflow_uri", "force", "rehash", "trainings")
    return {k: list(v) if isinstance(v, tuple) else v for k, v in facts.items() if k not in here}


def command(request: Request, *, here: bool = False) -> str:
    """The command line of this request; `here`: with this machine's folders, `--root` and `--runs`."""
    places = {"root": request.root, "runs": request.runs if request.runs != "runs" else None} if here else {}
    return command_of(request_facts(request) | places | {"cards": list(request.cards)})
