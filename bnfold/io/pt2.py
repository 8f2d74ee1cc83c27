"""The static check of a ``.pt2`` before torch sees it: nothing in it may be able to run.

``torch.export.load`` runs code that a file can hold in seven places: pickled sample inputs, pickled weights, opaque
constants, symbolic shapes (sympy evaluates their text), compiled libraries, guards, and names, which become a line of
Python when a graph is compiled. Here every member is parsed as data
and held against a short list of what torch.export writes. What passes is packed again, so that torch reads what was
checked and nothing else.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterator
from math import prod
from typing import Any

from bnfold.errors import InputError
from bnfold.io.archive import Archive, read_archive
from bnfold.io.expressions import Unsafe, guard, symbolic
from bnfold.io.sniff import shares_containers, tensors_only

PLAIN_MEMBERS = frozenset({"archive_format", "archive_version", "byteorder", "version"})
"""Members that hold a word or a number."""

SAMPLE_MEMBERS = re.compile(r"data\.pkl|data/\w+|byteorder|version|\.\w+(/\w+)?")
"""Members of an archive of tensors alone."""

TARGETS = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed)\.\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|getitem|eq|ne|lt|le|gt|ge|and_|or_|not_|pos|abs)"
    r"|math\.(ceil|floor|trunc|sqrt|pow)"
    r"|torch\.sym_(int|float|max|min|ite|not|sqrt|sum)"
)
"""What a node may call. Other namespaces may be anybody's code."""

FORBIDDEN = frozenset({"from_file", "save", "load", "import_ir_module"})
"""ATen operators that touch files."""

CONTAINERS = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})
"""Types that inputs and outputs may be nested in."""

PATHS = re.compile(r"[\w.\-/ :+@()\[\]]*")
"""What weights and modules may be called: torch writes it between quotation marks."""

METADATA = frozenset({"stack_trace", "nn_module_stack", "torch_fn", "source_fn_stack", "from_node", "custom"})

Json = Any


def checked(data: bytes, name: str) -> Archive:
    """The members of a ``.pt2``, all of them found harmless. Raises InputError with what is not."""
    archive = read_archive(data, name)
    try:
        _members(archive)
        (model,) = (member for member in archive.members if member.startswith("models/"))
        program = _json(archive, model)
        _program(program)
        archive.members[model] = json.dumps(program).encode()
        sample = f"data/sample_inputs/{model[7:-5]}.pt"
        archive.members[sample] = _harmless_sample(archive.members.get(sample, b""), name)
        for kind in ("weights", "constants"):
            _payloads(archive, kind)
    except Unsafe as error:
        raise InputError(f"{name}: {error}", "nothing was run from it; save it again with torch.export.save") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{name}: not a .pt2 that torch.export wrote ({error})", "save it again") from None
    return archive


def _members(archive: Archive) -> None:
    if archive.members.get("archive_format") != b"pt2":
        raise Unsafe("its archive_format is not pt2")
    models = [member for member in archive.members if member.startswith("models/")]
    if len(models) != 1 or not re.fullmatch(r"models/[\w.-]+\.json", models[0]):
        raise Unsafe(f"it holds {len(models)} programs, not one")
    for member in archive.members:
        top = member.split("/")[0]
        known = member in PLAIN_MEMBERS or top in ("models", ".data", "extra") or member.startswith(".")
        inside = re.fullmatch(r"data/(weights|constants|sample_inputs)/[^/]+", member)
        if not known and not inside:
            raise Unsafe(f"it has the unknown member {member!r}")
        if member.endswith((".so", ".pyd", ".dll", ".dylib", ".py", ".pyc", ".cpp")) and top != "extra":
            raise Unsafe(f"it has code in {member!r}")


def _json(archive: Archive, member: str) -> Json:
    try:
        return json.loads(archive.members[member])
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise Unsafe(f"{member} is no JSON ({error})") from None


def _harmless_sample(sample: bytes, name: str) -> bytes:
    """The sample inputs, packed again, if they are nothing but tensors; else none: a program does without."""
    if not sample.startswith(b"PK"):
        return b""
    inside = read_archive(sample, f"{name}, sample inputs")
    if not all(SAMPLE_MEMBERS.fullmatch(member) for member in inside.members):
        return b""  # TorchScript, say, which torch would load, and run, in place of tensors
    data = inside.members["data.pkl"]
    return inside.repacked() if tensors_only(data, name) and not shares_containers(data) else b""


# --- weights and constants


