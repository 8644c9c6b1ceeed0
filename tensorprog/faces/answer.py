"""What a command of the command line finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Answer"]


@dataclass
class Answer:
    """What a command found.

    Attributes:
        text: For people; empty where the command printed while it went.
        data: The same as JSON types.
        interrupted: Whether it was stopped from the keyboard, and this is what was done.
        remark: One line for standard error: where a picture went, why it was stopped.
    """

    text: str
    data: dict[str, Any] = field(default_factory=dict)
    interrupted: bool = False
    remark: str = ""
