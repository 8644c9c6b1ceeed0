"""Gaussian integrals in two variables, the inner one with a bound that holds (`limits/gauss/verified.py`).

What the inner integral gives is a function G of the outer variable. A panel of the outer variable is accepted where an enclosure
of the integrand bounds the error of the Gauss rule of G, as in one variable; and, where kinks move with the outer variable, so
that no such bound is at hand, where halving the panel changes nothing and the kinks are known to be the same curves all over the
panel: the argument of each is monotone in the inner variable wherever it may be 0, and no two meet. G is analytic there. Other
panels are cut, at kinks of the outer variable itself exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tensorprog.limits.gauss.enclosure import Box, Enclosure
from tensorprog.limits.gauss.verified import EDGES, ENCLOSED, NODES, Line, bernstein, gauss, mass, one_root, truncation

__all__ = ["INNER_PANELS", "PLANE_PANELS", "UNRESOLVED", "Plane", "Solved"]

Array = np.ndarray

PLANE_PANELS = 400
"""Panels of the outer variable, at most."""
INNER_PANELS = 2**9
"""Panels of an inner integral, at most."""
NEGLIGIBLE = 1e-16
HALVED = 2e-15
"""A change, relative to E |f|, that halving a panel of a function known to be analytic may make."""
RESOLVED, AWAY = 8, 12
"""A panel whose halves agree is trusted if it is not longer than this many widths of a turn, or as far from it."""
TRUSTED = 0.26
"""Panels this narrow are halved for a test even where kinks cross or are born: of what is lost there halving tells."""
PASSED = 32
"""Deviations of the inner variable that a curve may pass on a panel: nodes of the halves are 1.3 of them apart, and see it."""
SLOPES = 12
"""Pieces of the inner variable are halved so often at most, to know slopes on them: at the ends of curves there is none."""
GENERATIONS = 60
UNRESOLVED = 1e-3
"""Where inner integrals have such errors, relative to E |f|, on panels with a tenth of it, the outer variable is cut no more."""
_PIECES = np.array([0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 10.5, 14, 38.5])
_PIECES = np.concatenate([-_PIECES[:0:-1], _PIECES])
_THIN = 1e-18


class _Panels(NamedTuple):
    """Panels of the outer variable.

    Attributes:
        low: Shape (P,).
        high: Shape (P,).
        value: Their integrals by the rule.
        size: The same of |f|.
        error: What the inner integrals may err.
    """

    low: Array
    high: Array
    value: Array
    size: Array
    error: Array

    def take(self, which: Array) -> _Panels:
        return _Panels(*(x[which] for x in self))


class Solved(NamedTuple):
    """An integral, and the panels of the outer variable: another integral that is almost the same may use them.

    Attributes:
        value: The integral.
        error: A bound of its error, rounding apart.
        size: E |f|.
        low: Lower ends of the panels summed by their rules.
        high: Upper ends.
        rest: What the others add.
        panels: How many there were.
        cut: Are some cut at jumps of the outer variable? Those would have to move with it.
    """

    value: float
    error: float
    size: float
    low: Array
    high: Array
    rest: float
    panels: int
    cut: bool


class Plane:
    """One integral ``E f(mean + outer e_1 + inner e_2)``.

    Args:
        line: The integrand's integrals along lines.
        mean: Shape (d,).
        outer: Shape (d,).
        inner: Shape (d,).
        params: Numbers.
        noise: Not 0: with all instructions moved by their rounding.
        count: Told of evaluations before they are made.
        turns: Where functions turn, (variable, location, width): halving does not see what turns between the points.
    """

    def __init__(
        self,
        line: Line,
        mean: Array,
        outer: Array,
        inner: Array,
        params: Sequence[float],
        noise: int = 0,
        count: Callable[[int], None] = lambda points: None,
        turns: Sequence[tuple[int, float, float]] = (),
    ) -> None:
        self.line, self.mean, self.outer, self.inner, self.params = line, mean, outer, inner, params
        self.noise, self.count = noise, count
        moved = [(i, a, w) for i, a, w in turns if w > 0 and outer[i] != 0]
        self._turns = np.array([(a - mean[i]) / outer[i] for i, a, _ in moved])
        self._widths = np.array([np.hypot(w, inner[i]) / abs(outer[i]) for i, _, w in moved])

    def again(self, known: Solved) -> float:
        """The integral, by the panels of another that is almost the same."""
        return known.rest + float(self._panels(known.low, known.high, known.size).value.sum())

    def price(self) -> int:
        """Evaluations of the inner integrals at some values of the outer variable."""
        counted, outside = [0], self.count

        def count(points: int) -> None:
            counted[0] += points
            outside(points)

        self.count = count
        self._panels(np.array([-2.0, 0.0]), np.array([0.0, 2.0]), None)
        self.count = outside
        return counted[0]

    def __call__(self) -> Solved:
        """The integral."""
        edges = np.concatenate([-np.array(EDGES)[:0:-1], EDGES])
        first = self._panels(edges[:-1], edges[1:], None)
        scale = float(first.size.sum())
        return self._solve(first, scale)

    def _panels(self, low: Array, high: Array, scale: float | None) -> _Panels:
        """The rule on panels."""
        x, w = gauss(NODES)
        half = (high - low)[:, None] / 2
        e = (low + high)[:, None] / 2 + half * x
        density = np.exp(-(e**2) / 2) / np.sqrt(2 * np.pi)
        weight = half * w * density
        rows = e.size
        seen = np.flatnonzero(weight.ravel() > 0)
        found = [np.zeros(rows) for _ in range(3)]
        if len(seen):
            at = e.ravel()[seen]
            mean = self.mean + at[:, None] * self.outer
            given = None if scale is None else np.maximum(scale * np.ones(len(seen)), 1e-300)
            params = [np.full(len(seen), p) for p in self.params]
            direction = np.broadcast_to(self.inner, mean.shape)
            lines = self.line(mean, direction, params, INNER_PANELS, self.noise, given, self.count)
            for part, values in zip(found, (lines.value, lines.size, lines.error), strict=True):
                part[seen] = values
        value, size, error = (np.einsum("pn,pn->p", weight, part.reshape(e.shape)) for part in found)
        return _Panels(low, high, value, size, error)

    def _enclosed(self, panels: tuple[Array, Array], pieces: tuple[Array, Array]) -> Enclosure:
        """Ranges on panels of the outer variable times pieces of the inner one."""
        size = len(panels[0])
        self.count(ENCLOSED * size)
        left, right, height, _ = bernstein(*panels)
        box = Box(np.stack([panels[0], pieces[0]]), np.stack([panels[1], pieces[1]]), left, right, height)
        direction = [
            np.stack([np.full(size, float(u)), np.full(size, float(v))])
            for u, v in zip(self.outer, self.inner, strict=True)
        ]
        mean = [np.full(size, float(m)) for m in self.mean]
        return self.line.functions(self.noise).enclose(
            box, mean, direction, [np.full(size, float(p)) for p in self.params]
        )

    def _step(self, panels: _Panels, scale: float) -> tuple[Array, Array, Array, Array, Array]:
        """Errors of rules, half the variations and middles times probabilities, are kinks known?, the kink to cut at."""
        shape = (len(panels.low), len(_PIECES) - 1)
        _, low, high, *pieces = _boxes(panels.low, panels.high)
        found = self._enclosed((low, high), (pieces[0], pieces[1]))
        inner = mass(_PIECES[:-1], _PIECES[1:])
        weight = mass(panels.low, panels.high)
        density = bernstein(panels.low, panels.high)[3]
        with np.errstate(all="ignore"):
            bound = found.whole.modulus.reshape(-1, *shape)
            bound = np.where(bound == 0, 0, bound * inner).sum(-1) * density
            spread = ((found.whole.high - found.whole.low) / 2).reshape(shape) * inner
            spread = np.where(np.isnan(spread), np.inf, spread) * weight[:, None]
            middle = (((found.whole.high + found.whole.low) / 2).reshape(shape) * inner).sum(1) * weight
        matters = ~(spread <= NEGLIGIBLE * scale / shape[1])
        known = np.ones(shape[0], dtype=bool)
        busy: dict[int, Array] = {}
        cut = np.full(shape[0], -1)
        trends = [
            np.where(kink.down[1].reshape(shape) >= 0, 1, np.where(kink.up[1].reshape(shape) <= 0, -1, 0))
            for kink in found.kinks
        ]
        for k, kink in enumerate(found.kinks):
            low, high = kink.low.reshape(shape), kink.high.reshape(shape)
            down, up = kink.down[1].reshape(shape), kink.up[1].reshape(shape)
            decided = (low >= 0) | (high <= 0)
            still = ((down == 0) & (up == 0)).all(1)  # a kink of the outer variable itself
            alone = one_root(kink).reshape(shape).all(1)
            cut = np.where((cut < 0) & still & alone, k, cut)
            known &= ~(still & ~decided.all(1))
            undecided = matters & ~decided & ~still[:, None]
            # e - |u| is 0 where u is one of two numbers: where u is monotone these are curves that do not meet.
            inner_most = self.line.innermost[k]
            known &= _one_way(trends[k], undecided, decided) | _one_way(trends[inner_most], undecided, decided)
            known &= ~(undecided[:, 0] | undecided[:, -1])
            busy[inner_most] = busy.get(inner_most, np.zeros(shape, dtype=bool)) | undecided
        known &= ~(sum([b.astype(int) for b in busy.values()], np.zeros(shape, dtype=int)) > 1).any(1)
        return truncation(panels.low, panels.high, bound), spread.sum(1), middle, known, cut

    def _gradual(self, low: Array, high: Array, scale: float) -> Array:
        """Do curves, of kinks and of turns, pass the inner variable's deviations slowly on panels, so that nodes see them pass?

        Where a function saturates along the inner variable, tanh far from 0, a curve passes all of it in no time: G is analytic,
        and steeper than the nodes can see. Pieces of the inner variable are halved until its slope is known on them.
        """
        gradual = np.ones(len(low), dtype=bool)
        panel, *boxes = _boxes(low, high)
        for _ in range(SLOPES):
            if not len(panel):
                break
            found = self._enclosed((boxes[0], boxes[1]), (boxes[2], boxes[3]))
            with np.errstate(all="ignore"):
                spread = (found.whole.high - found.whole.low) / 2 * mass(boxes[2], boxes[3]) * mass(boxes[0], boxes[1])
                matters = ~(spread <= NEGLIGIBLE * scale / (len(_PIECES) - 1))
                unknown = np.zeros(len(panel), dtype=bool)
                for u, width in found.turns:
                    there = matters & (u.low < AWAY * width) & (u.high > -AWAY * width)
                    across, inner = (np.maximum(np.abs(u.down[i]), np.abs(u.up[i])) for i in (0, 1))
                    across = across * (boxes[1] - boxes[0])
                    least = np.where(u.down[1] * u.up[1] > 0, np.minimum(np.abs(u.down[1]), np.abs(u.up[1])), 0)
                    gradual[panel[there & (across > PASSED * (inner + width))]] = False
                    unknown |= there & ~(across <= PASSED * (least + width))
            unknown &= gradual[panel]
            panel, (a, b, left, right) = panel[unknown], [x[unknown] for x in boxes]
            middle = (left + right) / 2
            panel = np.concatenate([panel, panel])
            boxes = [np.concatenate(x) for x in ((a, a), (b, b), (left, middle), (middle, right))]
        return gradual

    def _resolved(self, low: Array, high: Array) -> Array:
        """Are panels short beside the width of every function that turns there, or away from where it does?"""
        away = np.maximum(low[:, None] - self._turns, self._turns - high[:, None])
        fine = ((high - low)[:, None] <= RESOLVED * self._widths) | (away >= AWAY * self._widths)
        return np.asarray(np.all(fine, axis=1))

    def _solve(self, panels: _Panels, scale: float) -> Solved:
        value = rest_value = error = size = 0.0
        taken, at_jumps = 0, False
        summed: list[_Panels] = []
        for generation in range(GENERATIONS):
            if not len(panels.low):
                break
            rule_error, flat, middle, known, cut = self._step(panels, scale)
            size_now = max(scale, size + float(panels.size.sum()))
            tolerance = NEGLIGIBLE * size_now
            narrow = panels.high - panels.low <= np.maximum(
                _THIN, 2 * np.spacing(np.maximum(np.abs(panels.low), np.abs(panels.high)))
            )
            ranged = (flat <= tolerance) & (flat < rule_error) | narrow & np.isfinite(flat)
            bound = np.minimum(rule_error, flat)
            done = ranged | (rule_error <= tolerance) | narrow
            # Inner integrals that their panels do not resolve, as those of fast waves, are no better on smaller outer panels.
            lost = float(panels.size[panels.error > UNRESOLVED * panels.size].sum())
            if generation == GENERATIONS - 1 or lost > size_now / 10:
                done[:] = True
            room = max((PLANE_PANELS - taken - len(panels.low)) // 2, 0)
            open_ = np.flatnonzero(~done)
            if len(open_) > room:
                done[open_[np.argsort(-bound[open_], kind="stable")][room:]] = True
            left = np.where(np.isfinite(bound), bound, 2 * panels.size)
            value += float(panels.value[done & ~ranged].sum())
            rest_value += float(middle[ranged].sum())
            summed.append(panels.take(done & ~ranged))
            error += float(np.where(ranged, flat, left + panels.error)[done].sum())
            size += float(panels.size[done].sum())
            taken += int(done.sum())
            rest, known, cut, bound = panels.take(~done), known[~done], cut[~done], bound[~done]
            if not len(rest.low):
                break
            lows, highs, exact = self._cut(rest, cut)
            at_jumps |= self.line.jumps and bool(exact.any())
            children = self._panels(np.concatenate([rest.low, highs]), np.concatenate([lows, rest.high]), size_now)
            half = len(rest.low)
            first, second = children.take(np.arange(half)), children.take(np.arange(half, 2 * half))
            change = np.abs(first.value + second.value - rest.value)
            trusted = ~exact & (known | ((rest.high - rest.low <= TRUSTED) & (first.size + second.size > 0)))
            # The ends of thin windows are known to rounding alone, which halving cannot get below: it is in the error.
            trusted &= self._resolved(rest.low, rest.high)
            good = trusted & (change <= HALVED * size_now + first.error + second.error)
            good[good] = self._gradual(rest.low[good], rest.high[good], size_now)
            for part in (first, second):
                summed.append(part.take(good))
                value += float(part.value[good].sum())
                error += float(part.error[good].sum())
                size += float(part.size[good].sum())
            error += float(change[good].sum())
            taken += 2 * int(good.sum())
            both = np.concatenate([~good, ~good])
            panels = children.take(both & (children.high > children.low))
        low, high = (np.concatenate([getattr(part, name) for part in summed]) for name in ("low", "high"))
        return Solved(value + rest_value, error, size, low, high, rest_value, taken, at_jumps)

    def _cut(self, panels: _Panels, kink: Array) -> tuple[Array, Array, Array]:
        """Where panels are cut: the left part ends, the right one begins; at a root?"""
        low = (panels.low + panels.high) / 2
        high = low.copy()
        for k in np.unique(kink[kink >= 0]):
            mine = np.flatnonzero(kink == k)
            count = len(mine)
            a, b = self.line.root(
                int(k),
                np.broadcast_to(self.mean, (count, len(self.mean))),
                np.broadcast_to(self.outer, (count, len(self.mean))),
                [np.full(count, p) for p in self.params],
                panels.low[mine],
                panels.high[mine],
            )
            inside = (a > panels.low[mine]) & (b < panels.high[mine])
            low[mine], high[mine] = np.where(inside, a, low[mine]), np.where(inside, b, high[mine])
        return low, high, kink >= 0


def _boxes(low: Array, high: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Panels times the pieces of the inner variable: numbers of panels, their ends, and those of pieces."""
    many = len(_PIECES) - 1
    panel = np.repeat(np.arange(len(low)), many)
    return panel, low[panel], high[panel], np.tile(_PIECES[:-1], len(low)), np.tile(_PIECES[1:], len(low))


def _one_way(trend: Array, undecided: Array, decided: Array) -> Array:
    """Is a function monotone, in one direction, on neighbouring pieces where a kink's argument may be 0? Shape (panels,).

    Args:
        trend: 1, -1, or 0 where it is not known to be monotone, shape (panels, pieces).
        undecided: Where the argument may be 0, and it matters.
        decided: Where the argument is not 0.
    """
    fails = undecided & (trend == 0)
    for a, b in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
        fails[:, a] |= undecided[:, a] & ~decided[:, b] & (trend[:, b] != trend[:, a])
    return np.asarray(~fails.any(1))
