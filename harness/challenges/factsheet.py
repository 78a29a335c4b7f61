"""The fact sheet of a submission for the organisers, in Markdown, from the record and the card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from harness.cards.challenge import ChallengeCard
from harness.cards.loading import find_dataset
from harness.cards.overrides import apply_set
from harness.cards.schema import DatasetCard, ModelCard
from harness.challenges.readme import seconds
from harness.challenges.submit import Submission, member_names, used_data
from harness.engine.request_of_record import Repeated, request_of
from harness.files.atomic import write_text
from harness.models import find_model
from harness.models.capabilities import capabilities
from harness.models.kernels import choice
from harness.results.record import Record
from harness.runtime import text as plain
from harness.runtime.errors import HarnessError

_UNKNOWN = "not known"


class Cost(NamedTuple):
    """A model's parameters and operations; None where they cannot be counted, and `note` says why."""

    parameters: int | None
    trained: int | None
    """Trainable parameters."""
    flop_per_crop: float | None
    crops: int | None
    note: str


def write(path: str | Path, made: Submission, *, team: str | None = None, cards: Sequence[str] = ()) -> None:
    """Write the fact sheet to `path`."""
    write_text(path, text(made, team=team, cards=cards))


def text(made: Submission, *, team: str | None = None, cards: Sequence[str] = ()) -> str:
    """The fact sheet of a submission; facts that the record lacks are marked `(fill in)`."""
    record, card = made.record, made.card
    model, protocol, where = record.cards.model, record.cards.model.protocol, record.conditions
    submission = {
        "Challenge": f"{card.name}, phase {made.phase}",
        "File": f"`{made.file.name}`, {made.size:,} bytes, sha256 `{made.sha256}`",
        "Images": f"{made.images:,}",
        "Record": f"`{record.key}`, {record.created}",
    }
    size = f", {protocol.crop_size}x{protocol.crop_size}" if protocol.crop_size else ""
    crops = "the whole image" if protocol.crops == "whole" else f"mean over the crops of `{protocol.crops}`{size}"
    environment = {name: str(where.get(name.lower(), "")) for name in ("Machine", "Device", "Python")}
    if isinstance(libraries := where.get("libraries"), dict):
        environment["Libraries"] = ", ".join(f"{name} {version}" for name, version in libraries.items())
    lines = [
        f"# Fact sheet: {card.title}",
        "",
        *_section("Team", {"Team": team or "(fill in)", "Members and affiliations": "(fill in)"}),
        *_section("Submission", submission),
        "## Method",
        "",
        f"**{plain.markdown(model.title)}**"
        + (f" (`{plain.markdown_code(record.model)}`)" if record.model != model.title else ""),
        "",
        plain.markdown_line(model.description.strip()) or _UNKNOWN,
        "",
        *_section("", {"Paper": model.paper, "Code": model.code, "Licence": model.licence}),
        *_section("Training", _training_facts(card, record)),
        *_section("Test", {"Crops": crops, "Ensemble": _ensemble(model)}),
        *_section("Cost", _cost_facts(made, cost_of(record, cards))),
        *_section("Environment", environment),
    ]
    return "\n".join(lines).rstrip() + "\n"


def cost_of(record: Record, cards: Sequence[str] = ()) -> Cost:
    """Parameters and floating-point operations of a record's model: the model is built, with no weights, and run once."""
    if record.request.get("scores"):
        return Cost(None, None, None, None, "the scores come from a file, so there is no model")
    try:
        needed = {k: v for k, v in record.request.items() if k in ("model", "dataset", "settings")}
        again = Repeated(dataset=record.dataset)
        asked = request_of(record.key, msgspec.structs.replace(record, request=needed), cards, again)
        card = apply_set(find_model(asked["model"], cards), asked["settings"])
        data = find_dataset(record.dataset, cards)
        return _counted(card, data)
    except (HarnessError, ImportError, RuntimeError) as error:
        return Cost(None, None, None, None, f"could not be counted: {str(error).splitlines()[0]}")


def _counted(card: ModelCard, data: DatasetCard) -> Cost:
    from harness import models
    from harness.imaging import crops

    if card.model.get("members"):
        return _counted_together(card, data)
    model = models.build(card, None)
    if not callable(getattr(model, "parameters", None)):
        return Cost(0, 0, None, None, "a metric without parameters; no matrix products to count")
    frozen = card.recipe.frozen if card.recipe else ()
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    moved = sum(n for name, n in sizes.items() if not name.startswith(tuple(frozen) or ("\0",))) if card.recipe else 0
    size = card.protocol.crop_size or capabilities(model).crop_size
    if data.image_size is not None:
        places = crops.positions(card.protocol.crops, *data.image_size, size, seed=0, reference_id="")
        return Cost(sum(sizes.values()), moved, _flop(model, places[0].height, places[0].width), len(places), "")
    if size:
        return Cost(sum(sizes.values()), moved, _flop(model, size, size), None, "")
    return Cost(sum(sizes.values()), moved, None, None, f"images of {data.name} have no one size")


