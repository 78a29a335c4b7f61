"""The leaderboard page in headless Chromium: sorting, filtering, accessibility, colours, sizes, printing."""

from __future__ import annotations

from pathlib import Path

import pytest
from browsing import CHROMIUM, chromium, works
from record_factory import PUBLISHED, make

from harness import leaderboard

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    boards = tmp_path_factory.mktemp("boards")
    records = boards / "records"
    make(records, "psnr", noise=1.5, published=PUBLISHED)
    make(records, "ssim", noise=0.8)
    make(records, "leaky", noise=0.05, seen=True)
    make(records, "hasty", noise=0.1, limit=40)
    make(records, "blind", labelled=False)
    for seed in (0, 1, 2):
        make(records, "net", noise=0.5, seed=seed, trained=True)
    make(records, "psnr", dataset="other", references=5)
    leaderboard.write(boards)
    return boards / "index.html"


def test_columns_sort_both_ways_by_number_with_blanks_below(page: Path, tmp_path: Path) -> None:
    down, up, order, others = works(
        tmp_path,
        page,
        "const t = table('toy--held-out'); press(t, 'SRCC'); const down = column(t, 'SRCC'); press(t, 'SRCC');"
        "return [down, column(t, 'SRCC'), header(t, 'SRCC').ariaSort, t.querySelectorAll('[aria-sort]').length]",
    )
    assert down[-1] == up[-1] == ""
    numbers = [float(v) for v in down[:-1]]
    assert len(numbers) == 10
    assert numbers == sorted(numbers, reverse=True)
    assert up[:-1] == down[-2::-1]
    assert (order, others) == ("ascending", 1)


def test_names_sort_alphabetically_first(page: Path, tmp_path: Path) -> None:
    names = works(tmp_path, page, "const t = table('toy--held-out'); press(t, 'Model'); return column(t, 'Model')")
    assert names == sorted(names)
    assert len(set(names)) == 8


def test_rows_are_found_by_words_and_counted(page: Path, tmp_path: Path) -> None:
    found, count, sections = works(
        tmp_path,
        page,
        "set('find', 'PSNR toy'); const open = [...document.querySelectorAll('section.dataset')].filter((s) => !s.hidden);"
        "return [visible(), document.getElementById('count').textContent, open.length]",
    )
    assert found == ["psnr"]
    assert count == "1 of 14 rows"
    assert sections == 1


def test_datasets_unranked_rows_and_controls_can_be_hidden(page: Path, tmp_path: Path) -> None:
    one, ranked, bare, back = works(
        tmp_path,
        page,
        "set('dataset', 'other'); const one = visible(); set('dataset', ''); set('ranked', true); const ranked = visible();"
        "set('controls', false); const bare = visible(); set('ranked', false); set('controls', true);"
        "return [one, ranked, bare, visible().length]",
    )
    assert sorted(one) == ["level alone", "oracle: knows kind and level", "psnr"]
    assert not {"leaky", "hasty", "blind"} & set(ranked)
    assert sorted(set(bare)) == ["net", "psnr", "ssim"]
    assert back == 14


def test_the_best_group_is_marked_bold_and_can_be_shown_alone(page: Path, tmp_path: Path) -> None:
    alone, bold, weights, last, back = works(
        tmp_path,
        page,
        "set('dataset', 'toy'); set('best', true); const alone = visible();"
        "const bold = [...document.querySelectorAll('tr.in-best-group td.best .figure')];"
        "const weights = bold.map((e) => getComputedStyle(e).fontWeight);"
        "const t = table('toy--held-out'); press(t, 'p'); press(t, 'p'); const p = column(t, 'p'); set('best', false);"
        "return [alone, bold.length, weights, p.filter(Boolean), visible().length]",
    )
    assert alone == ["net"]
    assert bold == 4
    assert set(weights) == {"700"}
    assert [float(p) for p in last] == sorted(float(p) for p in last)
    assert float(last[-1]) == 1.0
    assert back == 11


def test_intervals_are_drawn_to_scale(page: Path, tmp_path: Path) -> None:
    drawn = works(
        tmp_path,
        page,
        "return [...table('toy--held-out').querySelectorAll('svg.interval')].map((svg) => {"
        "  const [axis, line] = svg.querySelectorAll('line'); const x = (e, a) => Number(e.getAttribute(a));"
        "  const dot = x(svg.querySelector('circle'), 'cx');"
        # A figure without an interval, such as the oracle's perfect agreement, is a dot alone.
        "  return line ? [x(line, 'x1'), dot, x(line, 'x2'), x(axis, 'x2')] : [dot, dot, dot, x(axis, 'x2')] })",
    )
    assert len(drawn) == 10
    assert sum(low < high for low, _, high, _ in drawn) == 9
    assert all(0 <= low <= middle <= high <= width for low, middle, high, width in drawn)
    assert len({middle for _, middle, _, _ in drawn}) > 5


