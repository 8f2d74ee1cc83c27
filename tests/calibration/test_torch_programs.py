"""Calibration of programs of torch, against torch itself."""

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from bnfold.api import calibrate, inspect
from bnfold.errors import InputError
from bnfold.options import CalibrateOptions
from tests.calibration.models import images, statistics_in


def network(shared=False):
    from torch import nn

    bn = nn.BatchNorm2d(4)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), bn, nn.ReLU(), nn.Conv2d(4, 4, 3), bn if shared else nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5),
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = network()
    with torch.no_grad():
        for index in range(3):
            model(torch.from_numpy(images(16, seed=index)))
    return model


def exported(model):
    import torch

    return torch.export.export(model, (torch.zeros(4, 3, 6, 6),), dynamic_shapes=({0: torch.export.Dim("N")},))


def running(state):
    return {name: tensor for name, tensor in state.items() if "running" in name}


@pytest.mark.parametrize("momentum", [None, 0.1, 0.9])
def test_moving_averages_are_those_of_torch(trained, momentum):
    """`update_bn` where it is defined (momentum None), and training's own steps."""
    import copy

    import torch

    batches = [torch.from_numpy(images(8, seed=10 + k)) for k in range(5)]
    expected = copy.deepcopy(trained)
    for part in expected.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.momentum = momentum
    if momentum is None:
        torch.optim.swa_utils.update_bn(batches, expected)
    else:
        expected.train()
        with torch.no_grad():
            for batch in batches:
                expected(batch)
    options = CalibrateOptions("moving-average", momentum)
    found = running(calibrate(exported(trained.eval()), batches, options=options).model.state_dict)
    for name, kept in running(expected.state_dict()).items():
        torch.testing.assert_close(found[name], kept, rtol=1e-5, atol=1e-6)


