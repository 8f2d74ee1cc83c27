"""Files made to do harm: each ends with a documented exit code and a line, in seconds and in little memory."""

import os
import resource
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support import ROOT

MEMORY = 1500 * 2**20
"""Bytes of address space that each attempt gets."""


def graph(nodes, held=(), outputs=("y",)):
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    return helper.make_graph(list(nodes), "g", [source], infos, list(held))


def model(nodes, held=(), functions=(), outputs=("y",)):
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph(nodes, held, outputs), opset_imports=opsets, functions=functions)


def batch_norm(source="x", target="y"):
    return helper.make_node("BatchNormalization", [source, "s", "b", "m", "v"], [target], name="bn")


def statistics(size=2):
    return [numpy_helper.from_array(np.full(size, 2.0, "f4"), name) for name in "sbmv"]


def claiming(dims, data=b"\0" * 8, kind=TensorProto.FLOAT):
    return TensorProto(name="w", data_type=kind, dims=dims, raw_data=data)


def conv_with(weight):
    return model([helper.make_node("Conv", ["x", "w"], ["c"]), batch_norm("c")], [weight, *statistics()])


def nested(levels):
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["i"])], "b", [], [helper.make_empty_tensor_value_info("i")]
    )
    for level in range(levels):
        node = helper.make_node("If", ["c"], [f"o{level}"], then_branch=body, else_branch=body if level < 3 else None)
        if level >= 3:
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("then_branch", body))
        body = helper.make_graph([node], f"b{level}", [], [helper.make_empty_tensor_value_info(f"o{level}")])
    outer = helper.make_node("If", ["c"], ["y"])
    outer.attribute.append(helper.make_attribute("then_branch", body))
    return model([outer], [numpy_helper.from_array(np.array(True), "c")])


