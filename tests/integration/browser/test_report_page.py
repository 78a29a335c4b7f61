"""The report of a run in headless Chromium: it draws without errors, asks for nothing, and fits a narrow window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM, works
from record_factory import Brightness, make, table_of, typed

from harness.results import report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    table = table_of(3, folder)
    place, record = make(folder, "net", references=3, trained=True, noise=0.5)
    return report.write(
        place,
        typed(record),
        report.frame(table, table[["name"]].assign(score=[1.0 * i for i in range(len(table))], part="test")),
        Brightness(),
    )[-1]


@pytest.mark.parametrize("width", [500, 1300])
def test_every_image_is_drawn_and_described_and_the_page_fits_the_window(page: Path, tmp_path: Path, width: int) -> None:
    seen: dict[str, Any] = works(
        tmp_path,
        page,
        """
        const pictures = [...document.images];
        return {
          count: pictures.length,
          broken: pictures.filter((p) => !p.complete || !p.naturalWidth).length,
          mute: pictures.filter((p) => !p.alt.trim()).length,
          wide: document.documentElement.scrollWidth - innerWidth,
          captions: [...document.querySelectorAll("table")].filter((t) => !t.caption).length,
        };
        """,
        f"--window-size={width},900",
    )
    assert seen == {"count": 43, "broken": 0, "mute": 0, "wide": min(0, seen["wide"]), "captions": 0}


def test_plots_follow_a_dark_system_and_images_do_not(page: Path, tmp_path: Path) -> None:
    script = """
    const filters = (query) => [...new Set([...document.querySelectorAll(query)].map((p) => getComputedStyle(p).filter))];
    return [matchMedia("(prefers-color-scheme: dark)").matches, filters("img.plot"), filters("img:not(.plot)")];
    """
    light = works(tmp_path, page, script, "--blink-settings=preferredColorScheme=1")
    dark = works(tmp_path, page, script, "--blink-settings=preferredColorScheme=0")
    assert light == [False, ["none"], ["none"]]
    assert dark == [True, ["invert(0.92) hue-rotate(180deg)"], ["none"]]