def _counted_together(card: ModelCard, data: DatasetCard) -> Cost:
    """An ensemble's cost: the sum over its members, each with its own crops."""
    from harness.models.ensemble import member_card

    own = [member for table in card.model["members"] if (member := member_card(table, card.path)) is not None]
    costs = [_counted(member, data) for member in own]
    parameters = sum(cost.parameters or 0 for cost in costs)
    networks = [cost for cost in costs if cost.parameters]
    known = [cost.flop_per_crop * cost.crops for cost in networks if cost.flop_per_crop is not None and cost.crops]
    total = sum(known) if known and len(known) == len(networks) else None
    note = "" if total is not None or not networks else "operations: not all of its members' could be counted"
    return Cost(parameters, 0, total, None if total is None else 1, note)


def _flop(model: Any, height: int, width: int) -> float:
    """Floating-point operations (2 per multiply-add) of one pair, as torch counts them: products, convolutions, attention.

    Three operations that torch's counter misses are added: attention on a CPU, torchvision's deformable convolution (its
    product, not the sampling) and weighted sums of gathered rows, by which the harness samples for its own.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]

    def deformable(_: Any, weight: Any, *__: Any, out_shape: Any = None, **___: Any) -> int:
        return int(2 * math.prod(out_shape) * math.prod(weight[1:]))

    def gathered(weight: Any, indices: Any, *_: Any, **__: Any) -> int:
        return int(2 * math.prod(indices) * weight[1])

    missed: dict[Any, Any] = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
        torch.ops.aten._embedding_bag: gathered,
        torch.ops.aten._embedding_bag_forward_only: gathered,
    }
    try:
        import torchvision  # noqa: F401 -- registers the operation

        missed[torch.ops.torchvision.deform_conv2d] = deformable
    except (ImportError, AttributeError):
        pass
    generator = torch.Generator().manual_seed(0)
    pair = [torch.rand(1, 3, height, width, generator=generator) for _ in range(2)]
    # The counter handles the public functions only.
    with choice.using(choice.PLAINLY), torch.no_grad(), FlopCounterMode(display=False, custom_mapping=missed) as counter:
        model.score(*pair)
    return float(counter.get_total_flops())


def _section(title: str, facts: Mapping[str, str]) -> list[str]:
    lines = [f"- {name}: {plain.markdown(value)}" for name, value in facts.items() if value]
    return [*([f"## {title}", ""] if title else []), *lines, ""] if lines else []


def _training_facts(card: ChallengeCard, record: Record) -> dict[str, str]:
    model, trained_on = record.cards.model, [name for name in record.trained_on if name]
    others = used_data(card, record)
    weights = [entry for entry in model.weights if entry.name in record.hashes.weights]
    named = [f"{entry.name} {entry.tag}".strip() + (f" ({entry.licence})" if entry.licence else "") for entry in weights]
    extra = "yes" if model.extra_data or others else "no"
    if others:
        extra += f": {', '.join(others)}"
    elif named and model.extra_data:
        extra += ", through pretrained weights"
    return {
        "Trained on": ", ".join(trained_on) or "nothing",
        "Extra data": extra,
        "Pretrained weights": "; ".join(named),
        "Random parts": "some parts keep random weights" if record.random_weights else "",
        "Seed": str(record.seed),
    }


def _ensemble(model: ModelCard) -> str:
    names = member_names(model)
    return f"of {len(names)}: {', '.join(names)}" if names else "none, a single model"


def _cost_facts(made: Submission, cost: Cost) -> dict[str, str]:
    record = made.record
    facts = {"Parameters": "" if cost.parameters is None else f"{cost.parameters:,} ({cost.trained or 0:,} of them trained)"}
    if cost.flop_per_crop is not None:
        each = cost.flop_per_crop / 1e9
        whole = f"{each * cost.crops:,.4g} GFLOP per image" if cost.crops else ""
        whole += f": {cost.crops} crops of {each:,.4g}" if whole and cost.crops != 1 else ""
        facts["Operations"] = (
            f"{whole or f'{each:,.4g} GFLOP per crop'}, both images of a pair (2 per multiply-add; matrix products, convolutions "
            "with deformable ones, attention; nothing elementwise; a reference's features are counted for each of its images)"
        )
    where = record.conditions
    facts["Runtime"] = (
        f"{seconds(record.runtime_per_image or 0.0)} s per image on {where['device']}, measured over the phase's images after "
        f"warm-up, decoding included ({where['threads']} threads, {where['batch']} images at once)"
    )
    return facts | ({"Note": cost.note} if cost.note else {})
