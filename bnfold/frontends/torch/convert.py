"""A program as an ONNX model, by torch's own exporter, and as it stands: the exporter must not fold anything itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onnx import ModelProto

from bnfold.errors import InputError, one_line
from bnfold.frontends.torch.graph import TorchGraphs
from bnfold.frontends.torch.load import INSTALL, import_torch, quiet
from bnfold.rules.normalization import in_training

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def output_names(program: ExportedProgram) -> list[str]:
    """Return what the program calls its outputs, each name once."""
    names = [str(name) for name in program.graph_signature.user_outputs]
    return [name if names.index(name) == place else f"{name}_{place}" for place, name in enumerate(names)]


def to_onnx(program: ExportedProgram, name: str, outputs: Sequence[str] | None = None) -> ModelProto:
    """The program in ONNX, dynamic dimensions dynamic. ``name`` is for messages.

    ``outputs`` are their names (by default the program's own): those of the original, for a program that was folded.

    A BatchNorm in training mode would silently become one at inference there: refused. Raises InputError.
    """
    torch = import_torch("writing ONNX")
    for node in TorchGraphs(program).graph.nodes:
        if node.op == "BatchNormalization" and (cause := in_training(node)):
            raise InputError(
                f"{name}: {node.name!r} is in training mode ({cause}); the exporter would change what it computes",
                "export the model in evaluation mode: model.eval()",
            )
    try:
        import onnxscript.optimizer
        from onnxscript import ir
    except ImportError as error:
        raise InputError(
            f"{name}: writing ONNX requires onnxscript, which is not installed ({error})", INSTALL
        ) from None
    try:
        with quiet():
            exported: Any = torch.onnx.export(
                program, dynamo=True, optimize=False, verbose=False, output_names=outputs or output_names(program)
            )
            model: Any = ir.from_proto(exported.model_proto)
            # a bias that is computed from shapes becomes a constant; nothing else is simplified
            onnxscript.optimizer.fold_constants(model)
            onnxscript.optimizer.remove_unused_nodes(model)
            proto: ModelProto = ir.to_proto(model)
    except Exception as error:  # the exporter raises many kinds for what it can't translate
        raise InputError(
            f"{name}: torch can't export it to ONNX ({one_line(error)})", "fold to .pt2 instead: --to pt2"
        ) from None
    for node_proto in proto.graph.node:  # paths and lines of the user's code
        del node_proto.metadata_props[:]
    return proto
