"""Parallel edges side by side: intervals on as few tracks as they need."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Tracks"]


@dataclass
class Tracks:
    """A channel or a gutter. Edges of one net share a track: those from one unit, of one matrix."""

    spans: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    found: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, name: tuple[str, str], low: float, high: float) -> None:
        """An edge of a net goes from here to there."""
        a, b = self.spans.get(name, (low, high))
        self.spans[name] = (min(a, low), max(b, high))

    def settled(self) -> int:
        """Chooses tracks, the first free one by where edges begin; how many there are."""
        ends: list[float] = []
        for name, (low, high) in sorted(self.spans.items(), key=lambda item: (item[1], item[0])):
            k = next((k for k, end in enumerate(ends) if end < low), len(ends))
            ends[k : k + 1] = [high]
            self.found[name] = k
        return len(ends)

    def track(self, name: tuple[str, str]) -> int:
        """The track of the edges of a net."""
        return self.found[name]
