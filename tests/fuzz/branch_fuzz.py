"""Random sums of what is linear in one value, for ``--merge-branches``: nested, scaled, padded, grouped in any way."""

from __future__ import annotations

import random

import onnx
from onnx import helper

from sample_models.build import batch_norm, bn_node, make, node, tensor, weights

CHANNELS = 4


class Branches:
    """Builds one network; every method returns the name of what it made. Some values are outputs as well."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.stride = self.random.choice([1, 1, 1, 2])
        self.nodes = [node("Relu", ["x"], ["r"])]
        self.held = {}
        self.outputs = ["y"]
        self.count = 0

    def model(self) -> onnx.ModelProto:
        """Return the network: a Relu, the sum, and a Relu or Sigmoid."""
        top = self.tree(self.random.randint(2, 4))
        self.nodes.append(node(self.random.choice(["Relu", "Sigmoid"]), [top], ["y"]))
        outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in self.outputs]
        return make(self.nodes, [tensor("x", [2, CHANNELS, 9, 9])], outputs, self.held)

    def tree(self, depth: int) -> str:
        """A sum, or something of it times a constant, with branches below."""
        choice = self.random.random() if depth else 0.0
        if choice < 0.15:
            made = self.branch()
        elif choice < 0.6:
            made = self.add(self.random.choice(["Add", "Add", "Sub"]), self.tree(depth - 1), self.tree(depth - 1))
        elif choice < 0.7:
            made = self.add("Sum", *(self.tree(depth - 1) for _ in range(3)))
        elif choice < 0.85:
            made = self.batch_norm(self.tree(depth - 1))
        else:
            operands = [self.tree(depth - 1), self.constant()]
            self.random.shuffle(operands)
            made = self.add(self.random.choice(["Mul", "Add", "Sub"]), *operands)
        if self.random.random() < 0.05 and made not in ("r", *self.outputs):
            self.outputs.append(made)
        return made

    def branch(self) -> str:
        """A convolution, a BatchNorm of the input, or the input itself."""
        choice = self.random.random() if self.stride == 1 else 1.0
        if choice < 0.35:
            return "r" if choice < 0.2 else self.batch_norm("r")
        size, group = self.random.choice([1, 1, 3, 3, 3, 5]), self.random.choice([1, 1, 2, CHANNELS])
        dilation = self.random.choice([1, 1, 1, 2]) if size > 1 else 1
        total = dilation * (size - 1)
        before = self.random.choice([total // 2, total // 2, total // 2, self.random.randint(0, total)])
        inputs = ["r", self.hold(weights(self.count, CHANNELS, CHANNELS // group, size, size))]
        if self.random.random() < 0.4:
            inputs.append(self.hold(weights(self.count, CHANNELS)))
        pads, dilations = [before] * 2 + [total - before] * 2, [dilation] * 2
        return self.add("Conv", *inputs, pads=pads, group=group, strides=[self.stride] * 2, dilations=dilations)

    def constant(self) -> str:
        """One number, or one for each channel."""
        one = self.random.random() < 0.3
        return self.hold(weights(self.count, 1).reshape(()) if one else weights(self.count, CHANNELS, 1, 1))

    def batch_norm(self, source: str) -> str:
        """A BatchNormalization."""
        made = self.name()
        self.held |= batch_norm(made, CHANNELS, self.count)
        self.nodes.append(bn_node(source, made, made))
        return made

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        """One operator."""
        made = self.name()
        self.nodes.append(node(op, list(inputs), [made], **attributes))
        return made

    def hold(self, data) -> str:
        """One constant."""
        made = self.name()
        self.held[made] = data
        return made

    def name(self) -> str:
        """A new name."""
        self.count += 1
        return f"v{self.count}"
