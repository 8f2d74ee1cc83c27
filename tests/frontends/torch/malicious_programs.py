"""Files that would run code when torch loads them: each writes a marker file if it gets the chance."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Members = dict[str, bytes]


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.marker)!r}, 'w').close()",))


def harmless() -> Members:
    """The members of a program of one convolution and a BatchNorm, without their root folder."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    batch = torch.export.Dim("batch", min=2, max=8)
    program = torch.export.export(module, (torch.randn(2, 3, 8, 8),), dynamic_shapes=({0: batch},))
    file = io.BytesIO()
    torch.export.save(program, file)
    with zipfile.ZipFile(file) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def packed(members: Members, extra: list[tuple[str, bytes]] = [], root: str = "archive") -> bytes:  # noqa: B006
    """A zip archive, with further members of any name."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{root}/{name}", data)
        for name, data in extra:
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


def edited(members: Members, member: str, change: Callable[[Any], None]) -> Members:
    """The members with one JSON changed."""
    name = next(name for name in members if name.startswith(member) and name.endswith(".json"))
    data = json.loads(members[name])
    change(data)
    return {**members, name: json.dumps(data).encode()}


def program(change: Callable[[Any], None]) -> Callable[[Members, Path], bytes]:
    return lambda members, marker: packed(edited(members, "models/", lambda data: change(_marked(data, marker))))


def _marked(data: Any, marker: Path) -> Any:
    data["marker"] = str(marker)
    return data


def code(data: Any) -> str:
    return f"__import__('os').system('touch {data['marker']}')"


def _first_expression(data: Any) -> dict[str, Any]:
    tensors = data["graph_module"]["graph"]["tensor_values"].values()
    return next(size["as_expr"] for value in tensors for size in value["sizes"] if "as_expr" in size)


def sample_inputs(members: Members, marker: Path) -> bytes:
    name = next(name for name in members if name.startswith("data/sample_inputs/"))
    file = io.BytesIO()
    torch.save((Payload(marker),), file)
    return packed({**members, name: file.getvalue()})


class Script(nn.Module):
    """Scripted, it writes a file when it is loaded."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return (self.marker, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.marker, self.training = state[0], state[1]
        torch.save(torch.ones(3), self.marker)

    def forward(self, x: Tensor) -> Tensor:
        return x


def scripted_sample(members: Members, marker: Path) -> bytes:
    """TorchScript in the place of the sample inputs, which looks like tensors alone."""
    name = next(name for name in members if name.startswith("data/sample_inputs/"))
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(Script(str(marker))), file)
    marker.unlink(missing_ok=True)
    with zipfile.ZipFile(file) as archive:
        inner = {item.partition("/")[2]: archive.read(item) for item in archive.namelist()}
    inner["constants.pkl"] = inner.pop("data.pkl")
    inner["data.pkl"] = pickle.dumps((), protocol=2)
    return packed({**members, name: packed(inner)})


def expanded_weight(members: Members, marker: Path) -> bytes:
    def change(data: Any) -> None:
        meta = next(iter(data["config"].values()))["tensor_meta"]
        meta["sizes"] = [{"as_int": n} for n in (400_000, 3, 300, 300)]
        meta["strides"] = [{"as_int": 0}] * 4

    return packed(edited(members, "data/weights/", change))


def pickled_weight(members: Members, marker: Path) -> bytes:
    def change(data: Any) -> None:
        for entry in data["config"].values():
            entry["use_pickle"] = True

    file = io.BytesIO()
    torch.save(Payload(marker), file)
    changed = edited(members, "data/weights/", change)
    return packed({name: file.getvalue() if "weight_" in name else data for name, data in changed.items()})


def opaque_constant(members: Members, marker: Path) -> bytes:
    def change(data: Any) -> None:
        data["config"]["x"] = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}

    changed = edited(members, "data/constants/", change)
    return packed({**changed, "data/constants/opaque_obj_0": pickle.dumps(Payload(marker))})


def compiled(members: Members, marker: Path) -> bytes:
    return packed({**members, "data/aotinductor/model/model.so": b"\x7fELF"})


