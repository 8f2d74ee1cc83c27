"""Texts in a ``.pt2`` that torch would evaluate, held against a grammar: sizes are arithmetic, guards compare sizes."""

from __future__ import annotations

import ast
import re
from math import isfinite
from typing import TypeGuard

SYMBOLIC = frozenset(
    """
    Symbol Integer Float Rational Half Zero One NegativeOne Add Mul Pow Mod PythonMod FloorDiv CleanDiv CeilDiv Min Max
    Identity Where Eq Equality Ne Unequality Lt StrictLessThan Le LessThan Gt StrictGreaterThan Ge GreaterThan And Or
    Not true false TruncToInt CeilToInt FloorToInt RoundToInt ToFloat IntTrueDiv FloatTrueDiv ModularIndexing Abs
    """.split()  # noqa: SIM905
)
"""Names that a symbolic size may use."""

LONGEST = 4000
"""Characters of an expression."""

LARGEST_EXPONENT = 8
"""A power with a larger one could keep sympy busy for ever."""

MOST_SYMBOLS, MOST_PRODUCTS = 6, 24
"""Symbols and products in one expression: with more, sympy may divide polynomials for ever."""

MOST_POWERS = 3
"""Powers in one expression: nested ones grow without bound."""


class Unsafe(Exception):
    """Something that could run, or that torch.export does not write."""


def symbolic(text: str) -> None:
    """Raise unless ``text`` is arithmetic of symbols and numbers, as sympy writes it, that is done in no time."""
    nodes = list(ast.walk(_parsed(text)))
    called = [node.args[0] for node in nodes if _calls(node, "Symbol") and node.args]
    symbols = {ast.dump(name) for name in called}
    symbols |= {node.id for node in nodes if isinstance(node, ast.Name) and node.id not in SYMBOLIC}
    products = sum(_calls(node, "Mul") or isinstance(getattr(node, "op", None), ast.Mult) for node in nodes)
    small = sum(map(_is_power, nodes)) <= MOST_POWERS and len(symbols) <= MOST_SYMBOLS and products <= MOST_PRODUCTS
    if not small or re.search(r"\d[eE][+-]?\d{3}", text) or not all(_is_arithmetic(node, called) for node in nodes):
        raise Unsafe(f"a size is given as {text[:80]!r}")


def _is_arithmetic(node: ast.AST, called: list[ast.expr]) -> bool:
    """True for a part of an expression that may be there; ``called`` are the names that symbols are given as texts."""
    if isinstance(node, ast.Call):
        known = isinstance(node.func, ast.Name) and node.func.id in SYMBOLIC
        return known and (not _calls(node, "Pow") or _small(node.args[1] if len(node.args) > 1 else None))
    if isinstance(node, ast.BinOp):
        return not isinstance(node.op, ast.Pow) or _small(node.right)
    if isinstance(node, ast.Name):
        return node.id in SYMBOLIC or re.fullmatch(r"[suz]\w{0,12}", node.id) is not None
    if isinstance(node, ast.Constant):
        return _plain_constant(node.value, named=any(node is name for name in called))
    return isinstance(node, _ARITHMETIC)


def _plain_constant(value: object, *, named: bool) -> bool:
    """A finite number; a text only as the name of a symbol, since sympy evaluates any other."""
    if isinstance(value, str):
        return named and re.fullmatch(r"[A-Za-z_]\w{0,40}", value) is not None
    return isinstance(value, int) or (isinstance(value, float) and isfinite(value))


def _is_power(node: ast.AST) -> bool:
    return _calls(node, "Pow") or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow))


def _calls(node: ast.AST, name: str) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _small(exponent: ast.expr | None) -> bool:
    """Return True for a plain small number, also as ``Integer(n)``."""
    if isinstance(exponent, ast.UnaryOp):
        return _small(exponent.operand)
    if isinstance(exponent, ast.Call) and len(exponent.args) == 1:
        return _small(exponent.args[0])
    return (
        isinstance(exponent, ast.Constant)
        and isinstance(exponent.value, int)
        and abs(exponent.value) <= LARGEST_EXPONENT
    )


_ARITHMETIC = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Add, ast.Sub,
    ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.USub, ast.UAdd, ast.Compare, ast.Eq, ast.NotEq, ast.Lt,
    ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip

_GUARDS = (*_ARITHMETIC, ast.BoolOp, ast.And, ast.Or, ast.Not, ast.Subscript, ast.Attribute, ast.Tuple, ast.List)
_READ = frozenset({"size", "stride", "storage_offset", "dim", "ndim", "shape", "numel", "dtype", "device"})


def guard(text: str) -> None:
    """A guard compares sizes of inputs: ``L['x'].size()[0] >= 2``."""
    for node in ast.walk(_parsed(text)):
        unknown = isinstance(node, ast.Name) and node.id != "L"
        odd_call = isinstance(node, ast.Call) and not isinstance(node.func, ast.Attribute)
        odd_part = isinstance(node, ast.Attribute) and node.attr not in _READ
        power = isinstance(node, ast.Pow)
        if unknown or odd_call or odd_part or power or not isinstance(node, _GUARDS):
            raise Unsafe(f"it has the guard {text[:80]!r}")


def _parsed(text: str) -> ast.Expression:
    if not isinstance(text, str) or len(text) > LONGEST:
        raise Unsafe("an expression is no text, or far too long")
    try:
        return ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise Unsafe(f"{text[:80]!r} is no expression") from None
