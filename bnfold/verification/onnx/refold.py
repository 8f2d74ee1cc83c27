"""Fold the original again, with the options that the folded model records: is the result the folded model itself?

A fold is deterministic. So a model that bnfold folded, and that was not changed since, is recognized by its bytes. That
says who folded, not that the fold is right: the proofs and the runs judge that, as for the folds of other tools.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from onnx import ModelProto, TensorProto

from bnfold.errors import BnfoldError
from bnfold.frontends.onnx.fold import OnnxFoldable
from bnfold.io.external import tensors_of
from bnfold.io.load import LoadedModel
from bnfold.io.provenance import OPTIONS, PREFIX, provenance_of
from bnfold.io.tensor_data import little_endian
from bnfold.options import PlanOptions
from bnfold.planner.prepare import prepare, rewrite
from bnfold.rules.rule import NotRepresentable

DATA = (
    "raw_data", "external_data", "data_location", "float_data", "int32_data", "int64_data", "double_data",
    "uint64_data", "string_data",
)  # fmt: skip
"""The fields of a tensor that hold its data, or say where it is."""


def is_refolded(original: LoadedModel, folded: LoadedModel) -> bool:
    """Return True if folding ``original`` as ``folded`` records gives ``folded``: all but provenance, byte by byte.

    Where the data of a tensor is stored (in the file, beside it) makes no difference.
    """
    options = PlanOptions.from_record(provenance_of(folded.proto).get(OPTIONS, ""))
    if options is None:
        return False
    for defer_range_checks in (True, False):  # as fold does
        copy = ModelProto()
        copy.CopyFrom(original.proto)  # a rewrite works in place
        try:
            again = OnnxFoldable(replace(original, proto=copy))
            ready = prepare(again, options, defer_range_checks=defer_range_checks)
            return ready.changed and _same_model(rewrite(ready).loaded, folded)
        except NotRepresentable:
            continue
        except BnfoldError:
            return False
    return False


def _same_model(first: LoadedModel, second: LoadedModel) -> bool:
    tensors = list(zip(tensors_of(first.proto), tensors_of(second.proto), strict=False))
    return _structure(first.proto) == _structure(second.proto) and all(
        _same_bytes(_data(first, one), _data(second, other)) for one, other in tensors
    )


def _structure(model: ModelProto) -> bytes:
    """Return everything but the tensors' data and bnfold's own metadata."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in tensors_of(copy):
        for name in DATA:
            tensor.ClearField(name)
    kept = [entry for entry in copy.metadata_props if not entry.key.startswith(PREFIX)]
    del copy.metadata_props[:]
    copy.metadata_props.extend(kept)
    data: bytes = copy.SerializeToString(deterministic=True)
    return data


def _data(model: LoadedModel, tensor: TensorProto) -> Iterator[bytes | memoryview]:
    """Yield a tensor's data as ``raw_data`` holds it, in chunks; strings as protobuf does."""
    if tensor.data_location == TensorProto.EXTERNAL:
        yield from model.external.data(tensor).chunks()
    elif tensor.HasField("raw_data"):
        yield tensor.raw_data
    elif tensor.data_type == TensorProto.STRING:
        yield TensorProto(string_data=tensor.string_data).SerializeToString()
    else:
        yield little_endian(model.external.read(tensor)).tobytes()


def _same_bytes(first: Iterator[bytes | memoryview], second: Iterator[bytes | memoryview]) -> bool:
    """Compare two streams that are cut into chunks at different places."""
    one = two = memoryview(b"")
    while True:
        one = one or memoryview(next(first, b""))
        two = two or memoryview(next(second, b""))
        size = min(len(one), len(two))
        if not size:
            return not one and not two
        if bytes(one[:size]) != bytes(two[:size]):
            return False
        one, two = one[size:], two[size:]
