"""Keys of runs: ten keys of FORMAT 2 are frozen, and changes that must not alter a key do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.cards.loading import load_cards
from harness.cards.plugins import resolve
from harness.cards.schema import Cropping, ModelCard, Published
from harness.models.identity import code_of
from harness.results.key import RunIdentity, card_facts

FROZEN = {
    "ahiq": "cf5ad4ff9b05a701",
    "ahiq-p16": "1441a7cdb74f7289",
    "ahiq-tiny": "e612b09fd07b767a",
    "lpips-alex": "15e252c9834f72b3",
    "lpips-vgg-v0.0": "7b315828502625ca",
    "ms-ssim": "d7d71addc0a5acd7",
    "psnr": "4b6cf2d60717dd36",
    "psnr-y": "4bc7d166c2f31083",
    "ssim": "a5c9e2712e065fc2",
    "ssim-256": "17827b825ab044af",
}
"""Of shipped cards, trained where they have a recipe, on a made-up table. They change only with FORMAT or a class's `version`."""
CARDS = load_cards("models")


def identity(card: ModelCard, **others: object) -> RunIdentity:
    facts = {
        "card": card_facts(card, trained=card.recipe is not None),
        "code": code_of(card),
        "weights": {},
        "labels_higher_is_better": True,
        "table": "t" * 64,
        "images": "i" * 64,
        "split": "s" * 64,
        "protocol": "references",
        "seed": 0,
    }
    return RunIdentity(**(facts | others))


@pytest.mark.parametrize("name", list(FROZEN))
def test_ten_keys_are_frozen(name: str):
    assert identity(CARDS[name]).key == FROZEN[name]


def test_prose_published_numbers_and_paths_change_no_key():
    card = CARDS["ssim"]
    other = replace(
        card,
        title="another",
        description="prose",
        paper="p",
        code="c",
        licence="l",
        path="elsewhere/ssim.toml",
        published=(Published("x", "y", "read", srcc=0.5),),
        trained_on=("z",),
    )
    assert identity(other).key == FROZEN["ssim"]


def test_the_class_may_move_without_changing_a_key():
    assert "harness." not in str(identity(CARDS["ahiq"]).facts())


@pytest.mark.parametrize(
    "others",
    [
        {"labels_higher_is_better": False},
        {"images": "j" * 64},
        {"images": None},
        {"table": "u" * 64},
        {"split": "u" * 64},
        {"weights": {"file": "w"}},
        {"code": {"class": "SSIM", "version": 99}},
        {"seed": 1},
        {"limit": 5},
        {"protocol": "full"},
    ],
)
def test_whatever_determines_the_scores_changes_the_key(others: dict[str, object]):
    assert identity(CARDS["ssim"], **others).key != FROZEN["ssim"]


def test_a_setting_changes_the_key_and_a_default_that_is_spelled_out_does_not():
    card = CARDS["ssim"]
    assert identity(replace(card, protocol=Cropping(crops="five", crop_size=32))).key != FROZEN["ssim"]
    assert identity(replace(card, protocol=Cropping(crops="whole", crop_size=0, mirrored=False))).key == FROZEN["ssim"]
    assert identity(replace(card, model=dict(card.model) | {"window": 7})).key != FROZEN["ssim"]


@pytest.mark.parametrize(
    "path",
    [
        "harness.models.ahiq:AHIQ",
        "harness.models.stlpips:STLPIPS",
        "harness.models.lpips:LPIPS",
        "harness.models.base:Model",
        "harness.models.ensemble:Ensemble",
        "harness.datasets:read_table",
        "harness.datasets.demo:read",
    ],
)
def test_paths_that_cards_and_records_name_still_lead_to_their_object(path: str):
    assert callable(resolve(path, "a card"))
