"""The HTML report: what it says, that names in models stay text, and how a real browser sees it."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from sample_models.build import batch_norm, bn_node, make, node, tensor, weights
from tests.support import SAMPLES

pytest.importorskip("onnxruntime")
pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from bnfold.cli.main import main
from bnfold.rules.reasons import REASONS

BROWSERS = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]


def call(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


class Page(HTMLParser):
    """Balanced tags, texts, and everything that would load something from elsewhere."""

    VOID = frozenset({"meta", "input", "br", "path", "use", "line", "rect"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.loads, self.texts = [], [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        given = dict(attributes)
        self.loads += [given[name] for name in ("src", "href", "xlink:href", "action", "data") if name in given]
        assert not any(name.startswith("on") for name in given)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def hostile(path):
    """A model whose names would like to be more than names."""
    name = '</td><script>alert("x")</script><img src=x onerror=alert(1)>&{{7*7}}$\n\u202e'
    held = {"w": weights(1, 4, 3, 1, 1), **batch_norm("bn", 4)}
    nodes = [node("Conv", ["x", "w"], ["c"], name=name), node("Sigmoid", ["c"], ["s"]), bn_node("s", "y", "bn")]
    nodes[2].name = name + "2"
    onnx.save(make(nodes, [tensor("x", ["N", 3, 4, 4])], [tensor("y", ["N", 4, 4, 4])], held), path)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """One page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    digits, folded = SAMPLES / "digits.onnx", folder / "folded.onnx"
    hostile(folder / "hostile.onnx")
    call("fold", digits, "-o", folded, "--report", f"html={folder / 'fold.html'}")
    call("verify", digits, folded, "--checks", "structure,weights,layers", "--report", f"html={folder / 'verify.html'}")
    words = ("verify", digits, SAMPLES / "digits_corrupted.onnx", "--checks", "structure,weights")
    CliRunner().invoke(main, [*map(str, words), "--report", f"html={folder / 'different.html'}"])
    call("inspect", SAMPLES / "two_consumers.onnx", "--report", f"html={folder / 'kept.html'}")
    call("inspect", folder / "hostile.onnx", "--report", f"html={folder / 'hostile.html'}")
    call("bench", digits, folded, "--runs", 5, "--report", f"html={folder / 'bench.html'}")
    data = ("--data", SAMPLES / "digits_train.npz")
    call("inspect", SAMPLES / "digits_corrupted.onnx", *data, "--report", f"html={folder / 'drift.html'}")
    return folder


@pytest.mark.parametrize("name", ["fold", "verify", "kept", "hostile", "bench", "drift"])
def test_a_page_is_whole_and_loads_nothing(pages, name):
    page = Page((pages / f"{name}.html").read_text())
    assert all(link.startswith("#") for link in page.loads), page.loads
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert page.tags.count("h1") == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fold", ["equivalent", "/0/Conv", "89,201", "structure", "before", "3 of 3 BatchNorms folded"]),
        ("fold", ["Errors", "expected rounding error", "limit"]),
        ("verify", ["equivalent", "layers", "/7/Gemm", "Weights before and after"]),
        ("kept", ["consumers: 1 BatchNorm", *REASONS["consumers"], "Sigmoid", "gate"]),
        ("bench", ["Latency", "disable", "ms", "ratio (95% CI)", "inconclusive: these runs", "compared with"]),
        ("different", ["different", "FAIL", "compared with", "BatchNorms of the original model", "foldable"]),
        ("drift", ["drift", "in standard deviations"]),
        ("hostile", ["{{7*7}}", "<script>alert", r"\u202e"]),
    ],
)
def test_a_page_tells(pages, name, words):
    text = " ".join(Page((pages / f"{name}.html").read_text()).texts)
    for word in words:
        assert word in text, word


def test_a_different_model_is_not_said_to_be_foldable(pages):
    assert "can be folded" not in (pages / "different.html").read_text()


@pytest.mark.parametrize("name", ["fold", "verify", "kept", "bench", "drift", "different"])
def test_heads_stand_over_their_numbers(pages, name):
    """A column of numbers is flushed right, so is its head; on a phone, a cell says what it is."""
    text = (pages / f"{name}.html").read_text()
    for table in re.findall("<table.*?</table>", text, re.DOTALL):
        heads = re.findall("<th ([^>]*)>", re.search("<thead>.*?</thead>", table, re.DOTALL)[0])
        rows = re.findall("<tr.*?</tr>", table.split("<tbody>")[1], re.DOTALL)
        for row in rows:
            cells = re.findall("<t[hd]([^>]*)>", row)
            assert len(cells) == len(heads)
            assert ['"number"' in cell for cell in cells] == ['"number"' in head for head in heads]
            assert all("data-label" in cell for cell in cells if '"number"' in cell)


def test_tables_have_heads_and_figures_have_labels(pages):
    text = (pages / "fold.html").read_text()
    assert text.count("<table") == text.count("<thead>")
    assert not re.search(r"<th(?![^>]*scope=)", text.replace("<thead>", ""))
    assert text.count("<figure") == text.count('role="img" aria-label=')


