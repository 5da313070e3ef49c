"""What a scan carries from step to step, kept for one step instead of all.

    kernel @cumsum(x: f32[4,9]) -> (y: f32[4,9], s: f64[4,9]) over i=4, t=9 scan t {
      s[i,t] = where(t > 0, s[i,t - 1], 0.0) + cast<f64>(x[i,t])
      y[i,t] = cast<f32>(s[i,t])
    }
    becomes  kernel @cumsum(x: f32[4,9]) -> (y: f32[4,9]) ...

A scan's statements write to buffers of the program, as what is read of earlier steps outlives them. Where each point
reads no more than its own step before, and nothing else reads the buffer, one step rests in registers or in the cache
(`hold`): sums in f64 of f32 rows would write, and read again, twice what the results take.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import prod

from effcc.ir.dependences import keeps_step, shared_axes
from effcc.ir.kernel import Kernel
from effcc.ir.program import Launch, Program, changed, within

MOST_POINTS = 4096
"""Points of one step that a task keeps in the cache, at most, besides those that tasks share."""


def carry_steps(program: Program) -> Program:
    """The program whose kernels keep one step of such results to themselves."""
    found = {name: _carried(kernel) for name, kernel in program.kernels.items() if kernel.scans}
    touched = Counter(program.memory_of(n) for s in within((*program.prepare, *program.steps)) for n in s.touched)
    named = Counter(program.memory_of(b.name) for b in program.buffers)
    for name, dropped in found.items():
        for launch in (s for s in within((*program.prepare, *program.steps)) if isinstance(s, Launch)):
            if launch.kernel == name:
                dropped &= {n for n, b in enumerate(launch.results) if _is_own(program, b, touched, named)}
    if not any(found.values()):
        return program

    def without(step: object) -> tuple[Launch, ...]:
        assert isinstance(step, Launch)
        gone = found.get(step.kernel, set())
        return (replace(step, results=tuple(b for n, b in enumerate(step.results) if n not in gone)),)

    def launches(steps: tuple) -> tuple:
        return changed(steps, lambda s: without(s) if isinstance(s, Launch) else (s,))

    gone = {
        s.results[n]
        for s in within((*program.prepare, *program.steps))
        if isinstance(s, Launch)
        for n in found.get(s.kernel, ())
    }
    kernels = {name: _without(kernel, found.get(name, set())) for name, kernel in program.kernels.items()}
    return replace(
        program,
        buffers=tuple(b for b in program.buffers if b.name not in gone),
        kernels=kernels,
        steps=launches(program.steps),
        prepare=launches(program.prepare),
    )


def _carried(kernel: Kernel) -> set[int]:
    """The outputs, by position, that hold more than what is read of them."""
    if not shared_axes(kernel) and any(set(s.axes) - {*kernel.scans} for s in kernel.statements):
        # Threads may share the steps, and what they write.
        return set()
    found = set()
    for n, output in enumerate(kernel.outputs):
        without = _without(kernel, {n})
        s = without.definition(output.name)
        if s is None or any(p.name == output.name for p in kernel.params) or keeps_step(without, s) is None:
            continue
        inside = [kernel.extents[a] for a in s.axes if a not in (*kernel.scans, *shared_axes(kernel))]
        if all(isinstance(e, int) for e in inside) and prod(int(e) for e in inside) <= MOST_POINTS:
            found.add(n)
    return found


def _without(kernel: Kernel, outputs: set[int]) -> Kernel:
    return replace(kernel, outputs=tuple(p for n, p in enumerate(kernel.outputs) if n not in outputs))


def _is_own(program: Program, buffer: str, touched: Counter[str], named: Counter[str]) -> bool:
    """Whether nothing but one launch touches a buffer, which is no output."""
    known = program.buffer(buffer)
    return known.space == "arena" and touched[buffer] == 1 and named[buffer] == 1 and buffer not in program.outputs