def test_every_table_has_a_caption_scoped_headers_and_can_be_worked_by_keyboard(page: Path, tmp_path: Path) -> None:
    faults = works(
        tmp_path,
        page,
        """
        const faults = [];
        const claim = (holds, otherwise) => holds || faults.push(otherwise);
        const all = (selector, root = document) => [...root.querySelectorAll(selector)];
        for (const t of all("table")) {
          claim(t.caption?.textContent.trim(), "a table without caption");
          claim(all("thead th", t).every((th) => th.scope === "col"), "a column header without scope");
          claim([...t.tBodies[0].rows].every((row) => all("th[scope=row]", row).length === 1), "a row without header");
          claim(t.parentElement.tabIndex === 0 && t.parentElement.ariaLabel, "a scrolling region that keys cannot reach");
        }
        for (const field of all("input, select")) claim(field.labels.length, "a field without label");
        for (const button of all("thead button")) {
          button.focus();
          claim(document.activeElement === button, "a header that cannot be focused");
        }
        const ids = all("[id]").map((e) => e.id);
        claim(new Set(ids).size === ids.length, "an id used twice");
        for (const a of all("a[href^='#']")) claim(document.getElementById(a.hash.slice(1)), `no target ${a.hash}`);
        claim(all("h1").length === 1 && document.documentElement.lang, "no single title or no language");
        return faults;
        """,
    )
    assert faults == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_background(page: Path, tmp_path: Path, theme: str) -> None:
    worst, paper = works(
        tmp_path,
        page,
        f"set('theme', '{theme}');"
        """
        const parse = (c) => c.match(/[\\d.]+/g).map(Number);
        const light = (c) => {
          const [r, g, b] = c.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const behind = (e) => {
          for (; e; e = e.parentElement) {
            const c = parse(getComputedStyle(e).backgroundColor);
            if (c.length < 4 || c[3] > 0) return c.slice(0, 3);
          }
          return [255, 255, 255];
        };
        let worst = 21;
        for (const e of document.querySelectorAll("body *")) {
          const text = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
          if (!text || ["SCRIPT", "OPTION"].includes(e.tagName)) continue;
          const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
          worst = Math.min(worst, (a + 0.05) / (b + 0.05));
        }
        return [worst, light(behind(document.body))];
        """,
    )
    assert worst >= 4.5
    assert (paper > 0.9) == (theme == "light")


@pytest.mark.parametrize("board", ["made", "committed"])
def test_all_columns_are_seen_at_1400_pixels(page: Path, tmp_path: Path, board: str) -> None:
    committed = Path(__file__).parents[3] / "leaderboards" / "index.html"
    if board == "committed" and not committed.is_file():
        pytest.skip("the committed tables are not in an installed package")
    sizes = works(
        tmp_path,
        page if board == "made" else committed,
        "return [...document.querySelectorAll('section.protocol .scroll')].map((box) => [box.scrollWidth, box.clientWidth])",
        "--window-size=1400,900",
    )
    assert sizes
    assert all(inside <= seen for inside, seen in sizes)


def test_a_narrow_window_scrolls_tables_and_never_the_page(page: Path, tmp_path: Path) -> None:
    page_width, window, table_scrolls = works(
        tmp_path,
        page,
        "const box = table('toy--held-out').parentElement;"
        "return [document.documentElement.scrollWidth, innerWidth, box.scrollWidth > box.clientWidth]",
        "--window-size=500,900",
    )
    assert window <= 500
    assert page_width <= window
    assert table_scrolls


def test_published_numbers_have_columns_of_their_own(page: Path, tmp_path: Path) -> None:
    values, shown, sources, elsewhere = works(
        tmp_path,
        page,
        "const t = table('toy--held-out'); press(t, 'Model');"
        "const shown = [...t.querySelectorAll('td.reported')].map((td) => td.textContent.trim()).filter(Boolean);"
        "const other = header(table('other--held-out'), 'Reported');"
        "return [column(t, 'Reported SRCC'), shown, column(t, 'Reported by').join(), other == null]",
    )
    assert [value for value in values if value] == ["0.9123"]
    assert shown == [".9123.8000", ".9000 logistic"]
    assert "table 3 read" in sources
    assert "recalled unverified" in sources
    assert elsewhere


def test_links_lead_to_the_records(page: Path, tmp_path: Path) -> None:
    links = works(tmp_path, page, "return [...document.querySelectorAll('tbody a')].map((a) => a.getAttribute('href'))")
    assert len(links) == 9
    assert all((page.parent / link).is_file() for link in links)


def test_the_page_has_an_image_and_prints(page: Path, tmp_path: Path) -> None:
    from PIL import Image

    chromium(tmp_path, f"--screenshot={tmp_path / 'page.png'}", "--window-size=1300,900", page.as_uri())
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.size == (1300, 900)
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 50
    chromium(tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}", page.as_uri())
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