def library_in_extra_place(members: Members, marker: Path) -> bytes:
    return packed({**members, "data/weights/evil.so": b"\x7fELF"})


def expression(data: Any) -> None:
    _first_expression(data)["expr_str"] = code(data)


def endless_power(data: Any) -> None:
    _first_expression(data)["expr_str"] = "Pow(Integer(9), Pow(Integer(9), Integer(9)))"


def guards(data: Any) -> None:
    data["guards_code"] = [code(data)]


def target(data: Any) -> None:
    data["graph_module"]["graph"]["nodes"][0]["target"] = "torch.hub.load"


def file_operator(data: Any) -> None:
    data["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.from_file.default"


def custom_tree(data: Any) -> None:
    call = data["graph_module"]["module_call_graph"][0]["signature"]
    call["out_spec"] = json.dumps([1, {"type": "os.path", "context": None, "children_spec": []}])


def renamed(old: str) -> Callable[[Any], None]:
    """Call something by a name that is code, wherever it stands."""

    def change(data: Any) -> None:
        new = f"a={code(data)}"
        data["graph_module"] = _renamed(data["graph_module"], old, new)

    return change


def _renamed(part: Any, old: str, new: str) -> Any:
    if isinstance(part, dict):
        kept = {"name": part["name"]} if "kind" in part else {}  # an operator's own argument
        return {new if key == old else key: _renamed(value, old, new) for key, value in part.items()} | kept
    if isinstance(part, list):
        return [_renamed(value, old, new) for value in part]
    return new if part == old else part


def argument(data: Any) -> None:
    data["graph_module"]["module_call_graph"][0]["signature"]["forward_arg_names"] = [f"a={code(data)}"]


def keyword_argument(data: Any) -> None:
    call = data["graph_module"]["module_call_graph"][0]["signature"]
    leaf = {"type": None, "context": None, "children_spec": []}
    keywords = {"type": "builtins.dict", "context": json.dumps([f"a={code(data)}"]), "children_spec": [leaf]}
    none = {"type": "builtins.tuple", "context": "null", "children_spec": []}
    root = {"type": "builtins.tuple", "context": "null", "children_spec": [none, keywords]}
    call["in_spec"], call["forward_arg_names"] = json.dumps([1, root]), None


def duplicate(members: Members, marker: Path) -> bytes:
    evil = edited(members, "models/", lambda data: expression(_marked(data, marker)))
    name = next(name for name in members if name.startswith("models/"))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"archive/{name}", evil[name])
        for other, data in members.items():
            archive.writestr(f"archive/{other}", data)
    return file.getvalue()


def bomb(members: Members, marker: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"archive/{name}", data)
        archive.writestr("archive/data/weights/weight_99", b"\0" * 2**28)
    return file.getvalue()


ATTACKS: dict[str, Callable[[Members, Path], bytes]] = {
    "sample inputs": sample_inputs,
    "scripted sample": scripted_sample,
    "expanded weight": expanded_weight,
    "pickled weights": pickled_weight,
    "opaque constants": opaque_constant,
    "symbolic shapes": program(expression),
    "compiled library": compiled,
    "guards": program(guards),
    "library among weights": library_in_extra_place,
    "endless power": program(endless_power),
    "call of anything": program(target),
    "operator on files": program(file_operator),
    "container of anything": program(custom_tree),
    "name of an input": program(renamed("input")),
    "name of a parameter's input": program(renamed("p_0_weight")),
    "name of a weight": program(renamed("0.weight")),
    "name of a value": program(renamed("conv2d")),
    "name of an argument": program(argument),
    "name of a keyword argument": program(keyword_argument),
    "duplicate member": duplicate,
    "member with ..": lambda members, _: packed(members, [("archive/../../evil", b"x")]),
    "absolute member": lambda members, _: packed(members, [("/etc/evil", b"x")]),
    "second root": lambda members, _: packed(members, [("other/evil", b"x")]),
    "zip bomb": bomb,
}
"""Each as a function of a harmless program's members and the marker's path."""

HARMLESS_AFTER_CHECK = {"sample inputs", "scripted sample"}
"""What is left out, so that the rest can be loaded."""