def _payloads(archive: Archive, kind: str) -> None:
    """Every tensor is raw bytes; a pickled one, or an object that is no tensor, is refused."""
    folder = f"data/{kind}/"
    configs = [member for member in archive.members if member.startswith(folder) and member.endswith("_config.json")]
    if len(configs) != 1:
        raise Unsafe(f"its {kind} have no one list: another program's, or an older torch's")
    listed = set()
    config = _json(archive, configs[0])
    archive.members[configs[0]] = json.dumps(config).encode()
    for tensor, entry in config["config"].items():
        path = entry["path_name"]
        if entry["use_pickle"]:
            raise Unsafe(f"{tensor!r} is pickled")
        if kind == "constants" and not str(path).startswith("tensor_"):
            raise Unsafe(f"the constant {tensor!r} is no tensor")
        if folder + path not in archive.members or not re.fullmatch(r"\w+", path):
            raise Unsafe(f"the data of {tensor!r} is not there")
        listed.add(folder + path)
        _texts(entry)
        sizes = [size["as_int"] for size in entry["tensor_meta"]["sizes"]]
        if min(sizes, default=0) < 0 or prod(sizes) > max(len(archive.members[folder + path]), 1):
            raise Unsafe(f"{tensor!r} claims {prod(sizes)} numbers, more than its data holds")
    for member in archive.members:
        if member.startswith(folder) and member not in listed and member != configs[0]:
            raise Unsafe(f"{member!r} belongs to no tensor")


# --- the program


def _program(program: Json) -> None:
    for line in program.get("guards_code") or ():
        guard(line)
    for symbol in program.get("range_constraints") or ():
        symbolic(symbol)
    graph_module = program["graph_module"]
    for call in graph_module["module_call_graph"]:
        signature = call["signature"]
        for spec in ("in_spec", "out_spec") if signature else ():
            _treespec(json.loads(signature[spec]))
        for name in _arguments(signature) if signature else ():
            _identifier(name)
    if graph_module.get("treespec_namedtuple_fields"):
        raise Unsafe("its inputs or outputs are named tuples")
    for graph in _graphs(graph_module["graph"]):
        if graph.get("custom_obj_values"):
            raise Unsafe("it holds objects that are no tensors")
        for name in (name for key, part in graph.items() if key.endswith("_values") for name in part or ()):
            _identifier(name)
        for node in graph["nodes"]:
            _target(node["target"])
            _metadata(node)
    _texts(program)


def _graphs(graph: Json) -> Iterator[Json]:
    """A graph and the ones nested in its nodes' arguments."""
    pending = [graph]
    while pending:
        graph = pending.pop()
        yield graph
        inside = [node["inputs"] for node in graph["nodes"]]
        while inside:
            part = inside.pop()
            if isinstance(part, dict) and "nodes" in part and "tensor_values" in part:
                pending.append(part)
            elif isinstance(part, dict):
                inside.extend(part.values())
            elif isinstance(part, list):
                inside.extend(part)


def _target(target: str) -> None:
    operator = target.split(".")[3:4]
    if not TARGETS.fullmatch(target) or (operator and operator[0] in FORBIDDEN):
        raise Unsafe(f"it calls {target!r}, which bnfold does not let run")


def _metadata(node: Json) -> None:
    found = node["metadata"]
    for key in [key for key in found if key not in METADATA]:
        del found[key]
    for entry in filter(None, found.get("source_fn_stack", "").split(";")):
        if not re.fullmatch(r"[\w.,]+", entry):
            raise Unsafe(f"node {node.get('name')!r} comes from {entry[:80]!r}")


def _arguments(signature: Json) -> Iterator[Json]:
    """Yield what the function that torch writes for a program calls its arguments."""
    yield from signature.get("forward_arg_names") or ()
    spec = json.loads(signature["in_spec"])
    for child in (spec[1] if isinstance(spec, list) else spec)["children_spec"]:
        if child["type"] == "builtins.dict":
            yield from json.loads(child["context"])


def _identifier(name: Json) -> None:
    """Raise unless ``name`` is one that Python takes for a name and nothing else."""
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise Unsafe(f"something in it is called {str(name)[:80]!r}")


def _texts(part: Json) -> None:
    """Every text that torch would evaluate, wherever it stands."""
    pending = [part]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            if "expr_str" in part:
                symbolic(part["expr_str"])
            for name in (part[key] for key in ("name", "as_name") if part.get(key)):
                _identifier(name)
            for path in (part[key] for key in part if key == "fqn" or key.endswith("_name")):
                if path is not None and not PATHS.fullmatch(path):
                    raise Unsafe(f"a weight or module is called {path[:80]!r}")
            if part.get("as_custom_obj") is not None:
                raise Unsafe("it holds an object that is no tensor")
            if part.get("as_operator") is not None:
                _target(part["as_operator"])
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)


def _treespec(spec: Json) -> None:
    """How inputs are nested: a list of version and node, or a node ``{type, context, children_spec}``."""
    pending = [spec[1] if isinstance(spec, list) else spec]
    while pending:
        node = pending.pop()
        if node["type"] not in CONTAINERS:
            raise Unsafe(f"its inputs or outputs are of type {node['type']!r}")
        if node["context"] is not None:
            json.loads(node["context"])
        pending.extend(node["children_spec"])
