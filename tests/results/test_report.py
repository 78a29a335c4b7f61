"""The report of a run: figures, breakdown, worst pairs, and a self-contained HTML page."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from record_factory import Brightness, make, table_of, typed
from scipy import stats

from harness.results import plots, report
from harness.results.breakdown import by_kind, by_level, by_reference, points, worst
from harness.results.run_scores import ScoreFile
from harness.results.thumbnails import maps_of, show
from harness.statistics.agreement import agreement
from harness.statistics.curve_fitting import FITS, fit_curve


def made(tmp_path: Path, **options: Any) -> tuple[Path, dict[str, Any], pd.DataFrame]:
    place, record = make(tmp_path, **options)
    return place, record, report.frame(table_of(options.get("references", 12)), ScoreFile(place).table())


def opened(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("fit", FITS)
def test_the_drawn_curve_is_the_one_that_was_fitted(tmp_path: Path, fit: Any) -> None:
    _, record, rows = made(tmp_path, noise=0.5)
    test = agreement(rows["score"], rows["label"], fit=fit)
    record["metrics"]["test"] |= {"fit": fit, "fit_parameters": list(test.fit_parameters or ())}
    p = points(typed(record), rows)
    assert p is not None
    curve = fit_curve(p.score, p.label, fit)
    assert not isinstance(curve, str)
    np.testing.assert_allclose(p.fitted, curve.values, atol=1e-9)


def test_lower_is_better_is_drawn_as_it_is_and_judged_turned_round(tmp_path: Path) -> None:
    _, record, rows = made(tmp_path, noise=0.5)
    upright = points(typed(record), rows)
    for which in ("model", "dataset"):
        record["cards"][which]["higher_is_better"] = False
    turned = points(typed(record), rows.assign(score=-rows["score"], label=-rows["label"]))
    assert upright is not None
    assert turned is not None
    np.testing.assert_allclose(turned.fitted, -np.asarray(upright.fitted))
    np.testing.assert_allclose(turned.misjudgement, -upright.misjudgement)
    assert turned.score_name.endswith("(lower is better)")
    assert [(p.name, p.srcc) for p in by_kind(turned)] == [(p.name, p.srcc) for p in by_kind(upright)]


def test_breakdowns_are_the_agreement_within_each_part_worst_first(tmp_path: Path) -> None:
    _, record, rows = made(tmp_path, noise=1.0)
    p = points(typed(record), rows)
    assert p is not None
    for parts, column in ((by_kind(p), "distortion"), (by_reference(p), "reference_id")):
        assert [part.srcc for part in parts] == sorted(part.srcc for part in parts if part.srcc is not None)
        for part in parts:
            mine = rows[rows[column] == part.name]
            assert part.n == len(mine)
            assert part.srcc == pytest.approx(stats.spearmanr(mine["score"], mine["label"])[0], abs=1e-12)
    assert [part.name for part in by_level(p)] == [f"level {n}" for n in range(1, 6)]
    blur = rows[rows["distortion"] == "blur"]
    curve = fit_curve(p.score, p.label, "logistic4")
    assert not isinstance(curve, str)
    residual = (p.label - curve.values)[(rows["distortion"] == "blur").to_numpy()].mean()
    assert next(part.residual for part in by_kind(p) if part.name == "blur") == pytest.approx(residual, abs=1e-9)
    expected = agreement(blur["score"], blur["label"], list(blur["reference_id"])).ci["srcc"]
    assert next(part.interval for part in by_kind(p) if part.name == "blur") == pytest.approx(expected)


def test_the_worst_pairs_are_the_farthest_from_the_curve(tmp_path: Path) -> None:
    _, record, rows = made(tmp_path, noise=0.05)
    rows.loc[17, "label"] += 3
    rows.loc[101, "label"] -= 2
    p = points(typed(record), rows)
    assert p is not None
    assert worst(p, 2) == [17, 101]
    assert p.misjudgement[17] > 0 > p.misjudgement[101]


def test_without_a_curve_ranks_decide(tmp_path: Path) -> None:
    _, record, rows = made(tmp_path, noise=0.05)
    record["metrics"]["test"]["fit_parameters"] = None
    rows.loc[rows["label"].idxmin(), "score"] = 99.0
    p = points(typed(record), rows)
    assert p is not None
    assert p.curve is None
    assert worst(p, 1) == [rows["label"].idxmin()]
    assert p.misjudgement[worst(p, 1)[0]] == pytest.approx((1 - 180) / 180)


@pytest.mark.slow
def test_plots_are_images_of_the_points_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    place, record, rows = made(tmp_path, noise=0.5, trained=True)
    written = report.plots(place, typed(record), points(typed(record), rows))
    assert [path.name for path in written] == ["scatter.png", "kinds.png", "training.png"]
    before = [path.read_bytes() for path in written]
    for data in before:
        assert (opened(data) != 255).any(axis=2).mean() > 0.01
    p = points(typed(record), rows)
    assert p is not None
    assert (opened(before[0]) == (0xC2, 0x41, 0x0C)).all(axis=2).sum() > 100, "the fitted curve is missing"
    assert [path.read_bytes() for path in report.plots(place, typed(record), points(typed(record), rows))] == before
    assert plots.scatter(p, "") != plots.scatter(points(typed(record), rows.assign(score=rows["label"])), "")  # type: ignore[arg-type]


def test_every_kind_has_its_panel(tmp_path: Path) -> None:
    _, record, rows = made(tmp_path)
    p = points(typed(record), rows)
    assert p is not None
    one, three = (opened(plots.by_kind(p, kinds)) for kinds in (["blur"], ["blur", "jpeg", "noise"]))
    assert three.shape[1] == pytest.approx(3 * one.shape[1], abs=3)
    blue = three[..., 2].astype(int) - three[..., 0] > 60
    thirds = np.array_split(blue, 3, axis=1)
    assert all(third.sum() > 20 for third in thirds)


def test_labels_withheld_give_a_report_without_images_of_agreement(tmp_path: Path) -> None:
    place, record, rows = made(tmp_path, labelled=False)
    written = report.write(place, typed(record), rows.assign(label=np.nan))
    assert [path.name for path in written] == ["report.html"]
    assert "labels withheld" in written[0].read_text()


def test_training_without_validation_has_a_loss_alone() -> None:
    whole = [{"epoch": n, "loss": 1 / n, "srcc": 0.1 * n, "plcc": 0.1} for n in (1, 2, 3)]
    with_curves, alone = (opened(plots.training(h)) for h in (whole, [{"epoch": 1, "loss": 0.0}]))
    assert with_curves.shape[0] > alone.shape[0]


def test_maps_lie_where_their_patches_are_and_overlaps_are_averaged() -> None:
    picture = np.zeros((16, 24, 3), np.uint8)
    picture[8:, :8] = 255
    maps = maps_of(Brightness(), picture, picture)
    assert maps is not None
    np.testing.assert_allclose(maps.quality[8:, :8], 1.0)
    np.testing.assert_allclose(maps.quality[:8], 0.0)
    np.testing.assert_allclose(maps.quality[:, 8:], 0.0)
    # Crops at columns 0 and 8 overlap in 8..16, where their weights are 1 and 0.
    np.testing.assert_allclose(maps.weight[0], np.repeat([0.0, 0.5, 1.0], 8))


def test_an_image_smaller_than_the_crop_has_no_maps() -> None:
    small = np.zeros((8, 24, 3), np.uint8)
    assert maps_of(Brightness(), small, small) is None


def test_images_that_are_gone_are_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    gone, there = show([("nowhere.png", "nowhere.png"), (str(tmp_path / "a.png"), str(tmp_path / "a.png"))], Brightness())
    assert gone == (None, None, None, None)
    assert all(uri is not None and uri.startswith("data:image/webp;base64,") for uri in there)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    table = table_of(3, folder)
    place, record = make(folder, "net", references=3, trained=True, noise=0.5, settings={"recipe.epochs": "3"})
    written = report.of_run(place, typed(record), table, Brightness())
    assert [path.name for path in written] == ["scatter.png", "kinds.png", "training.png", "report.html"]
    return (place / "report.html").read_text()


def test_the_page_shows_ten_pairs_with_images_and_maps(page: str) -> None:
    assert page.count('<article class="pair">') == 10
    assert len(re.findall(r'alt="(reference|distorted|quality|weight) of ', page)) == 40
    assert page.count("for people than the score says") == 10


def test_the_page_says_what_it_is_and_how_to_repeat_it(page: str) -> None:
    for words in (
        "Labels are made up.",
        "few references",
        "harness run net --dataset toy --set recipe.epochs=3",
        "harness verify",
    ):
        assert words in page
    for words in ("Training loss", "SRCC within each kind of distortion", "SRCC within each reference", "numpy", "best epoch"):
        assert words in page
    assert "&lt;angles&gt;" in page


def test_the_page_says_what_is_not_defined_and_why(tmp_path: Path) -> None:
    place, record, rows = made(tmp_path, noise=0.5)
    record["metrics"]["test"] |= {
        "score_2afc": 0.6875,
        "discrimination": {
            "pair_analysis": None,
            "outlier_ratio": None,
            "monotonicity": {"steps": 0.9375, "series": 0.5, "count": 2, "by_kind": {}},
            "not_defined": ["pair analysis and outlier ratio: no <raters>"],
        },
    }
    shown = report.write(place, typed(record), rows)[-1].read_text()
    table = shown[shown.index("Beyond correlations") :]
    for words in (".688", ".938", ".500", "no &lt;raters&gt;"):
        assert words in table
    assert "not defined" not in table[: table.index("</table>")]
    folded = table[table.index("<details>") : table.index("</details>")]
    assert "<summary>4 figures are not defined here</summary>" in folded
    assert folded.count("<li>") == 4
    assert "<li>outlier ratio</li>" in folded
    assert "Beyond correlations" not in report.write(place, typed(record | {"metrics": {"test": None}}), rows)[-1].read_text()


def test_the_page_asks_for_nothing_from_elsewhere(page: str) -> None:
    addresses = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert len(addresses) > 40
    assert all(address.startswith("data:") for address in addresses)
    assert "<script" not in page
    assert not re.search(r"@import|url\(", page)


def test_a_report_that_cannot_be_made_costs_a_warning(tmp_path: Path, logged: list[str]) -> None:
    place, record = make(tmp_path, "net")
    assert report.of_run(place, typed(record), table_of(12).drop(columns="level")) == []
    assert len(logged) == 1
    assert "no report" in logged[0]


@pytest.mark.slow
def test_nothing_of_matplotlibs_global_state_is_touched(tmp_path: Path) -> None:
    place, _ = make(tmp_path, "net", references=3)
    table_of(3).to_csv(tmp_path / "table.csv", index=False)
    code = (
        "import sys, matplotlib; from pathlib import Path; import pandas as pd; from harness.results import record, report\n"
        "settings = lambda: list(dict.items(matplotlib.rcParams))  # without choosing a backend, as reading it would\n"
        "before = settings()\n"
        f"place = Path({str(place)!r})\n"
        f"written = report.of_run(place, record.read_record(place), pd.read_csv({str(tmp_path / 'table.csv')!r}))\n"
        "assert len(written) == 3, written\n"
        "assert settings() == before\n"
        "loaded = {'matplotlib.pyplot', 'torch', 'mlflow', 'ray'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
