"""Mutually recursive rules without recursion: each rule is a generator that yields the questions it needs answered.

The rules of the limit (expectation, covariance, Zdot) call each other to a depth that grows with the program. Run as
generators on an explicit stack, with every answer remembered, they never meet Python's recursion limit, and a question
is
answered once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import GeneratorType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorprog.limits.budget import Budget

__all__ = ["Declined", "Exhausted", "Rule", "Solver", "Task"]

Task = Generator[tuple[Any, ...], Any, Any]
Rule = Callable[..., Any]


class Declined(Exception):
    """The exact route has no answer (no closed form, too many dimensions); carries the reason."""

    @property
    def reason(self) -> str:
        """Why, in a sentence fragment."""
        return str(self.args[0])


class Exhausted(Declined):
    """An answer costs more than its budget. Rules never see it: it ends all questions that are open, and none is remembered."""


class Solver:
    """Answers questions `(rule, *arguments)`, where a rule returns the answer or is a generator that yields questions.

    Args:
        budget: Every question is counted there.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.memo: dict[tuple[Any, ...], Any] = {}

    def solve(self, *question: Any) -> Any:
        """The answer to one question.

        Raises:
            Declined: where a rule declined.
            Exhausted: the budget is.
        """
        answer = self._start(question)
        if not isinstance(answer, GeneratorType):
            return self._checked(answer)
        stack: list[tuple[Any, Task]] = [(question, answer)]
        value: Any = None
        while stack:
            question, task = stack[-1]
            try:
                asked = task.throw(value) if isinstance(value, Declined) else task.send(value)
            except StopIteration as done:
                value = done.value
            except Exhausted:
                raise
            except Declined as declined:
                value = declined.with_traceback(None)
            else:
                value = self._start(asked)
                if isinstance(value, GeneratorType):
                    stack.append((asked, value))
                    value = None
                continue
            self.memo[question] = value
            stack.pop()
        return self._checked(value)

    def _start(self, question: tuple[Any, ...]) -> Any:
        """A remembered answer, an answer that needs no questions, or the rule's generator."""
        found = self.memo.get(question, self)
        if found is not self:
            return found
        self.budget.expand()
        try:
            answer = question[0](*question[1:])
        except Exhausted:
            raise
        except Declined as declined:
            answer = declined.with_traceback(None)
        if not isinstance(answer, GeneratorType):
            self.memo[question] = answer
        return answer

    @staticmethod
    def _checked(answer: Any) -> Any:
        if isinstance(answer, Declined):
            raise Declined(answer.reason)
        return answer
