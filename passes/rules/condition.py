"""What a side condition of a rule is: a test, and how the checker makes instances that pass it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from effcc.passes.rules.language import Expression

if TYPE_CHECKING:
    from effcc.passes.rules.instances import Draft

Propose = Callable[["Draft", Random, tuple[Expression, ...]], None]


@dataclass(frozen=True)
class Condition:
    """`holds(facts, *arguments)`, and `propose(draft, random, argument expressions)`, after which it probably does."""

    summary: str
    holds: Callable[..., bool]
    propose: Propose


class Conditions(dict[str, Condition]):
    """Conditions by name."""

    def enter(self, propose: Propose) -> Callable[[Callable[..., bool]], Callable[..., bool]]:
        """Enter the decorated test under its name, with its docstring as summary."""

        def decorate(holds: Callable[..., bool]) -> Callable[..., bool]:
            self[holds.__name__] = Condition((holds.__doc__ or "").strip(), holds, propose)
            return holds

        return decorate


def nothing(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    """The proposal of conditions that random instances meet often enough."""