def test_odd_names_and_huge_weights_are_drawn(tmp_path):
    held = {"w": np.full((4, 3, 1, 1), 1.5e308), **batch_norm("bn", 4, dtype="float64")}
    held["w"][0] = -1.0
    held["bn_scale"] *= 1e-200
    nodes = [node("Conv", ["x", "w"], ["c"], name="conv"), bn_node("c", "y", "bn")]
    nodes[1].name = r"$\frac$B"
    model = make(nodes, [tensor("x", ["N", 3, 4, 4], 11)], [tensor("y", ["N", 4, 4, 4], 11)], held)
    onnx.save(model, tmp_path / "m.onnx")
    report = f"html={tmp_path / 'm.html'}"
    call("fold", tmp_path / "m.onnx", "--no-verify", "--report", report)
    assert r"$\frac$B" in (tmp_path / "m.html").read_text()
    hostile(tmp_path / "h.onnx")
    np.save(tmp_path / "x.npy", np.ones((4, 3, 4, 4), "f4"))
    call("inspect", tmp_path / "h.onnx", "--data", tmp_path / "x.npy", "--report", report, "--plot", tmp_path / "p.svg")
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", (tmp_path / "m.html").read_text())


def test_what_needs_more_says_so(monkeypatch, samples):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = CliRunner().invoke(main, ["inspect", str(samples / "conv.onnx"), "--report", "html=x.html"])
    assert result.exit_code == 2
    assert "pip install 'bnfold[html]'" in result.stderr


def test_inspect_has_no_verdict_for_other_reports(samples):
    result = CliRunner().invoke(main, ["inspect", str(samples / "conv.onnx"), "--report", "junit=x.xml"])
    assert result.exit_code == 2
    assert "no verdict" in result.stderr


# --- in a browser


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if not BROWSERS:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=BROWSERS[0], args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def visit(browser, pages):
    """Open a page; whatever it complains about is in ``complaints``."""
    opened = []

    def visit(name, **options):
        context = browser.new_context(**options)
        page = context.new_page()
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file:") or page.complaints.append(request.url))
        page.on("dialog", lambda dialog: page.complaints.append(dialog.message))
        page.goto((pages / f"{name}.html").as_uri())
        opened.append(context)
        return page

    yield visit
    for context in opened:
        context.close()


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
@pytest.mark.parametrize("name", ["fold", "verify", "kept", "hostile", "bench", "drift"])
def test_a_browser_shows_it_without_complaint(visit, name, scheme, width):
    page = visit(name, color_scheme=scheme, viewport={"width": width, "height": 800})
    assert page.locator("h1").is_visible()
    wide = page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert wide, "the page itself scrolls sideways"
    assert page.complaints == []


def names(page):
    return page.locator("#batchnorms tbody tr:not([hidden]) th").all_inner_texts()


@pytest.mark.slow
def test_it_sorts_and_filters_by_keyboard(visit):
    page = visit("fold")
    before = names(page)
    head = page.get_by_role("button", name="name").first
    head.focus()
    page.keyboard.press("Enter")
    assert names(page) == sorted(before)
    page.keyboard.press("Enter")
    assert names(page) == sorted(before, reverse=True)
    assert page.locator("#batchnorms thead th").first.get_attribute("aria-sort") == "descending"
    page.get_by_label("Filter").fill("/7/")
    assert names(page) == ["/8/BatchNormalization"]
    assert page.get_by_role("status").inner_text() == "1 of 3"
    page.get_by_label("Filter").fill("")
    page.get_by_label("Status").select_option("folded")
    assert len(names(page)) == 3
    assert page.complaints == []


@pytest.mark.slow
def test_without_scripts_the_essentials_are_there(visit):
    page = visit("fold", java_script_enabled=False)
    assert page.locator(".verdict").inner_text() == "equivalent"
    assert len(names(page)) == 3
    assert not page.get_by_label("Filter").is_visible()


def luminance(colour):
    parts = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_enough_contrast(visit, scheme):
    """At least 4.5 to 1, as WCAG 2 asks of texts."""
    page = visit("kept", color_scheme=scheme)
    found = page.evaluate(
        """() => {
          const ground = getComputedStyle(document.body).backgroundColor;
          const own = node => { for (; node; node = node.parentElement) {
            const c = getComputedStyle(node).backgroundColor; if (c !== "rgba(0, 0, 0, 0)") return c } return ground };
          return [...document.querySelectorAll("h1,h2,th,td,dt,dd,span,label,summary,button")]
            .filter(node => node.textContent.trim()).map(node => [getComputedStyle(node).color, own(node)]) }"""
    )
    assert len(found) > 20
    for colour, ground in found:
        light, dark = sorted((luminance(colour), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (colour, ground)


@pytest.mark.slow
def test_the_button_changes_the_theme(visit):
    page = visit("kept", color_scheme="light")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Dark or light").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    assert json.loads(page.evaluate("JSON.stringify(document.documentElement.dataset)")) == {"theme": "dark"}
