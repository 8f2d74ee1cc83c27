"""What the site's hook makes of pages (docs/hooks.py), and the site's configuration. mkdocs itself runs in .ci/run."""

import importlib.util
import re

import pytest

from tests.support import SAMPLES

ROOT = SAMPLES.parent


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_shows_the_picture_of_its_theme(hooks):
    shown = hooks.on_page_content('<p><img alt="x" src="../images/drift.svg" /></p>')
    assert re.findall(r'src="([^"]+)"', shown) == [
        "../images/drift.svg#only-light",
        "../images/drift.dark.svg#only-dark",
    ]
    other = '<p><img alt="x" src="images/other.svg" /></p>'
    assert hooks.on_page_content(other) == other


def test_transcripts_look_as_in_a_terminal(hooks):
    line = "  pass  weights   3 folded layers, " + "each within 0.5 ulp of the exact fold, " * 3
    source = f"text\n\n```console\n$ bnfold {'word ' * 30}\nNAME\tTARGET\n/long/name\tnext: x\n{line}\n```\n\na\tb\n"
    shown = hooks.on_page_markdown(source).splitlines()
    assert shown[:3] == ["text", "", "```console"]
    assert shown[3] == f"$ bnfold {'word ' * 30}"
    assert shown[4:6] == ["NAME        TARGET", "/long/name  next: x"]
    assert all(len(part) <= hooks.WIDTH for part in shown[4:])
    assert shown[6].startswith("  pass  weights   3 folded")
    assert re.match(r" {18}\S", shown[7])
    assert " ".join(" ".join(shown[6:-3]).split()) == " ".join(line.split())
    assert shown[-3:] == ["```", "", "a\tb"]


def test_every_transcript_of_the_documentation_keeps_its_words(hooks):
    for page in (ROOT / "docs").glob("*.md"):
        source = page.read_text()
        source = hooks.INCLUDE.sub("", source)
        assert hooks.on_page_markdown(source).split() == source.split()


def test_cells_of_prose_say_what_they_are(hooks):
    head = "<thead><tr><th>code</th><th>a &quot;why&quot;</th></tr></thead>"
    row = '<tr><td><code>x</code></td><td style="text-align: right">{}</td></tr>'
    prose = f"<table>{head}<tbody>{row.format('a sentence of more than thirty-six letters')}</tbody></table>"
    shown = hooks.on_page_content(prose)
    assert shown.startswith("<table data-cards>")
    assert re.findall('data-label="([^"]*)"', shown) == ["code", "a &quot;why&quot;"]
    assert "<code>x</code>" in shown
    numbers = f"<table>{head}<tbody>{row.format('3')}</tbody></table>"
    assert hooks.on_page_content(numbers) == numbers


def test_no_repository_is_invented():
    assert "repo_url: !ENV [REPOSITORY_URL, null]" in (ROOT / "mkdocs.yml").read_text()
