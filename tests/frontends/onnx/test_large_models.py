"""Large models: time that grows with them and no faster, memory that does not."""

import os
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.api import FoldOptions, fold, inspect
from tests.builders import layer_chain
from tests.support import ROOT

QUICK = FoldOptions(verify=None)


def seconds(model, path):
    """Return how long a fold without verification takes, and its result."""
    path.write_bytes(model.SerializeToString())
    start = time.perf_counter()
    result = fold(path, path.with_suffix(".folded"), QUICK)
    return time.perf_counter() - start, result


def external(path, layers, width):
    """Write convolutions whose weights are external data, most of it a hole in a sparse file."""
    data = path.with_name(path.name + ".data")
    held, nodes, last, size = [], [], "x", width * width * 9 * 4
    for k in range(layers):
        tensor = TensorProto(name=f"w{k}", data_type=1, dims=[width, width, 3, 3], data_location=TensorProto.EXTERNAL)
        for key, value in (("location", data.name), ("offset", str(k * size)), ("length", str(size))):
            tensor.external_data.add(key=key, value=value)
        held.append(tensor)
        nodes.append(helper.make_node("Conv", [last, f"w{k}"], [f"c{k}"], pads=[1] * 4))
        nodes.append(helper.make_node("BatchNormalization", [f"c{k}", "s", "b", "m", "v"], [f"n{k}"]))
        last = f"n{k}"
    held += [numpy_helper.from_array(np.full(width, 2.0, "f4"), name) for name in ("s", "b", "m", "v")]
    with open(data, "wb") as file:
        file.truncate(layers * size)
        file.write(np.arange(width * 9, dtype="f4").tobytes())
    ends = [helper.make_tensor_value_info(name, 1, ["N", width, 8, 8]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "wide", ends[:1], ends[1:], held)
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


def peak(path):
    """Return the most memory in MiB that a fold takes, by its own process (that of its parent does not count)."""
    code = (
        "import sys; from bnfold.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "print([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1])"
    )
    words = [sys.executable, "-c", code, "fold", "--no-verify", "--quiet", str(path), "-o", f"{path}.folded"]
    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_thousands_of_batch_norms_in_linear_time(tmp_path, count):
    small, _ = seconds(layer_chain(count // 10), tmp_path / "small.onnx")
    large, result = seconds(layer_chain(count), tmp_path / "large.onnx")
    assert result.inspection.foldable == count
    assert result.nodes["after"] == count
    assert large < 40 * small  # quadratic growth would be 100


def test_a_graph_of_twenty_thousand_nodes(tmp_path):
    _, result = seconds(layer_chain(100, between=198), tmp_path / "long.onnx")
    assert (result.inspection.foldable, result.nodes) == (100, {"before": 20_000, "after": 19_900})


def test_a_chain_of_constants_and_one_of_reshapes_need_no_recursion(tmp_path):
    nodes, last, weight = [], "x", "w"
    for k in range(3000):
        nodes.append(helper.make_node("Identity", [weight], [f"i{k}"]))
        weight = f"i{k}"
    nodes.append(helper.make_node("Conv", ["x", weight], ["c"]))
    last = "c"
    for k in range(3000):
        nodes.append(helper.make_node("Identity", [last], [f"o{k}"]))
        last = f"o{k}"
    nodes.append(helper.make_node("BatchNormalization", [last, "s", "b", "m", "v"], ["y"]))
    held = [numpy_helper.from_array(np.ones((4, 4, 1, 1), "f4"), "w")]
    held += [numpy_helper.from_array(np.full(4, 2.0, "f4"), name) for name in ("s", "b", "m", "v")]
    ends = [helper.make_tensor_value_info(name, 1, ["N", 4, 2, 2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "deep", ends[:1], ends[1:], held)
    path = tmp_path / "deep.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    assert inspect(path).foldable == 1


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
@pytest.mark.parametrize(
    ("layers", "width"),
    [
        pytest.param(13, 1024, id="500 MB", marks=pytest.mark.slow),
        pytest.param(26, 1024, id="1 GB", marks=pytest.mark.slow),
        pytest.param(66, 1024, id="2.5 GB", marks=pytest.mark.slow),
        pytest.param(66, 2048, id="10 GB", marks=pytest.mark.slow),
        pytest.param(4, 8192, id="4 weights of 2.4 GB", marks=pytest.mark.slow),
    ],
)
def test_external_data_of_any_size_takes_little_memory(tmp_path, layers, width):
    free = os.statvfs(tmp_path)
    if free.f_bavail * free.f_frsize < 2.5 * layers * width * width * 36:
        pytest.skip("the disk is too small")
    path = tmp_path / "wide.onnx"
    external(path, layers, width)
    taken = peak(path)
    assert taken < 150, f"{taken:.0f} MiB"
    folded = onnx.load(str(path) + ".folded", load_external_data=False)
    assert [node.op_type for node in folded.graph.node] == ["Conv"] * layers
    (tmp_path / "wide.onnx.folded.data").unlink()


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
def test_a_model_of_one_large_file_takes_little_memory(tmp_path):
    weight = TensorProto(name="w", data_type=1, dims=[1024, 8192, 3, 3])
    weight.raw_data = bytes(1024 * 8192 * 9 * 4)
    held = [numpy_helper.from_array(np.full(1024, 2.0, "f4"), name) for name in ("s", "b", "m", "v")]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info("x", 1, [1, 8192, 8, 8]), helper.make_tensor_value_info("y", 1, None)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight, *held])
    path = tmp_path / "one.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    del weight, graph
    taken = peak(path)
    assert taken < 150, f"{taken:.0f} MiB"
