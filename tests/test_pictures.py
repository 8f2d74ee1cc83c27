"""The pictures of the documentation: true, transparent, readable on a phone, in two themes."""

import importlib.util
import re
from xml.etree import ElementTree as Xml

import onnx
import pytest

from tests.support import SAMPLES

pytest.importorskip("matplotlib")

ROOT = SAMPLES.parent
IMAGES = ROOT / "docs" / "images"
SVG = "{http://www.w3.org/2000/svg}"


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_before_and_after_is_what_the_fold_of_the_digits_network_says(tmp_path):
    pytest.importorskip("onnxruntime")
    pictures = loaded("pictures")
    target = tmp_path / "folded.onnx"
    result = pictures.fold(SAMPLES / "digits.onnx", target)
    graphs = onnx.load(SAMPLES / "digits.onnx").graph, onnx.load(target).graph
    for ending in pictures.INK:
        drawn = pictures.before_and_after(result, *graphs, ending)
        assert (IMAGES / f"before_after{ending}.svg").read_text() == drawn, "run python docs/pictures.py"
    words = [text.text for text in Xml.fromstring(drawn).iter(f"{SVG}text")]
    assert words[-1] == "3 BatchNorms removed, equivalent"
    assert words.count("BatchNorm") == 3
    assert {"11 nodes", "8 nodes"} <= set(words)


@pytest.mark.parametrize("name", ["before_after", "drift", "momentum"])
def test_pictures_are_transparent_and_have_a_dark_variant(name):
    for ending in ("", ".dark"):
        text = (IMAGES / f"{name}{ending}.svg").read_text()
        root = Xml.fromstring(text)
        assert float(re.match(r"[\d.]+", root.get("width"))[0]) <= 400
        assert "fill: #ffffff" not in text
        width = float(root.get("viewBox").split()[2])
        assert not any(float(box.get("width")) > 0.9 * width for box in root.findall(f"{SVG}rect"))
    assert ("#24292f" in text, "#e6edf3" in text) == (False, True)


def test_the_readme_has_a_dark_picture():
    text = (ROOT / "README.md").read_text()
    files = re.findall(r'(?:srcset|src)="(docs/images/[^"]+)"', text)
    assert files == ["docs/images/before_after.dark.svg", "docs/images/before_after.svg"]
    assert "prefers-color-scheme: dark" in text