def test_the_pooled_variance_is_exact_where_torch_only_averages(trained):
    import copy

    import torch

    batches = [torch.from_numpy(images(rows, seed=rows)) for rows in (9, 2, 3, 14)]
    whole = torch.cat(batches)
    averaged = copy.deepcopy(trained)
    torch.optim.swa_utils.update_bn(batches, averaged)
    found = running(calibrate(exported(trained.eval()), batches).model.state_dict)
    with torch.no_grad():
        activation = trained[0](whole).double()
    exact = activation.var((0, 2, 3), correction=0)
    torch.testing.assert_close(found["1.running_var"].double(), exact, rtol=1e-6, atol=0)
    assert not torch.allclose(averaged[1].running_var.double(), exact, rtol=1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_both_formats_agree(trained, tmp_path):
    import torch

    program = exported(trained.eval())
    data = images(30)
    found = running(calibrate(program, data).model.state_dict)
    torch.onnx.export(
        trained, (torch.zeros(4, 3, 6, 6),), str(tmp_path / "m.onnx"), dynamo=False, do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE, dynamic_axes={"input": {0: "N"}}, input_names=["input"],
    )  # fmt: skip
    result = calibrate(tmp_path / "m.onnx", data, tmp_path / "out.onnx")
    assert result.calibrated == 3
    pairs = list(statistics_in(tmp_path / "out.onnx").values())
    for (mean, var), layer in zip(pairs, ("1", "4", "8"), strict=True):
        np.testing.assert_allclose(mean, found[f"{layer}.running_mean"].numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(var, found[f"{layer}.running_var"].numpy(), rtol=1e-4)


def test_a_layer_that_is_called_twice_gets_statistics_for_each_call():
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    result = calibrate(exported(network(shared=True).eval()), images(30))
    assert result.calibrated == 3
    assert max(row.drift.rms for row in inspect(result.model, data=images(30)).rows) < 1e-6


def test_a_program_in_training_mode(trained, tmp_path):
    import copy

    import torch

    program = exported(copy.deepcopy(trained).train())
    torch.export.save(program, tmp_path / "train.pt2")
    with pytest.raises(InputError, match="in training mode"):
        calibrate(tmp_path / "train.pt2", images())
    calibrate(tmp_path / "train.pt2", images(), options=CalibrateOptions(freeze=True))
    expected = calibrate(exported(trained.eval()), images()).model
    made = torch.export.load(tmp_path / "train.calibrated.pt2")
    x = torch.from_numpy(images(seed=5))
    torch.testing.assert_close(made.module()(x), expected.module()(x))
    assert inspect(tmp_path / "train.calibrated.pt2").foldable == 3


def test_a_program_that_works_in_place():
    torch = pytest.importorskip("torch")
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x):
            y = self.a(x)
            z = y * 2
            y.add_(1)
            return self.b(y) + z

    torch.manual_seed(0)
    made = calibrate(exported(Net().eval()), images(), options=CalibrateOptions(batch=6)).model
    drifts = [row.drift.rms for row in inspect(made, data=images()).rows if row.drift]
    assert len(drifts) == 2
    assert max(drifts) < 1e-6
    with torch.no_grad():  # the second layer sees the first one's output plus one: mean one more than its bias of zero
        torch.testing.assert_close(made.state_dict["b.running_mean"], torch.ones(3), rtol=0, atol=1e-5)


class Overwrites:
    """Forwards of networks that overwrite what a BatchNorm reads, before it does."""

    @staticmethod
    def a_view_of_its_input(net, x):
        y = net.c(x)
        y[:, :, :3].mul_(7)
        return net.a(y)

    @staticmethod
    def what_it_made(net, x):
        y = net.a(net.c(x))
        y[:, :, :3].mul_(7)
        return net.b(y)

    @staticmethod
    def the_base_of_its_input(net, x):
        y = net.c(x)
        v = y[:, :, :3]
        y.mul_(3)
        return net.b(net.a(v))

    @staticmethod
    def nothing_but_reads_the_statistics(net, x):
        return net.b(net.a(net.c(x)) + net.a.running_mean.view(1, -1, 1, 1) * 2)

    @staticmethod
    def nothing_but_one_tensor_is_two_operands(net, x):
        from torch.nn import functional

        return functional.batch_norm(net.c(x), net.a.running_mean, net.a.running_var, net.a.running_var, net.a.bias)


@pytest.mark.parametrize("name", [name for name in vars(Overwrites) if not name.startswith("_")])
def test_programs_that_overwrite_or_share(name):
    """The statistics are those of what eager torch itself feeds each BatchNorm of the calibrated program."""
    torch = pytest.importorskip("torch")
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.c, self.a, self.b = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x):
            return getattr(Overwrites, name)(self, x)

    torch.manual_seed(0)
    x = torch.from_numpy(images())
    program = torch.export.export(Net().eval(), (x,))
    parameters = {key: value.clone() for key, value in program.state_dict.items() if "running" not in key}
    made = calibrate(program, [x]).model
    seen = []

    class Watch(torch.fx.Interpreter):
        def run_node(self, n):
            if "batch_norm" in str(n.target):
                args = [self.env[a] if isinstance(a, torch.fx.Node) else a for a in n.args]
                seen.append((args[0].double().clone(), args[3].clone(), args[4].clone()))
            return super().run_node(n)

    with torch.no_grad():
        Watch(made.graph_module).run(*made._graph_module_flat_inputs((x,), {}))
    assert seen
    for fed, mean, var in seen:
        torch.testing.assert_close(mean.double(), fed.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(var.double(), fed.var((0, 2, 3), correction=0), rtol=1e-5, atol=1e-6)
    for key, value in parameters.items():
        torch.testing.assert_close(made.state_dict[key], value, rtol=0, atol=0)


def test_data_may_be_tensors_of_any_type():
    torch = pytest.importorskip("torch")
    program = torch.export.export(network().eval().bfloat16(), (torch.zeros(4, 3, 6, 6, dtype=torch.bfloat16),))
    data = torch.from_numpy(images(8)).bfloat16()
    assert calibrate(program, [data[:4], data[4:]]).calibrated == 3
