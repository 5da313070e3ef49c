"""What holds a kernel up, and what would make it faster, in words: from its measured time, and what the machine allows.

The time of a kernel is at least that of its operations at the machine's peak, of its bytes at the machine's bandwidth,
and of starting it. Which of them is nearest says what holds it up. Every step that may help is given the most that it
can save; the verdict names the one that saves most. Steps that leave results as they are come first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_NEAR = 0.5
"""From this share of a limit on, that limit is what holds a kernel up."""
_WORTH = 0.02
"""Of a call's time: a step that saves less is not worth naming."""
_DOT_SPEEDUP = 4
"""Products of bytes that an instruction adds up where it adds one of float32."""


@dataclass(frozen=True)
class Facts:
    """Of one kernel, over all its launches in a call. Times are in seconds.

    measured: None where it was not. compute, memory: the least that its operations and its bytes take. start: what one
    launch takes that does nothing. call: of all steps together. predicted: by the cost model.
    weights: of its bytes those of weights, whose elements have `weight_bytes` each; partner: the kernel that reads what
    it writes, or the other way round, with most bytes `between` them, and how many launches that would save.
    integer_dots: whether it is a product of floats, on a machine that sums products of bytes. measured_rates: whether
    the machine's rates were measured.
    """

    launches: int
    measured: float | None
    compute: float
    memory: float
    start: float
    call: float
    predicted: float | None = None
    bytes: float = 0.0
    weights: float = 0.0
    weight_bytes: int = 0
    partner: str = ""
    between: float = 0.0
    saved_launches: int = 0
    integer_dots: bool = False
    measured_rates: bool = True

    @property
    def limit(self) -> float:
        return max(self.compute, self.memory)

    @property
    def bound_by(self) -> str:
        return "compute" if self.compute >= self.memory else "memory"

    @property
    def working(self) -> float:
        """The measured time without that of starting."""
        return max((self.measured or 0.0) - self.start * self.launches, 0.0)


def verdict(facts: Facts) -> str:
    """One sentence, or two: "bound by memory, at 78 %; the next step would be ..."."""
    if facts.measured is None:
        return f"bound by {facts.bound_by} at best, {_micro(facts.limit)} a call; not measured"
    held = _held_up(facts)
    worth = _WORTH * facts.call
    steps = [max(s) for s in (list(_same_results(facts)), list(_fewer_bits(facts))) if s and max(s)[0] >= worth]
    if not steps:
        return f"{held}; no single step would save {100 * _WORTH:.0f} % of a call"
    saved, step = steps[0]
    share = 100 * saved / facts.call
    return f"{held}; the next step would be {step}: it saves {_micro(saved)} at most, {share:.0f} % of a call"


def _held_up(facts: Facts) -> str:
    assert facts.measured is not None
    share = facts.limit / facts.measured if facts.measured else 0.0
    percent = f"{100 * share:.0f} %"
    starting = facts.start * facts.launches
    if share > 1.0:
        rates = "measured rates allow" if facts.measured_rates else "assumed rates allow (`effcc doctor` measures them)"
        return f"faster than {rates}: {facts.bound_by} at {percent}"
    if starting >= _NEAR * facts.measured and share < _NEAR:
        each = "starting it" if facts.launches == 1 else f"starting it {facts.launches} times"
        return f"bound by its start: {each} takes {_micro(min(starting, facts.measured))} of {_micro(facts.measured)}"
    if share >= _NEAR:
        return f"bound by {facts.bound_by}, at {percent}"
    return f"held up by neither compute nor memory: at {percent} of what {facts.bound_by} allows"


def _same_results(facts: Facts) -> Iterator[tuple[float, str]]:
    """What may be done that changes no result, each with the most that it saves in a call."""
    if facts.partner and facts.bytes:
        kept = facts.memory * (1 - min(facts.between / facts.bytes, 1.0))
        saved = facts.saved_launches * facts.start + _scaled(facts, max(facts.compute, kept))
        yield saved, f"fusing it with @{facts.partner}, between which {facts.between / 1e6:.3g} MB go through memory"
    least = max(facts.limit + facts.start * facts.launches, facts.predicted or 0.0)
    wanted = "the cost model's prediction" if least == facts.predicted else "its limit"
    tuned = (facts.measured or 0.0) - least
    yield tuned, f'another schedule, nearer to {wanted} of {_micro(least)} (`mode="max-autotune"` times some)'


def _fewer_bits(facts: Facts) -> Iterator[tuple[float, str]]:
    """The same of what rounds weights or activations."""
    if facts.weight_bytes > 1 and facts.bytes:
        fewer = facts.weights * (1 - 1 / facts.weight_bytes) / facts.bytes
        share = f"{100 * facts.weights / facts.bytes:.0f} %"
        saved = _scaled(facts, max(facts.compute, facts.memory * (1 - fewer)))
        yield saved, f"storing its weights in 8 bits (`effcc.quantize`): they are {share} of its bytes"
    if facts.integer_dots:
        saved = _scaled(facts, max(facts.compute / _DOT_SPEEDUP, facts.memory))
        yield saved, "activations of 8 bits, too: this machine adds up four products of bytes at once"


def _scaled(facts: Facts, limit: float) -> float:
    """What a lower limit saves if the kernel stays as near to it as it is."""
    return facts.working * (1 - limit / facts.limit) if facts.limit else 0.0


def _micro(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} us"
