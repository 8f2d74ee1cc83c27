"""Programs from the outside: files and live objects in, .pt2 and ONNX out, verdicts, refusals, without torch."""

from __future__ import annotations

import json
import subprocess
import sys

import onnx
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from bnfold.api import FoldOptions, fold, inspect, verify
from bnfold.errors import InputError, Refused, UsageError
from bnfold.frontends.torch.load import load_program
from bnfold.options import VerifyOptions
from tests.frontends.torch import modules
from tests.frontends.torch.modules import BN2, trained

pytestmark = pytest.mark.filterwarnings("ignore")
PLAIN = FoldOptions(verify=None)
PROOFS = VerifyOptions(["structure", "weights"])


def network():
    return trained(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False),
            BN2(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 1),
            BN2(8),
            nn.Flatten(),
            nn.Linear(288, 5),
        )
    )


def export(module, batch=True):
    sizes = ({0: torch.export.Dim("batch", min=2, max=64)},) if batch else None
    return torch.export.export(module, (torch.randn(2, 3, 8, 8),), dynamic_shapes=sizes)


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(0)
    torch.export.save(export(network()), tmp_path / "net.pt2", extra_files={"notes.txt": "mine"})
    return tmp_path / "net.pt2"


def test_a_program_is_folded_verified_and_found_again(path):
    before = path.read_bytes()
    result = fold(path)
    target = path.with_name("net.folded.pt2")
    assert (result.verdict, result.output.path) == ("equivalent", str(target))
    assert path.read_bytes() == before
    assert verify(None, target).verdict == "equivalent"
    loaded = load_program(target)
    assert loaded.extra["notes.txt"] == "mine"
    assert [str(node.target) for node in loaded.program.graph.nodes if "norm" in str(node.target)] == []
    assert list(loaded.program.state_dict) == ["0.weight", "3.weight", "3.bias", "6.weight", "6.bias", "0.bias"]
    assert loaded.program.module()(torch.ones(7, 3, 8, 8)).shape == (7, 5)


def test_folding_is_reproducible_and_idempotent(path, tmp_path):
    first, second, again = (tmp_path / f"{name}.pt2" for name in ("first", "second", "again"))
    fold(path, first, FoldOptions(verify=None))
    fold(path, second, FoldOptions(verify=None))
    assert first.read_bytes() == second.read_bytes()
    assert fold(first, again).verdict == "unchanged"
    assert first.read_bytes() == again.read_bytes()


def test_to_onnx(path):
    result = fold(path, options=FoldOptions(to="onnx"))
    assert result.verdict == "equivalent"
    model = onnx.load(path.with_name("net.folded.onnx"))
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert verify(path, path.with_name("net.folded.onnx")).verdict == "equivalent"


def test_a_program_that_ends_in_a_batch_norm_becomes_onnx(tmp_path):
    module = trained(nn.Sequential(nn.Conv2d(3, 4, 1), BN2(4)))
    proofs = FoldOptions(to="onnx", verify=PROOFS)
    result = fold(module, options=proofs, example_inputs=(torch.randn(2, 3, 4, 4),))
    assert result.verdict == "equivalent"
    assert [value.name for value in result.model.graph.output] == ["batch_norm"]


def test_live_objects(path):
    module, inputs = network(), (torch.randn(2, 3, 8, 8),)
    folded = fold(module, example_inputs=inputs)
    assert folded.verdict == "equivalent"
    assert torch.allclose(folded.model.module()(*inputs), module(*inputs), atol=1e-5)
    assert fold(export(module), options=PLAIN).model.range_constraints
    proto = fold(module, options=FoldOptions(to="onnx", verify=None), example_inputs=inputs).model
    assert isinstance(proto, onnx.ModelProto)
    assert inspect(module, example_inputs=inputs).foldable == 2
    with pytest.raises(UsageError, match="training mode"):
        fold(module.train(), example_inputs=inputs)
    with pytest.raises(UsageError, match="example inputs"):
        fold(module.eval())
    with pytest.raises(UsageError, match="dict is no model"):
        fold({})


def test_a_live_onnx_model(samples):
    model = onnx.load(samples / "conv.onnx")
    before = model.SerializeToString()
    result = fold(model)
    assert result.verdict == "equivalent"
    assert "BatchNormalization" not in {node.op_type for node in result.model.graph.node}
    assert model.SerializeToString() == before


def damaged(path, change, stamped=True):
    """A folded program with something wrong in it, with bnfold's note and without."""
    target = path.with_name("damaged.pt2")
    fold(path, target, FoldOptions(verify=None), force=True)
    loaded = load_program(target)
    change(loaded.program)
    torch.export.save(loaded.program, target, extra_files=loaded.extra if stamped else {})
    return target


