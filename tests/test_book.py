"""The book: what it is laid out from, how equations are set, and that a browser can read all of it."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from lib import figures, files, markup
from lib.analysis import report, tables
from lib.grid import book
from lib.player import player
from tests import made_up

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
COLUMNS = 40  # of a table that no phone is wide enough for
RECEIPT = {
    "parameters": {"build": "build", "dataset": "demo"},
    "commit": "0" * 40,
    "dirty": False,
    "device": "cpu",
    "versions": {"python": "3.11.7", "torch": "2.14.1"},
}
HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    "<svg onload='window.hacked = 3'></svg>",
    "dog|bark <b>b</b> $x$ *and* [a](javascript:4)",
]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="


# -------------------------------------------------------------------------------------------- without one


@pytest.mark.parametrize(
    ("equation", "wanted", "unwanted"),
    [
        (r"\psi\Big(\frac{t}{s}\Big)", ["<mfrac>", 'minsize="1.623em"'], []),
        (r"\text{STFT}\{a[n]\}", ['<mo stretchy="false">{</mo>', '<mo stretchy="false">}</mo>'], []),
        (r"\left\{\frac{a}{b}\right\}", ["<mrow><mo>{</mo>", "<mo>}</mo></mrow>"], ["stretchy"]),
        (r"\zeta \operatorname{sgn} x", ["ζ</mi><mspace", "sgn</mi><mspace"], ["ApplyFunction"]),
        (r"\|\mathbf{x}' - \mathbf{x}\|_2^2", ["𝐱", "'</mo>", "‖"], []),
    ],
)
def test_equations_are_mathml(equation, wanted, unwanted):
    text = book.mathml(equation, "block")
    assert text.startswith('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">')
    for each in wanted:
        assert each in text
    for each in unwanted:
        assert each not in text


def test_every_equation_of_the_chapters_can_be_set():
    import jupytext

    count = 0
    for path in sorted(Path("notebooks").glob("0*.py")):
        prose = "\n\n".join(
            re.sub(r"(?m)^> ?", "", cell.source)
            for cell in jupytext.read(path, fmt="py:percent").cells
            if cell.cell_type == "markdown"
        )
        for blocked, inline in re.findall(r"\$\$(.+?)\$\$|(?<![\\$])\$([^$]+)\$", prose, re.DOTALL):
            assert "<m" in book.mathml(blocked or inline, "block" if blocked else "inline")
            count += 1
    assert count > 50


def test_a_command_that_is_not_known_stops_the_book():
    from docutils.utils.math import MathError

    with pytest.raises(MathError, match="nonsense"):
        book.mathml(r"\nonsense{x}", "inline")


def test_tables_stand_in_the_index_of_figures(tmp_path):
    (tmp_path / "cells.md").write_text("What was run.\n\n| a |\n| --- |\n| 1 |\n")
    begin, end = "# Tables\n\n## cells\n\nWhat was run.\n\nChapter 6, demo, ", "## rate\n\nA picture.\n"
    text = f"{begin}[md](cells.md), [csv](cells.csv).\n\n{end}"
    table = "| a |\n| --- |\n| 1 |\n\n"
    assert book.with_tables(text, tmp_path) == f"{begin}[csv](cells.csv).\n\n{table}{end}"


def test_links_lead_to_pages_or_are_plain(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/04_attacks.ipynb").write_text("")
    said = book.linked(
        "`notebooks/04_attacks.py` `notebooks/05_x.py` [us](notebooks/04_attacks.ipynb) [law](LICENSE) "
        "[out](https://example.org) ![picture](figures/x.png)",
        tmp_path,
    )
    assert said == (
        "[`notebooks/04_attacks`](notebooks/04_attacks.ipynb) `notebooks/05_x.py` "
        "[us](notebooks/04_attacks.ipynb) law [out](https://example.org) ![picture](figures/x.png)"
    )


# ----------------------------------------------------------------------------------------------- a browser


def chapter(title: str, *outputs) -> nbformat.NotebookNode:
    """A small executed chapter: prose, an equation, code and what it showed."""
    prose = f"# {title}\n\n**What is it?** The norm $\\|\\delta\\|_2$:\n\n$$J = \\sqrt{{\\sum_i d_i^2}}$$"
    code = nbformat.v4.new_code_cell("shown = 1  # " + "a long line " * 9, outputs=list(outputs))
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(prose), code])


def shown(**data) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("display_data", {k.replace("_", "/", 1): v for k, v in data.items()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkout with the reader's copies of this one where there are any, else small executed chapters."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("Debian's chromium and chromium-driver are not here")
    root, here = tmp_path_factory.mktemp("book"), Path.cwd()
    (root / "notebooks").mkdir()
    shutil.copy(here / "README.md", root)
    copies = sorted((here / "notebooks").glob("0*.ipynb"))
    for path in [*copies, here / "notebooks/README.md"]:
        shutil.copy(path, root / "notebooks")
    demo = root / "build/demo"
    wide = "".join(f"<td>{i}.000000</td>" for i in range(COLUMNS))
    rows = "|".join(["", *(f"column {i}" for i in range(COLUMNS)), ""])
    table = f"{rows}\n|{'---|' * COLUMNS}\n{rows}"
    heard = player(np.sin(np.arange(1600) / 5), 8000, "a tone").data
    wide = f"<table class='dataframe'><tr>{wide}</tr></table>"
    named = pd.DataFrame({"class": HOSTILE, "clips": range(len(HOSTILE))}, index=HOSTILE)
    outputs = [
        shown(text_markdown=markup.table(named)),
        shown(text_markdown="\n".join(f"- {markup.text(name)}" for name in HOSTILE)),
        shown(text_markdown="\n\n".join(HOSTILE)),
        shown(text_html=named._repr_html_(), text_plain=repr(named)),
        nbformat.v4.new_output("stream", name="stdout", text="\n".join(HOSTILE)),
    ]
    chapters = {
        "01_data": chapter("1 · Data", shown(image_png=PIXEL), shown(text_html=heard)),
        "04_attacks": chapter("4 · Attacks", shown(text_markdown=f"JSMA and five more\n\n{table}")),
        "07_beyond": chapter("7 · Beyond", shown(text_html=wide), shown(text_html=heard), *outputs),
    }
    cells = []
    demo.mkdir(parents=True)
    for name, notebook in chapters.items():
        nbformat.write(notebook, demo / f"{name}.ipynb")
        files.save(demo / f"{name}.receipt.json", RECEIPT)
        cells.append(f"build/demo/{name}.ipynb")
    figures.use_style()
    run = made_up.grid(dataset="demo")
    run.about.update({key: about | {"name": HOSTILE[0]} for key, about in run.about.items()})
    parts = ("table_2", "trade_off", "claims", "figure_1")
    made = report.Report(tables.Analysis(run), demo / "figures", parts)
    for name in parts:
        made.add(name)
    made.finish()
    if (here / "figures").is_dir():
        shutil.copytree(here / "figures", root / "figures")
    (root / "lib").symlink_to(here / "lib")
    command = [sys.executable, "-m", "lib.grid", "book", "BUILD=build", f"CELLS={' '.join(cells)}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "open build/book/index.html in a browser\n"
    assert [path.name for path in (root / "build").iterdir() if path.name != "demo"] == ["book"]
    return (root / "build/book").resolve()


@pytest.fixture(scope="module")
def browser(folder):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(300)
    yield driver
    driver.quit()


@pytest.fixture
def pages(folder):
    return sorted(folder.rglob("*.html"))


def size(browser, width: int, height: int, mobile: bool = False) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile},
    )


def scheme(browser, name: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": name}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@pytest.mark.browser
def test_every_page_opens_without_a_complaint_and_asks_no_network(browser, pages, folder):
    import json

    assert {"index.html", "search.html"} <= {page.name for page in pages}
    asked = set()
    for page in pages:
        browser.get(page.as_uri())
        assert browser.get_log("browser") == [], page
        broken = browser.execute_script(
            "return [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
        )
        assert broken == [], page
        for entry in browser.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.add(message["params"]["request"]["url"])
    assert any(url.endswith("book.css") or "book.css?" in url for url in asked)
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert all(url.startswith(("data:", folder.as_uri())) for url in asked)


@pytest.mark.browser
def test_no_name_runs_as_a_script_and_all_are_shown(browser, folder, pages):
    for page in pages:
        browser.get(page.as_uri())
        ran = browser.execute_script(
            "return [window.hacked, document.querySelectorAll('[onerror], [onload]').length]"
        )
        assert ran == [None, 0], page
        links = (
            "return [...document.links].map(a => a.getAttribute('href')).filter(a => /^javascript/i.test(a))"
        )
        assert browser.execute_script(links) == [], page
    browser.get((folder / "toys/07_beyond.html").as_uri())
    cells = browser.execute_script(
        "return [...document.querySelectorAll('td, th')].map(cell => cell.innerText)"
    )
    lines = browser.execute_script(
        "return [...document.querySelectorAll('li p, li')].map(line => line.innerText)"
    )
    for name in HOSTILE:
        assert cells.count(name) == 4, "as index and class of a table in Markdown and of one in HTML"
        assert name in lines
    browser.get((folder / "figures/demo/README.html").as_uri())
    assert f"a clip of the class {HOSTILE[0]}" in browser.execute_script("return document.body.innerText")


@pytest.mark.browser
def test_pictures_and_players_are_there(browser, folder, pages):
    seen = {}
    for page in pages:
        browser.get(page.as_uri())
        seen[page.relative_to(folder).as_posix()] = browser.execute_script(
            "return [document.images.length, document.querySelectorAll('audio').length]"
        )
    assert seen["figures/demo/README.html"][0] >= 1
    players = {page for page, (_, audio) in seen.items() if audio}
    assert {page.split("/")[-1] for page in players} == {"01_data.html", "07_beyond.html"}
    browser.get((folder / sorted(players)[-1]).as_uri())
    seconds = wait(browser, "return document.querySelector('audio').duration")
    assert seconds > 0.1


def wait(browser, script: str, patience: float = 120.0):
    """What a script returns, once it is something."""
    until = time.monotonic() + patience
    while not (found := browser.execute_script(script)) and time.monotonic() < until:
        time.sleep(0.2)
    return found


@pytest.mark.browser
def test_a_search_finds_jsma(browser, folder):
    browser.get((folder / "search.html").as_uri() + "?q=JSMA")
    found = wait(browser, "return [...document.querySelectorAll('#search-results li a')].map(a => a.href)")
    assert any("notebooks/04_attacks.html" in link for link in found)
    assert browser.get_log("browser") == []
    browser.get(found[0])
    assert "JSMA" in browser.execute_script("return document.body.innerText")
    browser.get((folder / "search.html").as_uri() + "?q=zzyzx")
    said = "return document.querySelector('#search-results').innerText.includes('did not match') || ''"
    assert wait(browser, said)


@pytest.mark.browser
def test_wide_tables_scroll_in_a_phone_and_the_page_does_not(browser, folder, pages):
    size(browser, 390, 844, mobile=True)
    scrolling = 0
    for page in pages:
        browser.get(page.as_uri())
        wide, inner = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert (wide, inner) == (390, 390), page
        # Every table that is wider than the phone stands in a box that scrolls.
        loose, boxed = browser.execute_script("""
            const wide = [...document.querySelectorAll('article table')].filter(t => t.scrollWidth > 390);
            const box = t => { while (t && t.tagName != 'ARTICLE') {
                if (['auto', 'scroll'].includes(getComputedStyle(t).overflowX)
                    && t.scrollWidth > t.clientWidth && t.clientWidth <= 390) return t;
                t = t.parentElement; } };
            const boxes = wide.map(box);
            for (const b of boxes) if (b) b.scrollLeft = 50;
            return [boxes.filter(b => !b).length, boxes.filter(b => b && b.scrollLeft == 50).length];
        """)
        assert loose == 0, page
        scrolling += boxed
    assert scrolling >= 2
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.browser
def test_dark_differs_from_light_and_can_be_chosen(browser, folder):
    ground = "return getComputedStyle(document.body).backgroundColor"
    browser.get((folder / "index.html").as_uri())
    light = colours(browser, "light", ground)
    dark = colours(browser, "dark", ground)
    assert light == (255, 255, 255)
    assert max(dark) < 60
    size(browser, 1280, 900)
    scheme(browser, "light")
    before = browser.execute_script(ground)
    press = "document.querySelector('.content-icon-container .theme-toggle').click();"
    seen = {before} | {browser.execute_script(f"{press} {ground}") for _ in range(3)}
    assert len(seen) == 2
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def colours(browser, name: str, script: str) -> tuple[int, ...]:
    scheme(browser, name)
    return tuple(map(int, re.findall(r"\d+", browser.execute_script(script))[:3]))


SET = book.mathml(r"\sqrt{\sum_i d_i + e^2}", "block")


@pytest.mark.browser
def test_equations_are_drawn_as_such_in_the_browser_s_own_font(browser, folder):
    """The root is over its sum, the index of the sum below its sign, exponents above the line."""
    browser.get((folder / "toys/07_beyond.html").as_uri())
    browser.execute_script(f"document.body.insertAdjacentHTML('beforeend', `<p id='set'>{SET}</p>`)")
    box = "const b = e => document.querySelector('#set ' + e).getBoundingClientRect();"
    root, inside, sign, below, base, power = browser.execute_script(
        f"{box} return ['msqrt', 'msqrt msup', 'munder mo', 'munder mi', 'msup mi', 'msup mn'].map(b)"
    )
    assert root["top"] < inside["top"]
    assert root["left"] < sign["left"] < inside["left"] < inside["right"] <= root["right"]
    assert below["top"] >= sign["top"] + sign["height"] / 2
    assert power["top"] + power["height"] / 2 < base["top"] + base["height"] / 2
    assert min(box["height"] for box in (root, inside, sign, below, base, power)) > 3
    assert browser.execute_script("return document.fonts.size") == 0
