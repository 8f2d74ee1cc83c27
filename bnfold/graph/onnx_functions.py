"""Model-local functions: a BatchNorm inside one is folded where it is called, by inlining the call."""

from __future__ import annotations

from onnx import FunctionProto, ModelProto

NORMALIZING = "BatchNormalization"


def batch_norms_inlined(model: ModelProto) -> ModelProto | None:
    """A copy in which every call of a function that holds a BatchNorm, at any depth, is replaced by its body.

    None if there is no such call, or if onnx can't inline it. Calls of other functions stay calls.
    """
    if not model.functions:
        return None
    holders = _holders(list(model.functions))
    if not holders:
        return None
    from onnx import inliner

    try:
        copy = inliner.inline_selected_functions(model, sorted(holders))
    except Exception:  # onnx raises several kinds for functions that it can't inline
        return None
    return None if copy.SerializeToString() == model.SerializeToString() else copy


def _holders(functions: list[FunctionProto]) -> set[tuple[str, str]]:
    """Domain and name of the functions that hold a BatchNormalization or call one that does."""
    holders: set[tuple[str, str]] = set()
    grown = True
    while grown:
        grown = False
        for function in functions:
            key = (function.domain, function.name)
            if key not in holders and any(
                node.op_type == NORMALIZING or (node.domain, node.op_type) in holders for node in function.node
            ):
                holders.add(key)
                grown = True
    return holders