def scale(name, factor, channel=None):
    def change(program):
        with torch.no_grad():
            tensor = program.state_dict[name]
            (tensor if channel is None else tensor[channel]).mul_(factor)

    return change


def no_relu(program):
    for node in list(program.graph.nodes):
        if "relu" in str(node.target):
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)


@pytest.mark.parametrize("stamped", [True, False], ids=["ours", "another tool's"])
@pytest.mark.parametrize(
    "change",
    [scale("0.weight", 1.001), scale("0.bias", 1.001, 2), scale("6.weight", 1.0001)],
    ids=["a weight", "a bias", "a layer that was not folded"],
)
def test_wrong_programs_are_different(path, change, stamped):
    assert verify(path, damaged(path, change, stamped), PROOFS).verdict == "different"


@pytest.mark.parametrize("stamped", [True, False], ids=["ours", "another tool's"])
def test_a_lost_relu_is_different(path, stamped):
    """The proof does not follow a layer that the original has nothing of, and takes no guess; the runs show it."""
    wrong = damaged(path, no_relu, stamped)
    proof = verify(path, wrong, PROOFS).verification.checks
    assert [check.verdict for check in proof] == ["inconclusive", "inconclusive"]
    result = verify(path, wrong)
    assert result.verdict == "different"
    assert next(check for check in result.verification.checks if check.check == "outputs").verdict == "fail"


@pytest.mark.parametrize("stamped", [True, False])
def test_the_proofs_alone_see_wrong_numbers(path, stamped):
    wrong = damaged(path, scale("0.weight", 1 + 1e-5, 3), stamped)
    result = verify(path, wrong, PROOFS)
    assert [check.verdict for check in result.verification.checks] == ["pass", "fail"]
    assert result.verification.layers[0].channels == [3]
    assert verify(path, damaged(path, lambda _: None, stamped), PROOFS).verdict == "equivalent"


