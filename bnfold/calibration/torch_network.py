"""Run a PyTorch exported program level by level in eager torch, its BatchNorms fed with statistics from outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import torch
from torch.export import ExportedProgram

from bnfold.calibration.data import Input, freed
from bnfold.calibration.free_batch import rows_are_free
from bnfold.calibration.layers import Layer, divide, layers_of, reading
from bnfold.calibration.network import Fed, Values
from bnfold.errors import InconclusiveError
from bnfold.frontends.torch.calls import uses
from bnfold.frontends.torch.evaluate import Evaluator, NotRunnable
from bnfold.frontends.torch.fold import TorchFoldable
from bnfold.frontends.torch.load import quiet, tensors_fed
from bnfold.frontends.torch.tensors import from_numpy, np_dtype, to_numpy


class TorchNetwork:
    """The :class:`bnfold.calibration.network.Network` of a program.

    A program that overwrites its tensors can't be cut between levels: it runs from its inputs for each of them, and
    what a BatchNorm reads is seen when it reads it.
    """

    def __init__(self, source: TorchFoldable) -> None:
        self.source = separated(source)
        self.loaded = loaded = self.source.loaded
        self.graphs = self.source.graphs()
        self.layers, self.kept = layers_of(self.graphs)
        self.levels = divide(self.graphs.graph, self.layers, reading(self.graphs))
        self._evaluator = Evaluator(loaded.program)
        fed = [value for value in self.graphs.graph.inputs if value.tensor is None]
        self.inputs = freed(_inputs(loaded.program), lambda: rows_are_free(self.levels, fed))
        whole = self._evaluator.overwrites
        for level in self.levels:
            sources = {layer.source for layer in level.layers}
            level.live_values = [v for v in level.live_values if v.dtype is not None and (v in sources or not whole)]

    def advance(self, index: int, values: Values, fed: Mapping[Layer, Fed]) -> Values:
        """What a level leaves, from what the level below left. Raises InconclusiveError where it can't be run."""
        own = {entry.name for entry in self.inputs}
        bound = {name: from_numpy(array) for name, array in values.items() if name in own or not self._whole}
        for layer, statistics in fed.items():
            for value, data in zip(layer.node.inputs[3:5], statistics, strict=True):
                assert value is not None
                node = self.graphs.fx_of[value]
                held = node.meta["val"]
                bound[node.name] = torch.from_numpy(np.array(data)).to(held.dtype)
        names = [value.name for value in self.levels[index].live_values]
        reads = {layer.node.handle.fx_node.name: layer.source.name for layer in self.levels[index].layers}
        wanted = [] if self._whole else [name for name in names if name not in bound]
        try:
            with quiet():
                made = self._evaluator.run(bound, wanted, reads=reads if self._whole else None) if names else {}
        except NotRunnable as error:
            raise InconclusiveError(f"{self.loaded.name}: torch can't run it ({error})") from None
        kept = {name: to_numpy(made[name]) if name in made else values[name] for name in names}
        return {**{name: values[name] for name in own}, **kept}

    @property
    def _whole(self) -> bool:
        return self._evaluator.overwrites

    def release(self, index: int) -> None:
        """Nothing is held per level."""


def separated(source: TorchFoldable) -> TorchFoldable:
    """The program with statistics of its own for each BatchNorm, which nothing else reads.

    A layer that is called twice shares them between its calls, and a program may read them for something else.
    """
    graphs = source.graphs()
    editor, seen, changed = source.editor(graphs), set(), False
    layers = layers_of(graphs)[0]
    reads = Counter(layer.node.inputs[index] for layer in layers for index in (3, 4))
    for layer in layers:
        for index, data in ((3, layer.stored.mean), (4, layer.stored.var)):
            value = layer.node.inputs[index]
            assert value is not None
            if value in seen or uses(graphs.fx_of[value]) > reads[value]:
                editor.set_constant(layer.node, index, data.astype(value.dtype))
                changed = True
            seen.add(value)
    if not changed:
        return source
    editor.finish()
    return source.edited(editor)


def _inputs(program: ExportedProgram) -> list[Input]:
    found = []
    for name, held in tensors_fed(program):
        if (dtype := np_dtype(held.dtype)) is None:
            raise InconclusiveError(f"the input {name!r} is no tensor of numbers", "its data can't be given")
        rows = held.shape[0] if held.dim() and isinstance(held.shape[0], int) else None
        shape = tuple(n if isinstance(n, int) else None for n in held.shape)
        found.append(Input(name, dtype, rows, shape))
    return found
