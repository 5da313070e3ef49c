"""The roofline cost model: what a machine's numbers are in the constraint language, and how times add up.

Time is an integer number of femtoseconds, so that a cost is an expression of the constraint language like any other:
the solver bounds it, `explain` prints it, and any other integer solver can check it. On its busiest core a schedule
takes

    15/16 * max(compute, cache, outer) + 1/16 * (compute + cache + outer) + start

`compute` at the rate at which instructions issue, `cache` for bytes moved between L2 and L1, `outer` for bytes from
where the operands live (L3 or memory), `start` for waking threads. The first three overlap, since loads run ahead of
arithmetic, but not perfectly. `code`, which some models have, is no part of that time: it is what compiling the
unrolled instructions takes in the first call, spread over all calls, so that code is short where length gains nothing.

Issue time is counted in *slots*: one slot is what a core takes for one vector multiply-add when nothing else holds it
up (half a cycle with two such units). Some machines have fewer units for multiply-adds than for other vector
instructions (Zen 4 with AVX-512: one and two a cycle); `issue` is what one takes in a loop that makes numbers of codes
and multiplies them, and reductions are counted in it. The constants below are those of server cores since 2013; where
a reason gives only the order of magnitude (calls, stores), the number is what packed products of 32 to 128 rows showed
on one AVX-512 machine: tiles are ranked as measured (rank correlation 0.8 to 0.9 over 24 tiles), the chosen one within
2 % of the best.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from typing import Protocol, TypeVar

from effcc.passes.tiling.constraints import Expr, evaluate
from effcc.passes.tiling.notation import Model
from effcc.target import PAGE_BYTES, Target

FEMTO = 10**15

ROOFLINE = """
    time = (15 * max(compute, cache, outer) + compute + cache + outer) / 16 + start
    minimize time
"""
"""Ends every model of a kernel's time; the model's text defines the four terms before it."""
ROOFLINE_AND_CODE = ROOFLINE.replace("minimize time", "minimize time + code")
"""The same for a model that says what its `code` costs, too."""

TERMS = ("compute", "cache", "outer", "start")

FMA_LATENCY_SLOTS = 10
"""Independent accumulators needed to keep the multiply-add units busy: 4 to 5 cycles of latency times two units."""
CALL_SLOTS = 60
"""Multiply-add slots lost around one register tile: a mispredicted loop exit and an empty pipeline, about 30 cycles."""
STORE_SLOTS, RELOAD_SLOTS = 8, 6
"""Slots to put a vector of accumulators into C, and to get it back: C's rows are far apart, so each is a miss in L1."""
LINE_SLOTS = 2
"""Slots to bring a line of A's rows from L2: mr streams at a time, which the hardware does not run ahead of as it does
of B's one (products of 128 x 768 x 768: tiles of 8x48 and 6x64 take 0.95 of what 13x32 does, 10x32 0.97; with AVX2,
4x24 takes 0.95 to 0.99 of 6x16)."""
EXIT_SLOTS = 16
"""Slots to leave the innermost of several loops over k and start it again: half a mispredicted exit, and addresses
(AVX2, 128 channels of 28 x 28: with 3 taps innermost 0.74 of the speed that 128 channels innermost come to)."""
APART_SLOTS = 6
"""Slots to bring a line of B from L2 where each step of k reads in another place: streams that no hardware follows,
and more pages than L1 has translations for (AVX2, 64 x 256 by 256 x 3136 in 4x24 tiles: 34 slots a step, not 12)."""
ALIASED_SLOTS = 2
"""The same where steps are closer than half a page, but their lines share few sets of L1 (AVX2, one core, 5x16 and 6x16
tiles: 384 x 384 by 384 x 384 takes 2.5 ms from B as it is, 1.3 from copied panels; 448 2.5 and 2.1; 320, 256 alike)."""
LOAD_EIGHTHS = 9
"""Eighths of a slot to load a vector, or an element that all lanes share: two a cycle are the limit, but tiles with as
many loads as multiply-adds come to 1.8 (AVX2, 256 steps in L1: 14x8 0.88 of the speed of 5x16, 2x40 0.79)."""
PACKED_LOAD_EIGHTHS = 10
"""Eighths of a slot to load a vector, or neighbours that all lanes share, beside dot products: tiles of one vector, a
load for each dot, came to 1.6 loads a cycle where two are the limit (u8 x i8 by vpdpbusd, 128 x 768 x 3072: 26x16 took
1.22 times what 8x48 did, 16x16 1.35 times)."""
PANEL_PARTS = 4
"""A panel of at most this part of L2 is asked for while the one before it is used (`codegen/cpp/prefetch_panels`).
Where it, the next one and a task's rows have no room together, panels come from beyond L2 once more for every task, at
the rate of L3 and beside no multiply-adds: 128 x 3072 x 768 with AVX2 and 512 KB of L2, one thread, took 12.3 ms in
tasks of 16 rows and all of k, 10.1 of 32 rows, and 9.1 to 9.6 in blocks of 1536 to 256."""
TURN_SLOTS = 1
"""Eighths of a slot to turn the loop over k: its branch issues beside the multiply-adds, and unrolling it by 4 changed
nothing that could be measured (products of 128 x 768 x 3072, 8x48 and 12x32 tiles with AVX-512, 6x16 with AVX2).
"""
TASK_SLOTS = 200
"""Slots to take the next task: an atomic counter, and cold addresses; about 100 cycles."""
CLAIMS = 8
"""In so many pieces, at most, a thread claims its part of the tasks (`effcc/worker.h`)."""
CODE_SECONDS = 1e-4
"""What a compiler takes for one unrolled vector instruction: ten milliseconds for a hundred lines of C++."""
RUNS = 10_000_000
"""Runs of a kernel over which the first call's time is spread, unless it runs once: so many calls are worth as much."""
START_SECONDS = 2e-6
"""Waking the thread pool and waiting for its last thread."""
FAR_BYTES = PAGE_BYTES // 2
"""From here on each step of a loop reads in another page, or every other one."""


