from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small import picture, write_table

import harness
from harness.cards.overrides import apply_set
from harness.cards.schema import Cropping
from harness.datasets import load_dataset
from harness.engine.scorer import Pair, Scorer, pairs_of
from harness.models import find_model
from harness.models.base import Model
from harness.results.key import card_facts
from harness.runtime.errors import RunError, UsageError


class Distance(Model):
    """A network's shape without its cost: sees 24-pixel crops, reuses the reference's features, counts its work."""

    crop_size = 24

    def __init__(self) -> None:
        self.embedded = self.forwards = 0

    def embed(self, reference: torch.Tensor) -> torch.Tensor:
        self.embedded += len(reference)
        return reference * 2

    def score_embedded(self, embedding: torch.Tensor, distorted: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        self.forwards += 1
        return -(embedding[index] / 2 - distorted).abs().mean((1, 2, 3))

    def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
        return self.score_embedded(self.embed(reference), distorted, torch.arange(len(distorted)))


class Plain(Model):
    crop_size = 24

    def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
        return -(reference - distorted).abs().mean((1, 2, 3))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    return pairs_of(load_dataset(str(write_table(tmp_path_factory.mktemp("t"), references=3))).table)


def scores(model: Model, pairs: list[Pair], crops: str = "random20", **options: object) -> dict[str, float]:
    scorer = Scorer(model, Cropping(crops), **options)
    return {r.name: r.score for chunk in scorer.score(scorer.chunks(pairs)) for r in chunk}


def test_chunks_hold_one_reference_each_in_the_tables_order(pairs: list[Pair]):
    chunks = Scorer(Plain(), Cropping("five"), batch=4).chunks(pairs)
    assert [len(c) for c in chunks] == [4, 2] * 3
    assert all(len({p.reference for p in c}) == 1 for c in chunks)
    assert [p for c in chunks for p in c] == pairs


@pytest.mark.parametrize("crops", ["random20", "five", "nine", "grid", "random1"])
def test_scores_do_not_depend_on_batch_order_workers_or_reuse_of_features(pairs: list[Pair], crops: str):
    first = scores(Distance(), pairs, crops)
    assert len(first) == len(pairs)
    for other in (
        scores(Distance(), pairs, crops, batch=1),
        scores(Distance(), pairs[::-1], crops, batch=5),
        scores(Distance(), pairs, crops, workers=1),
        scores(Plain(), pairs, crops),
    ):
        assert other == pytest.approx(first, abs=1e-6)


def test_a_references_features_are_computed_once_for_all_its_images(pairs: list[Pair]):
    model = Distance()
    scores(model, pairs, "five", batch=2)
    assert model.embedded == 3 * 5


def test_the_score_is_the_mean_over_crops_weighted_by_how_often_a_place_is_drawn(pairs: list[Pair]):
    scorer = Scorer(Plain(), Cropping("random20"), seed=3)
    for result in (r for chunk in scorer.score(scorer.chunks(pairs)) for r in chunk):
        assert sum(c.crop.weight for c in result.crops) == 20
        assert result.score == pytest.approx(sum(c.score * c.crop.weight for c in result.crops) / 20, abs=1e-9)


def test_a_pair_of_arrays_scores_like_its_files(pairs: list[Pair]):
    from harness.imaging import decode

    model = harness.load_model("ssim")
    pair = pairs[0]
    still, moved = decode.read(pair.reference), decode.read(pair.distorted)
    assert harness.score_pair(model, pair.reference, pair.distorted) == harness.score_pair(model, still, moved)
    assert harness.score_pair(Plain(), pair.reference, pair.distorted, protocol="five") == pytest.approx(
        harness.score_pair(Plain(), still, moved, protocol="five")
    )


def test_an_identical_pair_gets_the_cards_ceiling_and_is_counted(pairs: list[Pair]):
    psnr = harness.load_model("psnr")
    same = [Pair("same", pairs[0].reference, pairs[0].reference, "r")]
    scorer = Scorer(psnr, Cropping("whole"), identical=120.0)
    (result,) = next(scorer.score([same]))
    assert result.score == 120.0
    assert result.identical
    with pytest.raises(RunError, match="same"):
        next(Scorer(psnr, Cropping("whole")).score([same]))


def test_scores_that_are_not_finite_stop_the_work_and_name_the_images(pairs: list[Pair]):
    class Broken(Plain):
        def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
            return super().score(reference, distorted) * math.nan

    with pytest.raises(RunError, match=pairs[0].name):
        scores(Broken(), pairs)


def test_too_little_memory_halves_the_crops_at_once_and_says_so(pairs: list[Pair], logged: list[str]):
    class Hungry(Plain):
        def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
            if len(distorted) > 3:
                raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")
            return super().score(reference, distorted)

    found = scores(Hungry(), pairs, "five")
    assert found == pytest.approx(scores(Plain(), pairs, "five"), abs=1e-6)
    assert "not enough memory" in logged[0]


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory. Tried to allocate"), MemoryError()])
def test_too_little_memory_for_features_takes_fewer_crops_from_then_on(pairs: list[Pair], logged: list[str], error: Exception):
    asked: list[int] = []

    class Hungry(Distance):
        def embed(self, reference: torch.Tensor) -> torch.Tensor:
            asked.append(len(reference))
            if len(reference) > 6:
                raise error
            return super().embed(reference)

    found = scores(Hungry(), pairs, "random20")
    assert found == pytest.approx(scores(Distance(), pairs, "random20"), abs=1e-6)
    assert asked == [20, 10, *[5] * 4 * 3]
    assert [line for line in logged if "reference crops at once" in line] == logged
    assert len(logged) == 2


def test_features_that_no_memory_suffices_for_end_with_the_error(pairs: list[Pair]):
    class Starving(Distance):
        def embed(self, reference: torch.Tensor) -> torch.Tensor:
            raise MemoryError("out of memory")

    with pytest.raises((MemoryError, RunError), match="out of memory"):
        scores(Starving(), pairs, "five")


@pytest.mark.parametrize(
    ("height", "width", "crops", "words"),
    [(20, 40, "five", "smaller than the 24x24 crop"), (30, 40, "whole", "needs images of 24x24.*protocol.crops=five")],
)
def test_images_that_do_not_fit_the_crop_are_refused_by_name(tmp_path: Path, height: int, width: int, crops: str, words: str):
    Image.fromarray(picture(0, height, width)).save(tmp_path / "p.png")
    pair = Pair("little", str(tmp_path / "p.png"), str(tmp_path / "p.png"), "r")
    with pytest.raises(UsageError, match=f"little.*{words}"):
        scores(Plain(), [pair], crops)


def test_a_pair_of_two_sizes_is_refused_by_name(tmp_path: Path):
    Image.fromarray(picture(0, 40, 40)).save(tmp_path / "a.png")
    Image.fromarray(picture(0, 40, 41)).save(tmp_path / "b.png")
    with pytest.raises(UsageError, match=r"odd.*40x40.*41x40"):
        scores(Plain(), [Pair("odd", str(tmp_path / "b.png"), str(tmp_path / "a.png"), "r")], "five")


def test_images_of_several_sizes_are_scored_side_by_side(tmp_path: Path):
    sizes = [(40, 64), (24, 24), (51, 33)]
    pairs = []
    for i, (height, width) in enumerate(sizes):
        Image.fromarray(picture(i, height, width)).save(tmp_path / f"r{i}.png")
        Image.fromarray(np.roll(picture(i, height, width), 1, 0)).save(tmp_path / f"d{i}.png")
        pairs.append(Pair(f"d{i}", str(tmp_path / f"d{i}.png"), str(tmp_path / f"r{i}.png"), f"r{i}"))
    assert len(scores(Distance(), pairs, "grid")) == 3


class Lopsided(Model):
    """Looks at the left half alone, so that a mirrored crop has another score."""

    crop_size = 24

    def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
        return -(reference - distorted).abs()[..., :12].mean((1, 2, 3))


def test_mirrored_crops_count_as_further_crops_and_leave_symmetric_models_alone(pairs: list[Pair]):
    def under(model: Model, mirrored: bool) -> list[float]:
        scorer = Scorer(model, Cropping("five", mirrored=mirrored))
        return [r.score for chunk in scorer.score(scorer.chunks(pairs)) for r in chunk]

    assert under(Plain(), True) == pytest.approx(under(Plain(), False), abs=1e-6)
    # The mean of the left half and of the mirrored left half, which is the right half, is the mean of the whole.
    assert under(Lopsided(), True) == pytest.approx(under(Plain(), False), abs=1e-6)
    assert under(Lopsided(), False) != pytest.approx(under(Plain(), False), abs=1e-3)
    embedding = Distance()
    assert under(embedding, True) == pytest.approx(under(Plain(), False), abs=1e-6)
    assert embedding.embedded == 3 * 5 * 2


def test_mirroring_is_part_of_a_key_only_where_it_is_asked_for():
    def facts(settings: dict[str, str]) -> dict[str, object]:
        card = apply_set(find_model("psnr"), settings)
        return card_facts(card, trained=False)

    assert "protocol" not in facts({})
    assert facts({"protocol.mirrored": "false"}) == facts({})
    assert facts({"protocol.mirrored": "true"})["protocol"]["mirrored"] is True


def test_images_that_are_too_small_are_all_named_before_anything_is_begun(tmp_path: Path):
    from harness.engine.request import Request
    from harness.engine.run import run

    table = write_table(tmp_path / "data", references=2)
    request = Request("ms-ssim", str(table), protocol="full", runs=str(tmp_path / "runs"), mlflow_uri=None)
    with pytest.raises(UsageError, match=r"at least 161 pixels a side: r0\.png \(80x64\), r1\.png \(80x64\)"):
        run(request)
    assert not (tmp_path / "runs" / "mlflow.db").exists()
    assert not list((tmp_path / "runs").rglob("state.json"))
