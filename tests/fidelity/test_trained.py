"""Networks trained here on the digits, in float16 and with quantization in mind: folded, they are as accurate."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.api import FoldOptions, fold
from sample_models.accuracy import accuracy
from tests.support import SAMPLES

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from torch import nn  # noqa: E402 - after the skip

pytestmark = pytest.mark.slow


class Quantized(nn.Module):
    """A layer whose weight, and whose input, is rounded to 8 bits; gradients pass as if it were not."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.register_buffer("scale", torch.ones(layer.weight.shape[0]))
        self.register_buffer("zero", torch.zeros(layer.weight.shape[0], dtype=torch.int32))
        self.register_buffer("largest", torch.tensor(1.0))

    def forward(self, x):
        weight = self.layer.weight
        if self.training:
            self.scale.copy_(weight.detach().flatten(1).abs().amax(1) / 127)
            self.largest.copy_(0.9 * self.largest + 0.1 * x.detach().abs().max())
        x = torch.fake_quantize_per_tensor_affine(x, float(self.largest) / 127, 0, -128, 127)
        weight = torch.fake_quantize_per_channel_affine(weight, self.scale, self.zero, 0, -128, 127)
        if isinstance(self.layer, nn.Linear):
            return nn.functional.linear(x, weight, self.layer.bias)
        return nn.functional.conv2d(x, weight, None, self.layer.stride, self.layer.padding)


def trained(wrap):
    """Train a network to classify as the sample model does, which is right on 98 %."""
    import onnxruntime

    torch.manual_seed(0)
    network = nn.Sequential(
        wrap(nn.Conv2d(1, 16, 3, padding=1, bias=False)), nn.BatchNorm2d(16), nn.ReLU(),
        wrap(nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), wrap(nn.Linear(512, 32)), nn.BatchNorm1d(32), nn.ReLU(), wrap(nn.Linear(32, 10)),
    )  # fmt: skip
    images = np.load(SAMPLES / "digits_train.npz")["image"]
    teacher = onnxruntime.InferenceSession(str(SAMPLES / "digits.onnx"), providers=["CPUExecutionProvider"])
    x, y = torch.from_numpy(images), torch.from_numpy(teacher.run(None, {"image": images})[0].argmax(1))
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(8):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimiser.step()
    return network.eval()


def export(network, path):
    torch.onnx.export(
        network, (torch.zeros(1, 1, 8, 8),), str(path), dynamo=False, do_constant_folding=False, opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE, input_names=["image"], output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )  # fmt: skip


def of_half(path):
    """Store a model's weights, and compute all of it, in float16; its input and output stay float32."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for node in model.graph.node:
        node.input[:] = ["image16" if name == "image" else name for name in node.input]
        node.output[:] = ["logits16" if name == "logits" else name for name in node.output]
    model.graph.node.insert(0, helper.make_node("Cast", ["image"], ["image16"], to=TensorProto.FLOAT16))
    model.graph.node.append(helper.make_node("Cast", ["logits16"], ["logits"], to=TensorProto.FLOAT))
    onnx.save(model, path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["float16", "quantized"])
def test_a_trained_network_folds_completely_and_is_as_accurate(kind, tmp_path):
    path, folded = tmp_path / "m.onnx", tmp_path / "folded.onnx"
    export(trained(Quantized if kind == "quantized" else lambda layer: layer), path)
    if kind == "float16":
        of_half(path)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("BatchNormalization") == 3
    assert operators.count("QuantizeLinear") == (8 if kind == "quantized" else 0)
    result = fold(path, folded, FoldOptions())
    assert result.verdict == "equivalent", result.verification
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(folded).graph.node}
    (right, total), (same, _) = accuracy(str(path)), accuracy(str(folded))
    assert right > 0.94 * total
    assert abs(right - same) <= 1, "one image may lie on the border of two classes"