@dataclass(frozen=True)
class Prediction:
    """What a schedule is predicted to take, in seconds: the whole, and the roofline's terms by name.

    code: what compiling it adds to a run.
    """

    seconds: float
    terms: Mapping[str, float]
    code: float = 0.0

    @property
    def cost(self) -> float:
        """What schedules are ranked by."""
        return self.seconds + self.code

    @property
    def bound_by(self) -> str:
        """The term that is largest: `compute`, `cache`, `outer` or `start`."""
        return max(self.terms, key=lambda name: self.terms[name])


def machine_parameters(target: Target, element_bytes: int = 4) -> dict[str, int]:
    """A machine's numbers under the names that models use; all times are femtoseconds on one core.

    Args:
        target: the machine.
        element_bytes: of the type that arithmetic is done in, which decides how many lanes a vector has.
    """
    lanes = max(1, target.vector_bytes // element_bytes)
    slot = FEMTO * 2 * lanes * target.cores / target.peak_flops
    return {
        "lanes": lanes,
        "vector_registers": target.vector_registers,
        "l1_bytes": target.l1_bytes,
        "l2_bytes": target.l2_bytes,
        "threads": target.cores,
        "slot": max(1, round(slot)),
        "issue": max(1, round(min(slot, FEMTO * target.cores / target.instructions))),
        "latency": max(1, round(FEMTO * target.cores / target.chained)),
        "l2_byte": _byte_time(target, target.l2_bandwidth),
        "latency_slots": FMA_LATENCY_SLOTS,
        "call_slots": CALL_SLOTS,
        "store_slots": STORE_SLOTS,
        "reload_slots": RELOAD_SLOTS,
        "task_slots": TASK_SLOTS,
        "claims": CLAIMS,
        "turn_slots": TURN_SLOTS,
        "start_time": round(START_SECONDS * FEMTO),
    }


def code_time(once: bool) -> int:
    """Femtoseconds that one unrolled instruction adds to each run of a kernel, which runs `once` or again and again."""
    return round(CODE_SECONDS * FEMTO / (1 if once else RUNS))


def byte_time_at_home(target: Target, tensor_bytes: int) -> int:
    """Femtoseconds one core takes for one byte of a tensor from where it lives between kernels: L3 if it fits, else
    memory.
    """
    return _byte_time(target, target.l3_bandwidth if tensor_bytes <= target.l3_bytes else target.memory_bandwidth)


def predict(model: Model, values: Mapping[str, int]) -> Prediction:
    """Evaluate a model's roofline for a full assignment of its variables and parameters."""
    known: dict[Expr, int] = {}
    terms = {name: evaluate(model.definitions[name], values, known) / FEMTO for name in TERMS}
    time = evaluate(model.definitions["time"], values, known) / FEMTO
    code = evaluate(model.definitions["code"], values, known) / FEMTO if "code" in model.definitions else 0.0
    return Prediction(time, terms, code)


class Predicted(Protocol):
    """A schedule of any kind."""

    @property
    def prediction(self) -> Prediction: ...


Schedule = TypeVar("Schedule", bound=Predicted)


def fastest(choices: Iterable[Iterator[Schedule]], k: int) -> list[Schedule]:
    """The `k` schedules that are predicted to be fastest among several streams, each of them best first."""
    return list(islice(merge(*choices, key=lambda s: s.prediction.cost), k))


def _byte_time(target: Target, bandwidth: float) -> int:
    return max(1, round(FEMTO * target.cores / bandwidth))
