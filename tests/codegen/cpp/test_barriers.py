"""Steps wait for each other exactly where one writes memory that another touches."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from effcc.codegen.cpp.barriers import Pending
from effcc.ir.dims import symbol
from effcc.ir.dtypes import f32
from effcc.ir.program import Buffer, Launch, Program
from effcc.ir.types import tensor

SPACES = ("input", "output", "weight", "prepared")
s0 = symbol("s0")


@st.composite
def programs(draw: st.DrawFn) -> tuple[Program, frozenset[str], list[Launch]]:
    """Buffers in all spaces, some alias others, some in the arena at places that overlap or are not known."""
    buffers = [Buffer(f"o{n}", tensor(f32, 4), space) for n, space in enumerate(SPACES)]
    for n in range(draw(st.integers(1, 5))):
        size = draw(st.sampled_from((4, 16, s0)))
        buffers.append(Buffer(f"a{n}", tensor(f32, size), "arena", 16 * draw(st.integers(0, 8))))
    buffers.append(Buffer("view", tensor(f32, 4), "arena", None, draw(st.sampled_from(buffers)).name))
    names = st.sampled_from([b.name for b in buffers])
    launches = [
        Launch("k", tuple(draw(st.lists(names, max_size=2))), tuple(draw(st.lists(names, min_size=1, max_size=2))))
        for _ in range(draw(st.integers(1, 6)))
    ]
    return Program("p", tuple(buffers), (), (), {}, ()), frozenset(draw(st.sets(names, max_size=2))), launches


def place(buffer: Buffer) -> int:
    assert isinstance(buffer.offset, int)
    return buffer.offset


def may_share(program: Program, no_alias: frozenset[str], a: str, b: str) -> bool:
    """The definition, for two buffers."""
    x, y = (program.buffer(program.memory_of(n)) for n in (a, b))
    if x.name == y.name:
        return True
    if (x.space == "arena") != (y.space == "arena"):
        return False
    if x.space != "arena":
        return not {x.name, y.name} & no_alias and not {x.space, y.space} <= {"weight", "prepared"}
    (x_size,), (y_size,) = x.type.shape, y.type.shape
    if not isinstance(x_size, int) or not isinstance(y_size, int):
        return True
    return place(x) < place(y) + 4 * y_size and place(y) < place(x) + 4 * x_size


@given(programs())
def test_a_step_waits_for_those_whose_memory_it_meets(
    drawn: tuple[Program, frozenset[str], list[Launch]],
) -> None:
    program, no_alias, launches = drawn
    pending = Pending(program, place, no_alias)
    for number, launch in enumerate(launches):
        wanted = any(
            may_share(program, no_alias, a, b)
            for before in launches[:number]
            for one, other in ((before.results, launch.touched), (before.arguments, launch.results))
            for a in one
            for b in other
        )
        assert pending.meets(launch) == wanted
        pending.add(launch)
    pending.clear()
    assert not any(pending.meets(launch) for launch in launches)


def test_rows_that_lie_apart_take_all_of_the_memory_between_them() -> None:
    apart = Buffer("apart", replace(tensor(f32, 4, 16), strides=(32, 1)), "arena", 0)  # 112 elements, of which 64 are
    behind = Buffer("behind", tensor(f32, 4), "arena", 4 * 100)
    program = Program("p", (apart, behind, Buffer("o", tensor(f32, 4), "output")), (), (), {}, ())
    pending = Pending(program, place, frozenset())
    pending.add(Launch("k", ("apart",), ("o",)))
    assert pending.meets(Launch("k", (), ("behind",)))
