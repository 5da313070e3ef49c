"""Places in the arena: buffers alive together never overlap, and the arena is hardly larger than it must be."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from effcc.ir.dims import evaluate, symbol
from effcc.ir.dtypes import boolean, f32
from effcc.ir.program import Branch, Buffer, Extern, Loop, Program, Step
from effcc.ir.types import TensorType
from effcc.passes.memory import ALIGNMENT, live_ranges, place, plan, storage_bytes

S0 = symbol("s0")


def chain(sizes: list[object], keep: int = 0) -> Program:
    """Buffers b0, b1, ...; each step reads its predecessor and, `keep` steps later, b0 once more."""
    buffers = tuple(Buffer(f"b{n}", TensorType(f32, (size,)), "arena") for n, size in enumerate(sizes))  # type: ignore[arg-type]
    steps: list[Step] = []
    for n in range(len(sizes)):
        reads = (*((f"b{n - 1}",) if n else ()), *(("b0",) if 0 < n <= keep else ()))
        steps.append(Extern("extern", reads, (f"b{n}",)))
    return Program("p", buffers, (), (), {}, tuple(steps))


def overlapping(program: Program, sizes: dict[str, int]) -> list[tuple[str, str]]:
    """Pairs of buffers that are alive at the same step and share a byte."""
    found = plan(program)
    alive = live_ranges(program)
    spans = {n: (evaluate(o, sizes), evaluate(storage_bytes(program.buffer(n).type), sizes))
             for n, o in found.offsets.items()}  # fmt: skip
    return [
        (a, b)
        for a in alive
        for b in alive
        if a < b
        and alive[a][0] <= alive[b][1]
        and alive[b][0] <= alive[a][1]
        and spans[a][0] < sum(spans[b])
        and spans[b][0] < sum(spans[a])
    ]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=8), st.integers(0, 8))
def test_buffers_alive_together_never_share_a_byte(sizes: list[int], keep: int) -> None:
    program = chain(list(sizes), keep)
    found = plan(program)
    assert overlapping(program, {}) == []
    assert all(isinstance(o, int) and o % ALIGNMENT == 0 for o in found.offsets.values())
    ends = [int(o) + int(storage_bytes(program.buffer(n).type)) for n, o in found.offsets.items()]
    assert max(ends) <= int(found.arena_bytes)
    assert found.lower_bound is not None and found.lower_bound <= int(found.arena_bytes)


@given(st.lists(st.sampled_from([S0, 2 * S0, S0 + 3, 40]), min_size=1, max_size=8), st.integers(0, 8))
def test_nor_do_buffers_of_unknown_size_whatever_it_is(sizes: list[object], keep: int) -> None:
    program = chain(sizes, keep)
    for value in (0, 1, 7, 100):
        assert overlapping(program, {"s0": value}) == []
        ends = [evaluate(o, {"s0": value}) for o in plan(program).offsets.values()]
        assert max(ends) <= plan(program).bytes_at({"s0": value})


def test_memory_is_used_again_once_its_buffer_is_dead() -> None:
    program, found = place(chain([16] * 6))
    assert found.arena_bytes == found.lower_bound == 2 * 64
    assert {b.offset for b in program.buffers} == {0, 64}


def test_equal_unknown_sizes_share_a_slot() -> None:
    assert plan(chain([S0] * 6)).bytes_at({"s0": 16}) == 2 * 64


def test_the_last_element_of_a_strided_tensor_counts() -> None:
    assert storage_bytes(TensorType(f32, (3, 4), (1, 10))) == 4 * (2 + 30 + 1)
    assert storage_bytes(TensorType(f32, (0, 4))) == 0


def with_control(*steps: Step) -> Program:
    """A program whose buffers are all that its steps name: bools where the name is `c`, in the arena."""
    names = dict.fromkeys(n for s in steps for n in s.touched)
    types = {n: TensorType(boolean, ()) if n.startswith("c") else TensorType(f32, (40,)) for n in names}
    return Program("p", tuple(Buffer(n, t, "arena") for n, t in types.items()), (), (), {}, steps)


def step(reads: str, writes: str) -> Extern:
    return Extern("extern", tuple(reads.split()), tuple(writes.split()))


def test_what_a_loop_reads_of_before_it_lives_through_its_turns() -> None:
    turn = (step("x", "a"), step("a", "b"), step("b y", "y"))
    program = with_control(step("", "x y"), Loop("c", (step("y", "c"),), turn), step("y", "z"))
    alive = live_ranges(program)
    begin, last = alive["c"]
    assert alive["x"] == (0, last) and alive["y"][0] == 0 and alive["y"][1] > last
    assert begin < alive["a"][0] and alive["b"][1] < last, "what a turn makes for itself lives within it"
    assert overlapping(program, {}) == []


def test_what_is_read_after_a_loop_lives_from_its_begin() -> None:
    inner = Loop("c1", (step("", "c1"),), (step("t", "u"),))
    program = with_control(Loop("c", (step("", "c"), step("", "t")), (step("t", "s"), inner)), step("t", "z"))
    alive = live_ranges(program)
    assert alive["t"][0] == alive["c"][0] == 0
    assert alive["t"][1] > alive["c"][1] > alive["c1"][1]


def test_the_two_ways_of_a_branch_share_memory() -> None:
    ways = [(step("", f"{n}1"), step(f"{n}1", f"{n}2"), step(f"{n}2", "")) for n in "ab"]
    program = with_control(step("", "c"), Branch("c", *ways))
    alone = with_control(step("", "c"), Branch("c", ways[0], ()))
    assert plan(program).arena_bytes == plan(alone).arena_bytes
    assert overlapping(program, {}) == []


def test_what_an_alias_holds_is_kept() -> None:
    program = with_control(step("", "x"), step("", "y"), step("y", "z"), step("x", "z"))
    aliased = [replace(b, alias="x") if b.name == "y" else b for b in program.buffers]
    assert live_ranges(replace(program, buffers=tuple(aliased)))["x"] == (0, 3)
    assert "y" not in plan(replace(program, buffers=tuple(aliased))).offsets