def recursive_function():
    inner = helper.make_node("F", ["a"], ["b"], domain="own")
    function = helper.make_function(
        "own", "F", ["a"], ["b"], [inner], [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    )
    return model([helper.make_node("F", ["x"], ["y"], domain="own")], functions=[function])


def exponential_functions(levels=40):
    """Each function calls the one below twice: inlined, that is a trillion nodes."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = [helper.make_function("own", "F0", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets)]
    for level in range(1, levels):
        calls = [
            helper.make_node(f"F{level - 1}", ["a"], ["t"], domain="own"),
            helper.make_node(f"F{level - 1}", ["t"], ["b"], domain="own"),
        ]
        functions.append(helper.make_function("own", f"F{level}", ["a"], ["b"], calls, opsets))
    call = helper.make_node(f"F{levels - 1}", ["x"], ["r"], domain="own")
    return model([call, batch_norm("r")], statistics(), functions)


def long_attribute():
    pool = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[1] * 300_000)
    return model([pool])


def cycle():
    return model(
        [helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Relu", ["a"], ["b"]), batch_norm("b")], statistics()
    )


def huge_constant(*dims):
    shape = numpy_helper.from_array(np.array(dims, np.int64), "d")
    fill = helper.make_node("ConstantOfShape", ["d"], ["w"], value=numpy_helper.from_array(np.array([1.0], "f4")))
    return model([fill, helper.make_node("Conv", ["x", "w"], ["c"]), batch_norm("c")], [shape, *statistics()])


HOSTILE = {
    "2^60 elements": (lambda: conv_with(claiming([2**30, 2**30])), 4),
    "dims that overflow": (lambda: conv_with(claiming([2**40, 2**40, 2**40])), 4),
    "negative dims": (lambda: conv_with(claiming([-1, 2])), 4),
    "strings for weights": (lambda: conv_with(claiming([2, 2, 1, 1], kind=TensorProto.STRING)), (0, 4)),
    "cycle": (cycle, 4),
    "a name made twice": (lambda: model([batch_norm(), batch_norm()], statistics()), 4),
    "missing input": (lambda: model([batch_norm("nobody")], statistics()), 4),
    "missing output": (lambda: model([batch_norm()], statistics(), outputs=("z",)), 4),
    "graphs 30 deep": (lambda: nested(28), 0),
    "a function that calls itself": (recursive_function, (0, 4)),
    "functions that double": (exponential_functions, (0, 4)),
    "a long attribute": (long_attribute, 0),
    "a constant of 2^62 elements": (lambda: huge_constant(2**31, 2**31, 1, 1), 0),
    "a constant of negative size": (lambda: huge_constant(-5, 2, 1, 1), (0, 4)),
}


def limited():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def attempt(path, *words):
    command = [sys.executable, "-m", "bnfold", *words, str(path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=path.parent, env=env, capture_output=True, text=True, check=False, timeout=30, preexec_fn=limited
    )


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_graphs(tmp_path, name):
    build, codes = HOSTILE[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(build().SerializeToString())
    done = attempt(path, "inspect")
    assert done.returncode in (codes if isinstance(codes, tuple) else (codes,)), done.stderr
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) <= 2


def external(tmp_path, entries, count=1):
    """A Conv whose weights (8 bytes each) are said to lie where ``entries`` say."""
    held = []
    for number in range(count):
        tensor = TensorProto(name=f"w{number}", data_type=1, dims=[2, 1, 1, 1], data_location=TensorProto.EXTERNAL)
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        held.append(tensor)
    nodes = [helper.make_node("Conv", ["x", f"w{k}"], [f"c{k}"], group=2) for k in range(count)]
    nodes += [batch_norm("c0")]
    path = tmp_path / "model.onnx"
    path.write_bytes(model(nodes, [*held, *statistics()]).SerializeToString())
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="makes devices and pipes")
@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "link out", "past the end", "beyond 2^63", "nothing"])
def test_hostile_data_files(tmp_path, kind):
    data, entries = tmp_path / "data", {"location": "data", "length": "8"}
    if kind == "device":
        data.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(data)
    elif kind == "folder":
        data.mkdir()
    elif kind == "link out":
        data.symlink_to("/etc/passwd")
    else:
        data.write_bytes(bytes(16))
        entries |= {
            "past the end": {"offset": "12"},
            "beyond 2^63": {"offset": str(2**63)},
            "nothing": {"length": "0"},
        }[kind]
    done = attempt(external(tmp_path, entries), "fold", "--no-verify")
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["data", "model.onnx"]


def test_two_tensors_of_the_same_bytes_are_two_tensors(tmp_path):
    (tmp_path / "data").write_bytes(np.array([1.0, 2.0], "f4").tobytes())
    path = external(tmp_path, {"location": "data", "length": "8"}, count=2)
    done = attempt(path, "fold", "--no-verify")
    assert done.returncode == 0, done.stderr
    folded = onnx.load(tmp_path / "model.folded.onnx")
    held = {tensor.name: numpy_helper.to_array(tensor).reshape(-1) for tensor in folded.graph.initializer}
    np.testing.assert_array_equal(held["w1"], [1.0, 2.0])
    assert not np.array_equal(held["w0_bnfold"], [1.0, 2.0])
    assert (tmp_path / "data").read_bytes() == np.array([1.0, 2.0], "f4").tobytes()


def test_a_name_that_is_no_text_shows_only_while_a_fold_is_written(tmp_path):
    """Found by guided fuzzing: by then the node that had it is gone, and the file must be asked once more."""
    weight = numpy_helper.from_array(np.ones((2, 2, 1, 1), "f4"), "w")
    data = model(
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            batch_norm("c", "b?"),
            helper.make_node("Relu", ["x"], ["y"]),
        ],
        [weight, *statistics()],
    ).SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(data.replace(b"b?", b"b\x95"))
    done = attempt(path, "fold", "--no-verify")
    assert done.returncode == 4, done.stderr
    assert done.stderr.startswith(f"error: {path}: a name in it is not UTF-8")
    assert not (tmp_path / "model.folded.onnx").exists()
