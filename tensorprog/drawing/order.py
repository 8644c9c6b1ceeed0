"""The order of what stands in one column, and its heights: barycentres and medians, a few sweeps of linear cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["SWEEPS", "Item", "heights", "ordered"]

SWEEPS = 4
"""How often the columns are gone through, there and back."""
STRAIGHT = 6.0
"""How much more edges of matrices count than others."""


@dataclass(eq=False)
class Item:
    """What stands in a column of a row: a unit, or a place that a long edge goes through.

    Attributes:
        name: Of the unit; of the edge's source.
        column: Where.
        up: How far it reaches above its middle.
        down: How far below.
        before: Neighbours in columns to the left.
        after: Neighbours in columns to the right.
        y: Its height, downwards.
        through: Is it a place of an edge?
        source: The neighbour that a matrix makes it of.
    """

    name: str
    column: int
    up: float
    down: float
    before: list[Item] = field(default_factory=list, repr=False)
    after: list[Item] = field(default_factory=list, repr=False)
    y: float = 0.0
    through: bool = False
    source: Item | None = field(default=None, repr=False)


def ordered(layers: Mapping[int, list[Item]]) -> None:
    """Reorders every column in place, so that few edges cross."""
    columns = sorted(layers)
    at: dict[int, float] = {}

    def note(column: int) -> None:
        layer = layers[column]
        for i, item in enumerate(layer):
            at[id(item)] = (i + 0.5) / len(layer)

    for c in columns:
        note(c)
    for _ in range(SWEEPS):
        for direction, run in ((0, columns), (1, columns[::-1])):
            for c in run:
                layer = layers[c]
                keys = {}
                for item in layer:
                    near = item.after if direction else item.before
                    places = [at[id(o)] for o in near]
                    keys[id(item)] = sum(places) / len(places) if places else at[id(item)]
                layer.sort(key=lambda item: round(keys[id(item)], 9))
                note(c)


def heights(layers: Mapping[int, list[Item]], gap: float) -> None:
    """Gives every item its height: near its neighbours', edges straight where they can be, none closer than the gap."""
    columns = sorted(layers)
    for c in columns:
        _place(layers[c], [0.0] * len(layers[c]), gap)
    for k in range(2 * SWEEPS):
        run = columns if k % 2 == 0 else columns[::-1]
        for c in run:
            _place(layers[c], [_between(item, k % 2 == 0) for item in layers[c]], gap)


def _between(item: Item, left: bool) -> float:
    """The mean height of neighbours; edges that are to be straight count more."""
    near = (item.before if left else item.after) or [*item.before, *item.after]
    if not near:
        return item.y
    weights = [STRAIGHT if item.source is o or o.source is item else 1.0 for o in near]
    return sum([w * o.y for w, o in zip(weights, near, strict=True)]) / sum(weights)


def _place(layer: Sequence[Item], wanted: Sequence[float], gap: float) -> None:
    """The heights nearest to those wanted that keep the order and the distances: isotonic regression, linear."""
    offset, offsets = 0.0, []
    for i, item in enumerate(layer):
        if i:
            close = gap / 2 if item.through or layer[i - 1].through else gap
            offset += layer[i - 1].down + item.up + close
        offsets.append(offset)
    pools: list[tuple[float, float, int]] = []  # mean, weight, length
    for item, w, off in zip(layer, wanted, offsets, strict=True):
        mean, weight, length = w - off, 3.0 if item.through else 1.0, 1
        while pools and pools[-1][0] > mean:
            other, heavy, many = pools.pop()
            mean = (mean * weight + other * heavy) / (weight + heavy)
            weight, length = weight + heavy, length + many
        pools.append((mean, weight, length))
    i = 0
    for mean, _, length in pools:
        for _ in range(length):
            layer[i].y = mean + offsets[i]
            i += 1
