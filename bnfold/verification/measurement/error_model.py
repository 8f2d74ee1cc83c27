"""The error ratio that verification judges by: an error over the rounding error that is expected.

With ``reference`` computed in float64, the ratio is the size of the folded model's error over that of what no fold can
avoid: what the original's own arithmetic costs, what rounding the folded weights once costs (``correctly_rounded``: the
correctly rounded fold, evaluated in float64; it counts only as far as rounding can explain it), what running sums lose
that start at a bias (``accumulated``, modelled from the sizes of the folded biases) and half a unit in the last place
of the result. It is about 1 for a correct fold, whatever the network, and grows in proportion to a fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.numerics.rounding import ulp

Array = NDArray[np.float64]


CHANNEL = 256
"""Numbers per channel above which a channel is judged by itself."""

ROUNDING = 8.0
"""How many times the original's own error rounding the folded weights may cost; what costs more is not explained by it.

The correctly rounded fold is made by the same rules as the fold that is judged; their faults must not pass as rounding.
"""

DEAD = 2.0**-100
"""A channel this much smaller than the largest is dead, whatever its weights say."""

NOISY = {"float64": 1e-6, "float32": 1e-3, "float16": 5e-2, "bfloat16": 0.2}
"""How large the original's own error may be, relative to the result, before it could hide a fault."""


@dataclass
class ErrorAccumulator:
    """Sums of squares over samples, pooled and per channel on ``axis``; :meth:`add` results, then read the figures.

    ``terms`` are the sizes of what each channel's offset was added up from; ``slack`` is how many ulps a channel's
    scale may be off because the tool that folded computed it in the storage type.
    """

    dtype: Any
    axis: int | None = 1
    terms: Array | None = None
    slack: float = 0.0
    _sums: dict[str, Array] = field(default_factory=dict)
    _count: int = 0
    max_abs: float = 0.0
    max_size: float = 0.0

    def add(
        self,
        folded: NDArray[Any],
        original: NDArray[Any],
        reference: Array,
        correctly_rounded: Array | None,
        accumulated: Array | None = None,
        again: Sequence[Array] = (),
    ) -> None:
        """Add one result of the folded model and those it is compared with; all of one shape, all finite.

        ``accumulated`` is an error: what sums that start at a bias lose. ``again`` are results of further runs of the
        original whose rounding errors are others: its own error is then the mean over all.
        """
        axis = self.axis if self.axis is not None and reference.ndim > self.axis and reference.ndim > 2 else None
        if (
            axis is not None
            and self._sums
            and reference.shape[axis] != max(entry.size for entry in self._sums.values())
        ):
            axis = None
            self._pool()  # samples of several sizes: that axis holds no channels
        others = None if axis is None else tuple(k for k in range(reference.ndim) if k != axis)
        results: dict[str, list[Array]] = {
            "folded": [folded - reference],
            "original": [original - reference, *(other - reference for other in again)],
            "correctly_rounded": [] if correctly_rounded is None else [correctly_rounded - reference],
            "accumulated": [] if accumulated is None else [accumulated],
            "reference": [reference],
        }
        for name, errors in results.items():
            for error in errors:
                total = np.square(np.asarray(error, np.float64)).sum(axis=others) / len(errors)
                self._sums[name] = self._sums.get(name, np.zeros(())) + total
        channels = 1 if axis is None else reference.shape[axis]
        self._count += reference.size // max(channels, 1)
        self.max_abs = max(self.max_abs, float(np.abs(folded - original.astype(np.float64)).max(initial=0.0)))
        self.max_size = max(self.max_size, float(np.abs(original).max(initial=0.0)))

    def _pool(self) -> None:
        """Add up all channels: from now on they are judged together."""
        self._count *= max(entry.size for entry in self._sums.values())
        self._sums = {name: np.asarray(entry.sum()) for name, entry in self._sums.items()}
        self.axis = None

    @property
    def _pools(self) -> bool:
        return self._count < CHANNEL

    def _rms(self, name: str, *, pooled: bool) -> Array:
        """Return the size (root mean square) of an error, over all or per channel."""
        total = self._sums.get(name, np.zeros(()))
        if pooled:
            channels = max(entry.size for entry in self._sums.values())
            total, count = np.asarray(total.sum()), self._count * channels
        else:
            count = self._count
        return np.asarray(np.sqrt(total / max(count, 1)))

    def _expected(self, *, pooled: bool) -> Array:
        unit = float(ulp(np.ones(()), self.dtype)) / 2
        size = self._rms("reference", pooled=pooled)
        if self.terms is not None and size.ndim and self.terms.size in (1, size.size):
            size = size + self.terms
        elif self.terms is not None:
            size = size + np.sqrt(np.square(self.terms).mean())
        floor = (0.5 + 2 * self.slack) * unit * size
        own = np.sqrt(self._rms("original", pooled=pooled) ** 2 + floor**2)
        correctly_rounded, size = np.broadcast_arrays(self._rms("correctly_rounded", pooled=pooled), size)
        dead = size <= DEAD * size.max(initial=0.0)  # its weights have lost their bits to underflow
        rounding = np.where(dead, correctly_rounded, np.minimum(correctly_rounded, ROUNDING * own))
        sums = self._rms("accumulated", pooled=pooled)  # modelled from sizes: no fault of a fold is in it
        return np.asarray(np.sqrt(own**2 + rounding**2 + sums**2))

    def _ratios(self, *, pooled: bool) -> Array:
        error, floor = np.broadcast_arrays(self._rms("folded", pooled=pooled), self._expected(pooled=pooled))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(error == 0, 0.0, error / floor)

    @property
    def expected(self) -> float:
        """The rounding error that is expected, over all numbers."""
        return float(self._expected(pooled=True).max(initial=0.0)) if self._sums else 0.0

    @property
    def ratios(self) -> Array:
        """The error ratio, per channel where there are enough numbers, else pooled; infinite if none is expected."""
        return self._ratios(pooled=self._pools)

    @property
    def error_ratio(self) -> float:
        """The largest error ratio."""
        return float(self.ratios.max(initial=0.0))

    @property
    def noise(self) -> float:
        """The original's own error, and that of sums that start at a bias, relative to the result."""
        size = float(np.sqrt(np.sum(self._sums.get("reference", np.zeros(1)))))
        own = sum(float(np.sum(self._sums.get(name, np.zeros(1)))) for name in ("original", "accumulated"))
        return float(np.sqrt(own)) / size if size else 0.0

    @property
    def too_noisy(self) -> bool:
        """True if the original's own error is so large that it could hide a fault."""
        return self.noise > NOISY.get(np.dtype(self.dtype).name, NOISY["float32"])

    def detection_limit(self, k: float) -> float:
        """Return the detection limit: the smallest relative error of scale whose ratio would exceed ``k``."""
        pooled = self._pools
        size, floor = np.broadcast_arrays(self._rms("reference", pooled=pooled), self._expected(pooled=pooled))
        limits = k * floor[size > 0] / size[size > 0]
        return float(limits.max(initial=0.0))

    def channels(self, k: float) -> list[int]:
        """Return the channels whose own error ratio is above ``k``: where to look, once the whole is off."""
        ratios = self._ratios(pooled=False)
        return [int(channel) for channel in np.flatnonzero(ratios > k)] if ratios.ndim else []