class Two(nn.Module):
    """Two outputs of one shape."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Sequential(nn.Conv2d(3, 4, 1), BN2(4)), nn.Sequential(nn.Conv2d(3, 4, 1), BN2(4))

    def forward(self, x):
        return self.first(x), self.second(x)


def test_swapped_outputs_are_different(tmp_path):
    path = tmp_path / "two.pt2"
    torch.export.save(torch.export.export(trained(Two()), (torch.randn(2, 3, 4, 4),)), path)

    def swap(program):
        (output,) = (node for node in program.graph.nodes if node.op == "output")
        output.args = (output.args[0][::-1],)
        specs = program.graph_signature.output_specs
        specs[0].arg, specs[1].arg = specs[1].arg, specs[0].arg

    assert verify(path, damaged(path, lambda _: None), PROOFS).verdict == "equivalent"
    assert verify(path, damaged(path, swap), PROOFS).verdict == "different"
    assert verify(path, damaged(path, swap, stamped=False), VerifyOptions(["outputs"])).verdict == "different"


def saved(tmp_path, name, run, **more):
    module = trained(modules.Held(run, 4, 3, 3, 3))
    torch.manual_seed(5)
    path = tmp_path / f"{name}.pt2"
    torch.export.save(torch.export.export(module, (torch.randn(2, 3, 8, 8),), **more), path)
    return path


def test_what_works_in_place_through_a_view_is_run(tmp_path):
    def overwriting(factor):
        def run(module, x):
            y = module.conv(x)
            if factor:
                y.view(-1).mul_(factor)
            return y

        return run

    torch.manual_seed(1)
    paths = []
    for factor in (0, 2, 3):
        torch.manual_seed(1)
        paths.append(saved(tmp_path, f"times{factor}", overwriting(factor)))
    assert verify(paths[1], paths[0]).verdict == "different"
    assert verify(paths[1], paths[2]).verdict == "different"
    assert verify(paths[1], paths[1]).verdict != "different"


def test_a_change_inside_a_branch_is_seen(tmp_path):
    path = saved(tmp_path, "branches", modules.conditional)

    def other_branch(program):
        inner = program.graph_module.true_graph_0
        (add,) = (node for node in inner.graph.nodes if "add" in str(node.target))
        add.update_arg(1, 2)
        inner.recompile()

    assert verify(path, damaged(path, lambda _: None)).verdict == "equivalent"
    assert verify(path, damaged(path, other_branch)).verdict == "different"


def test_the_folded_program_shares_no_tensor_that_it_overwrites(tmp_path):
    def counting(module, x):
        module.count.add_(1)
        return module.bn(module.conv(x)) * module.count

    program = torch.export.export(trained(modules.Held(counting, 1)), (torch.randn(2, 3, 8, 8),))
    folded = fold(program, options=FoldOptions(verify=None)).model
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(program.module()(x), folded.module()(x), atol=1e-5)
    assert float(program.state_dict["count"]) == float(folded.state_dict["count"])


def test_preserved_module_calls(tmp_path):
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), BN2(4))
    module = trained(nn.Sequential(inner, nn.ReLU(), nn.Conv2d(4, 4, 1)))
    program = torch.export.export(module, (torch.randn(2, 3, 8, 8),), preserve_module_call_signature=("0",))
    folded = fold(program).model
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(torch.export.unflatten(folded)(x), module(x), atol=1e-5)


def test_tensors_that_numpy_has_not_do_no_harm():
    def run(module, x):
        return module.bn(module.conv(x)) * module.odd.to(torch.float32).view(1, -1, 1, 1)

    module = trained(modules.Held(run, 1))
    module.register_buffer("odd", torch.ones(4).to(torch.float8_e4m3fn))
    assert inspect(module, example_inputs=(torch.randn(2, 3, 8, 8),)).foldable == 1


def test_a_fold_that_fails_is_not_written(path, monkeypatch):
    from bnfold.frontends.torch import editor as torch_edit

    real = torch_edit.from_numpy
    monkeypatch.setattr(torch_edit, "from_numpy", lambda data: real(data * 1.01))
    with pytest.raises(Refused, match="check fails"):
        fold(path)
    assert not path.with_name("net.folded.pt2").exists()


def test_training_mode_is_named_and_never_exported(tmp_path):
    module = network()
    module[1].train()
    torch.export.save(export(module, batch=False), tmp_path / "train.pt2")
    found = inspect(tmp_path / "train.pt2")
    assert [row.reason and row.reason["code"] for row in found.batch_norms] == ["training-mode", None]
    assert found.batch_norms[0].warnings == ["training-mode"]
    with pytest.raises(InputError, match="training mode"):
        fold(tmp_path / "train.pt2", options=FoldOptions(to="onnx"))


def test_statistics_that_were_never_updated_get_a_warning():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), BN2(4)).eval()
    (row,) = inspect(module, example_inputs=(torch.randn(1, 3, 8, 8),)).batch_norms
    assert row.warnings == ["never-updated"]


def test_unsafe_files_are_loaded_only_on_request(tmp_path):
    torch.jit.script(network()).save(tmp_path / "script.pt")
    torch.save(network(), tmp_path / "module.pt")
    for name in ("script.pt", "module.pt"):
        with pytest.raises(InputError, match="runs what it holds"):
            fold(tmp_path / name)
        allowed = FoldOptions(unsafe_shapes={"x": (2, 3, 8, 8)}, verify=None)
        result = fold(tmp_path / name, options=allowed, force=True)
        assert result.inspection.foldable == 2
        assert load_program((tmp_path / name).with_name(f"{name[:-3]}.folded.pt2"))
        with pytest.raises(UsageError, match="shapes of its inputs"):
            fold(tmp_path / name, options=FoldOptions(unsafe_shapes={}))


def test_a_crash_of_the_unsafe_process_is_an_answer(tmp_path):
    class Crash:
        def __reduce__(self):
            return (exec, ("import os; os.abort()",))

    torch.save(Crash(), tmp_path / "crash.pt")
    with pytest.raises(InputError, match="SIGABRT"):
        fold(tmp_path / "crash.pt", options=FoldOptions(unsafe_shapes={"x": (1,)}))


def test_formats_that_do_not_go_together(path, samples, tmp_path):
    with pytest.raises(UsageError, match="can't be written as pt2"):
        fold(samples / "conv.onnx", tmp_path / "x.pt2", FoldOptions(to="pt2"))
    with pytest.raises(UsageError, match="one of ONNX"):
        verify(samples / "conv.onnx", path)
    with pytest.raises(UsageError, match="standard output"):
        fold(path, "-")


def run(*arguments, without_torch=False):
    hide = "sys.modules['torch'] = None; " if without_torch else ""
    code = f"import sys; {hide}from bnfold.cli.main import main; main({list(map(str, arguments))!r})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_command_line(path):
    done = run("fold", path, "--checks", "structure,weights", "--json", "-")
    assert done.returncode == 0, done.stderr
    shown_text = json.loads(done.stdout)
    assert (shown_text["model"]["format"], shown_text["model"]["opset"]) == ("pt2", None)
    assert shown_text["verification"]["verdict"] == "equivalent"
    assert done.stderr == "", "torch's warnings are not about the user's model"


def test_without_torch_all_else_works(path, samples, tmp_path):
    done = run("fold", samples / "conv.onnx", "-o", tmp_path / "folded.onnx", without_torch=True)
    assert done.returncode == 0, done.stderr
    done = run("inspect", path, without_torch=True)
    assert done.returncode == 4
    assert "pip install 'bnfold[torch]'" in done.stderr
    assert "Traceback" not in done.stderr
