"""LSTM, GRU and RNN in float64, with the sequence lengths and activations that onnx's reference leaves out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

Array = NDArray[Any]
Attr = Any
Function = Callable[[Array], Array]
State = tuple[Array, ...]
Step = Callable[[Array, State], State]

ALPHA = {"hardsigmoid": 0.2, "leakyrelu": 0.01, "elu": 1.0}
"""Activations with a parameter, by its default."""


def sigmoid(x: Array) -> Array:
    """Return ``1 / (1 + e^-x)``, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def _activation(name: str, alphas: Iterator[float], betas: Iterator[float]) -> Function:
    """Return an activation by the name that the standard gives it; those with parameters take the next of each."""
    name = name.lower()
    alpha, beta = next(alphas, None) if name in ALPHA else None, next(betas, 0.5) if name == "hardsigmoid" else 0.5
    factor = ALPHA.get(name, 0.0) if alpha is None else alpha
    known: dict[str, Function] = {
        "sigmoid": sigmoid,
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "hardsigmoid": lambda x: np.clip(factor * x + beta, 0, 1),
        "leakyrelu": lambda x: np.where(x < 0, factor * x, x),
        "softsign": lambda x: x / (1 + np.abs(x)),
        "softplus": lambda x: np.logaddexp(0, x),
        "elu": lambda x: np.where(x < 0, factor * np.expm1(x), x),
    }
    if name not in known:
        raise NotImplementedError(f"the activation {name}")
    return known[name]


class _Recurrent(OpRun):
    """What the three have in common: directions, lengths, layout. Weights are ``(directions, gates * hidden, …)``."""

    defaults: Sequence[str]

    def _cell(self, w: Array, r: Array, b: Array, p: Array | None, functions: list[Function], attrs: Attr) -> Step:
        raise NotImplementedError

    def _run(
        self,
        x: Array,
        w: Array,
        r: Array,
        b: Array | None = None,
        lengths: Array | None = None,
        *states: Array | None,
        direction: Attr = "forward",
        layout: Attr = 0,
        activations: Attr = None,
        activation_alpha: Attr = None,
        activation_beta: Attr = None,
        **attrs: Attr,
    ) -> tuple[Array, ...]:
        held = 2 if self.op_type == "LSTM" else 1
        peepholes = states[held] if len(states) > held else None
        given = [*states, None, None][:held]
        if layout:
            x, given = x.swapaxes(0, 1), [None if s is None else s.swapaxes(0, 1) for s in given]
        names = activations or [name for _ in w for name in self.defaults]
        alphas, betas = iter(activation_alpha or ()), iter(activation_beta or ())
        functions = [_activation(name, alphas, betas) for name in names]
        time, batch, hidden = len(x), x.shape[1], r.shape[-1]
        alive = np.arange(time)[:, None] < (np.full(batch, time) if lengths is None else lengths)
        rows = np.zeros((time, len(w), batch, hidden))
        ends: list[State] = []
        each = len(self.defaults)
        for k in range(len(w)):
            bias = np.zeros(2 * w.shape[1]) if b is None else b[k]
            peep = None if peepholes is None else peepholes[k]
            step = self._cell(w[k], r[k], bias, peep, functions[k * each : (k + 1) * each], attrs)
            state: State = tuple(np.zeros((batch, hidden)) if s is None else s[k] for s in given)
            backwards = k == 1 or direction == "reverse"
            for t in reversed(range(time)) if backwards else range(time):
                live = alive[t][:, None]
                after = step(x[t], state)
                state = tuple(np.where(live, new, old) for new, old in zip(after, state, strict=True))
                rows[t, k] = np.where(live, state[0], 0.0)
            ends.append(state)
        last = [np.stack(states) for states in zip(*ends, strict=True)]
        if layout:
            rows, last = rows.transpose(2, 0, 1, 3), [end.swapaxes(0, 1) for end in last]
        return (rows, *last)[: max(1, len(self.onnx_node.output))]


def _clipped(x: Array, attrs: Attr) -> Array:
    limit = attrs.get("clip")
    return x if not limit else np.clip(x, -limit, limit)


class LSTM(_Recurrent):
    """Gates: input, output, forget, cell."""

    defaults = ("Sigmoid", "Tanh", "Tanh")

    def _cell(self, w: Array, r: Array, b: Array, p: Array | None, functions: list[Function], attrs: Attr) -> Step:
        n = r.shape[-1]
        bias, (gate, cell, out) = b[: 4 * n] + b[4 * n :], functions
        pi, po, pf = (0.0, 0.0, 0.0) if p is None else (p[:n], p[n : 2 * n], p[2 * n :])

        def step(x: Array, state: State) -> State:
            h, c = state
            i, o, f, new = np.split(x @ w.T + h @ r.T + bias, 4, axis=-1)
            i = gate(_clipped(i + pi * c, attrs))
            f = 1 - i if attrs.get("input_forget") else gate(_clipped(f + pf * c, attrs))
            c = f * c + i * cell(_clipped(new, attrs))
            return gate(_clipped(o + po * c, attrs)) * out(c), c  # as onnxruntime: no clip of the cell state

        return step


class GRU(_Recurrent):
    """Gates: update, reset, hidden."""

    defaults = ("Sigmoid", "Tanh")

    def _cell(self, w: Array, r: Array, b: Array, p: Array | None, functions: list[Function], attrs: Attr) -> Step:
        n, (gate, out) = r.shape[-1], functions
        wb, rb = b[: 3 * n], b[3 * n :]

        def step(x: Array, state: State) -> State:
            (h,) = state
            fed, gates = x @ w.T + wb, h @ r[: 2 * n].T + rb[: 2 * n]
            z = gate(_clipped(fed[:, :n] + gates[:, :n], attrs))
            reset = gate(_clipped(fed[:, n : 2 * n] + gates[:, n:], attrs))
            if attrs.get("linear_before_reset"):
                old = reset * (h @ r[2 * n :].T + rb[2 * n :])
            else:
                old = (reset * h) @ r[2 * n :].T + rb[2 * n :]
            return ((1 - z) * out(_clipped(fed[:, 2 * n :] + old, attrs)) + z * h,)

        return step


class RNN(_Recurrent):
    """One gate."""

    defaults = ("Tanh",)

    def _cell(self, w: Array, r: Array, b: Array, p: Array | None, functions: list[Function], attrs: Attr) -> Step:
        bias = b[: len(w)] + b[len(w) :]
        return lambda x, state: (functions[0](_clipped(x @ w.T + state[0] @ r.T + bias, attrs)),)
