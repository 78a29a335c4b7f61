"""A key is what others find a record by: moving the harness's own modules changes none."""

from __future__ import annotations

import pytest

from harness import models
from harness.cards.loading import load_cards
from harness.cards.plugins import resolve
from harness.results.key import identity, key_of

BEFORE_THE_MOVE = {
    "ahiq": "82c99b53726c1940",
    "ahiq trained": "df32baca74d207ee",
    "ahiq-p16": "00cd179588cf03d3",
    "ahiq-p16 trained": "93d1eaee90bb19ef",
    "ahiq-paper": "c59bb4491c7c9e86",
    "ahiq-paper trained": "58d49586bdc8d857",
    "ahiq-tiny": "017a3d077f439835",
    "ahiq-tiny trained": "b3ea4039a5a36e00",
    "ahiq-tiny-heads": "fea3de10778718e1",
    "ahiq-tiny-heads trained": "28edf3e72eb62528",
    "dists": "c0eba7af51a414a5",
    "lpips-alex": "a57d435336eb5a72",
    "lpips-alex-v0.0": "8db5c884f067996d",
    "lpips-vgg": "c971a6f03db57d4e",
    "lpips-vgg-v0.0": "58da7e4842decaaf",
    "ms-ssim": "cb7b72b7aefe0836",
    "ms-ssim-product": "55d71c975e112d3a",
    "psnr": "7fd7812f91faca99",
    "psnr-y": "fb2b275d4b19a120",
    "ssim": "9ab47168acabd84d",
    "ssim-256": "825effe800571f68",
    "ssim-rgb": "65fc20e74648c3c0",
    "st-lpips": "3646be5bb64d6e16",
    "st-lpips-vgg": "873c1b51005bd7e1",
}
"""Of every shipped card, tested only and trained, computed before the modules went to their packages."""
CARDS = load_cards("models")


@pytest.mark.parametrize("name", list(BEFORE_THE_MOVE))
def test_the_key_of_a_shipped_card_is_what_it_was(name: str):
    card = CARDS[name.removesuffix(" trained")]
    for package in card.requires:
        pytest.importorskip(package)
    facts = identity(
        card,
        version=models.version_of(card),
        weights={},
        trained=name.endswith(" trained"),
        table="t" * 64,
        split="s" * 64,
        protocol="references",
        seed=0,
    )
    assert key_of(facts) == BEFORE_THE_MOVE[name]


def test_every_shipped_card_has_a_key_in_the_list():
    assert {name.removesuffix(" trained") for name in BEFORE_THE_MOVE} >= set(CARDS)


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
