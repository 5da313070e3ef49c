"""Changes of the compiler's own way, where they are legal: what comes out must compute what it did.

drop PASS      a pass that only makes programs better is left out
again PASS     a pass runs once more on what it gave
swap PASS      a pass changes its place with the next one of its step
commute        operands of sums and products in kernels in each other's places
reorder        neighbouring statements of a kernel, of which neither reads the other, in each other's places
set NAME=VALUE a threshold of what pays (`effcc.fuzz.thresholds`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random

from effcc.fuzz.thresholds import SET, thresholds
from effcc.ir.expr import Call, Expr, transform
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.program import Program
from effcc.steps import STEPS, Passes, State, Step, passes_of
from effcc.target import Target

OPTIONAL = (
    "decode_matrices", "sub_pixels", "simplify", "multiply_integers", "sum_by_dots", "sum_by_groups", "keep_codes",
    "inline", "codes", "online", "both_ways", "in_place", "carry_steps", "arrange", "pack_at_calls", "widen_rows",
    "share_rows", "share_inputs", "cut_long_spans", "turn_columns",
)  # fmt: skip
"""Passes that programs can do without."""
REPEATED = (
    "sub_pixels",
    "simplify",
    "inline",
    "carry_steps",
    "share_rows",
    "share_inputs",
    "cut_long_spans",
    "turn_columns",
)
"""Passes that may run again on what they gave."""
SWAPPED = ("widen_rows", "share_rows", "share_inputs", "cut_long_spans")
"""Passes that may run behind the next one."""
KERNELS = ("commute", "reorder")
AFTER = "fuse"  # the step behind which kernels are changed: later, outputs may lie where inputs do
_COMMUTATIVE = ("add", "mul")  # of floats: how indices and their conditions are written has a meaning


def draw_passes(random: Random) -> tuple[str, ...]:
    """Some changes; of every second case none."""
    found: list[str] = []
    if random.random() < 0.5:
        return ()
    for way, names in (("drop", OPTIONAL), ("again", REPEATED), ("swap", SWAPPED)):
        if random.random() < 0.5:
            found += [f"{way} {name}" for name in random.sample(names, random.choice((1, 1, 2)))]
    return (*found, *(name for name in KERNELS if random.random() < 0.5))


def steps_of(changes: Sequence[str], seed: int) -> Mapping[str, Step]:
    """The driver's steps with these changes. seed: what kernels are changed by."""
    if not changes:
        return STEPS
    found: dict[str, Step] = {}
    for name in STEPS:
        passes = _changed(passes_of(name), changes)
        if len(passes) == len(passes_of(name)) == 1:
            found[name] = STEPS[name]
        elif passes:
            found[name] = Passes(passes)
        if name == AFTER:
            found |= {n: _of_kernels(_KERNEL_CHANGES[n], seed) for n in KERNELS if n in changes}
    return {name: _with_thresholds(step, changes) for name, step in found.items()}


def _with_thresholds(step: Step, changes: Sequence[str]) -> Step:
    def changed(state: State, target: Target) -> State:
        with thresholds(changes):
            return step(state, target)

    return changed if any(c.startswith(SET) for c in changes) else step


def _changed(passes: Mapping[str, Step], changes: Sequence[str]) -> dict[str, Step]:
    order = list(passes)
    for k in range(len(order) - 1):
        if f"swap {order[k]}" in changes:
            order[k], order[k + 1] = order[k + 1], order[k]
            break
    found: dict[str, Step] = {}
    for name in order:
        if f"drop {name}" not in changes:
            found[name] = passes[name]
        if f"again {name}" in changes:
            found[f"{name} again"] = passes[name]
    return found


def _of_kernels(change: Callable[[Kernel, Random], Kernel], seed: int) -> Step:
    def step(state: State, target: Target) -> State:
        program: Program | None = state.program
        assert program is not None
        random = Random(seed)
        kernels = {name: change(kernel, random) for name, kernel in program.kernels.items()}
        return replace(state, program=replace(program, kernels=kernels))

    return step


def _commute(kernel: Kernel, random: Random) -> Kernel:
    def turned(e: Expr) -> Expr:
        if isinstance(e, Call) and e.function in _COMMUTATIVE and e.dtype.is_float and random.random() < 0.5:
            return replace(e, operands=(e.operands[1], e.operands[0]))
        return e

    statements = tuple(replace(s, value=transform(s.value, turned)) for s in kernel.statements)
    return replace(kernel, statements=statements)


def _reorder(kernel: Kernel, random: Random) -> Kernel:
    statements = list(kernel.statements)
    if any(load.before for s in statements for load in s.reads):
        return kernel  # those that run along together stand together
    for _ in range(len(statements)):
        k = random.randrange(len(statements))
        if k + 1 < len(statements) and _are_apart(statements[k], statements[k + 1]):
            statements[k], statements[k + 1] = statements[k + 1], statements[k]
    return replace(kernel, statements=tuple(statements))


def _are_apart(a: Statement, b: Statement) -> bool:
    read = {load.buffer for s in (a, b) for load in s.reads}
    return a.target != b.target and not {a.target, b.target} & read


_KERNEL_CHANGES = {"commute": _commute, "reorder": _reorder}
