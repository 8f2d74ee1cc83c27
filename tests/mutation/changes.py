"""Small changes to code, as cosmic-ray's operators make them, without those that change nothing."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

KEPT_BINARY = {
    "Add": ("Sub",), "Sub": ("Add",), "Mul": ("Div", "Add"), "Div": ("Mul",), "FloorDiv": ("Div", "Mul"),
    "Mod": ("FloorDiv",), "Pow": ("Mul",), "BitOr": ("BitAnd",), "BitAnd": ("BitOr",), "BitXor": ("BitOr",),
    "LShift": ("RShift",), "RShift": ("LShift",),
}  # fmt: skip
"""Of eleven replacements for an arithmetic operator, the likely slips: the others fail alike."""

FORBIDDING = ("frozen", "strict")
"""Flags that do nothing but forbid what nobody does."""


class Bare(ast.NodeTransformer):
    """Code without what changes nothing: annotations, flags that forbid, bars between parameters."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        node.args, node.posonlyargs = [*node.posonlyargs, *node.args, *node.kwonlyargs], []
        node.defaults, node.kwonlyargs, node.kw_defaults = [*node.defaults, *filter(None, node.kw_defaults)], [], []
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [keyword for keyword in node.keywords if keyword.arg not in FORBIDDING]
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)


def bare(code: str) -> str:
    """What the code does, for comparing."""
    tree = ast.parse(code)
    tree.body = [s for s in tree.body if not (isinstance(s, ast.If) and ast.unparse(s.test) == "TYPE_CHECKING")]
    return ast.dump(Bare().visit(tree))


def wanted(name: str) -> bool:
    """True for the operators of cosmic-ray that are worth a run."""
    name = name.removeprefix("core/")
    if name.startswith("ReplaceBinaryOperator_"):
        old, new = name.removeprefix("ReplaceBinaryOperator_").split("_")
        return new in KEPT_BINARY.get(old, ())
    if name.startswith("ReplaceComparisonOperator_"):
        old, new = name.removeprefix("ReplaceComparisonOperator_").split("_")
        return old.startswith("Is") or not new.startswith("Is")  # equal small numbers are the same object
    return not name.startswith("ReplaceUnaryOperator") or name.endswith(("_Delete", "USub_UAdd"))


def orders_texts(code: str) -> bool:
    """True where a comparison asks whether a text is less than another, which nobody writes by mistake."""
    return any(
        isinstance(node, ast.Compare)
        and isinstance(node.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE))
        and any(
            isinstance(side, ast.Constant) and isinstance(side.value, str) for side in (node.left, *node.comparators)
        )
        for node in ast.walk(ast.parse(code))
    )


def mutants(path: Path, only: Collection[tuple[str, int]] | None = None) -> Iterator[tuple[str, int, int, str]]:
    """Operator, its occurrence, the line, and the changed code; of all, or ``only`` these operators and occurrences."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.mutating import mutate_code

    code = path.read_text()
    tree, seen = get_ast_from_path(path), {bare(code)}
    for name in filter(wanted, plugins.operator_names()):
        if (kind := plugins.get_operator(name)).arguments():  # it asks for a variable's name
            continue
        operator = kind()
        places = [start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node)]
        for occurrence, (line, _) in enumerate(places):
            if only is not None and (name.removeprefix("core/"), occurrence) not in only:
                continue
            try:
                changed = mutate_code(code, operator, occurrence)
            except AttributeError:  # cosmic-ray can't change what is unpacked among the names of exceptions
                continue
            with contextlib.suppress(SyntaxError):
                if changed is not None and (dump := bare(changed)) not in seen and not orders_texts(changed):
                    seen.add(dump)
                    yield name.removeprefix("core/"), occurrence, line, changed


def changed_line(code: str, changed: str) -> tuple[str, str]:
    """The first line in which two texts differ, as it was and as it is."""
    pairs = zip(code.splitlines(), changed.splitlines(), strict=False)
    return next(((was.strip(), now.strip()) for was, now in pairs if was != now), ("", ""))


def functions(path: Path) -> dict[str, range]:
    """The lines of each function or class, by its name; those within others after them, and first of all the module."""
    text = path.read_text()
    found = {"<module>": range(1, text.count("\n") + 1)}

    def look(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                inner = f"{name}.{child.name}".lstrip(".")
                found[inner] = range(child.lineno, (child.end_lineno or child.lineno) + 1)
            look(child, inner)

    look(ast.parse(text), "")
    return found


def lines_around(path: Path, line: int) -> range | None:
    """The lines of the innermost statement; of one with a body, those before the body.

    None outside of functions: whichever test imports the module first would seem to be the only one that runs them.
    """
    best, inside = range(line, line + 1), False
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno):
            body = getattr(node, "body", None)
            best = range(node.lineno, body[0].lineno if body else (node.end_lineno or node.lineno) + 1)
            inside |= isinstance(node, ast.FunctionDef) and bool(body) and line >= body[0].lineno
    return best if inside else None
