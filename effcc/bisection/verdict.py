"""What a bisection found."""

from __future__ import annotations

from dataclasses import dataclass

from effcc.steps import State


@dataclass(frozen=True)
class Verdict:
    """What makes a result wrong.

    kind: `rule`, `pass`, `kernel`, `memory`, `race`, `calls`, `import`, `step` or `crash`. step: the step of the
    driver, or `build` for compiled code, `import` for what comes before all steps. sentence: the finding in words.
    problem: how the result is wrong. location: the lines of the model. before, after: what went into the step, pass or
    application at fault, and what came out.
    """

    kind: str
    step: str
    sentence: str
    problem: str
    location: str = ""
    kernel: str = ""
    pass_name: str = ""
    rule: str = ""
    details: tuple[str, ...] = ()
    before: State | None = None
    after: State | None = None

    def same(self, other: Verdict) -> bool:
        """Whether both blame the same thing: what is shrunk must go wrong as the whole did."""
        return (self.kind, self.step, self.pass_name, self.rule) == (
            other.kind, other.step, other.pass_name, other.rule,
        )  # fmt: skip
