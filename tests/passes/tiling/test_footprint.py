"""The closed form of a tile's footprint against isl's count of the points that the tile really touches."""

from __future__ import annotations

import islpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.gpu import parse
from effcc.ir.parser import parse_kernel
from effcc.ir.schedule import Loop, Schedule, nodes
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.constraints import Name, evaluate
from effcc.passes.tiling.footprint import Access, footprint, footprint_expr, is_contiguous
from effcc.passes.tiling.gpu import choose_gpu
from effcc.passes.tiling.operands import CACHE_LINE
from effcc.target import generic

AXES = ("i", "j", "k")
tiles = st.fixed_dictionaries({a: st.integers(1, 5) for a in AXES})


def isl_count(access: Access, tile: dict[str, int]) -> int:
    """How many different elements the tile's points touch, counted by isl."""
    box = " and ".join(f"0 <= {a} < {tile[a]}" for a in AXES)
    index = ", ".join(" + ".join(["0", *(f"{c} * {a}" for a, c in dim.items())]) for dim in access.dims)
    touched = islpy.Map(f"{{ [{', '.join(AXES)}] -> [{index}] : {box} }}").range()
    return int(touched.count_val().to_str())


@settings(max_examples=150, deadline=None)
@given(
    coefficients=st.lists(st.fixed_dictionaries({a: st.integers(-3, 3) for a in AXES}), min_size=1, max_size=3),
    tile=tiles,
)
def test_a_tile_never_touches_more_than_its_footprint(coefficients, tile):
    access = Access(tuple(coefficients))
    assert isl_count(access, tile) <= footprint(access, tile)


@settings(max_examples=150, deadline=None)
@given(owner=st.tuples(*[st.integers(0, 2)] * 3), signs=st.tuples(*[st.sampled_from((-1, 1))] * 3), tile=tiles)
def test_the_footprint_is_exact_where_dimensions_share_no_axis_and_leave_no_gaps(owner, signs, tile):
    dims = [{a: s for a, d, s in zip(AXES, owner, signs, strict=True) if d == dim} for dim in range(3)]
    access = Access(tuple(dims))
    assert isl_count(access, tile) == footprint(access, tile)


@pytest.mark.parametrize(
    ("dims", "tile", "elements"),
    [
        (({"i": 1}, {"k": 1}), {"i": 14, "k": 256}, 14 * 256),
        (({"i": 1, "j": 1}, {"k": 1}), {"i": 7, "j": 3, "k": 16}, 9 * 16),
        (({"i": 2, "j": 1}, {"k": 1}), {"i": 4, "j": 3, "k": 16}, 9 * 16),
        (({"k": 1},), {"i": 100, "k": 8}, 8),
        ((), {"i": 100}, 1),
    ],
)
def test_footprints_of_products_and_convolutions(dims, tile, elements):
    access = Access(dims)
    assert footprint(access, tile) == elements
    assert isl_count(access, {"i": 1, "j": 1, "k": 1} | tile) == elements


@settings(max_examples=100, deadline=None)
@given(coefficients=st.lists(st.fixed_dictionaries({a: st.integers(-3, 3) for a in AXES}), max_size=3), tile=tiles)
def test_the_expression_has_the_value_of_the_closed_form(coefficients, tile):
    access = Access(tuple(coefficients))
    assert evaluate(footprint_expr(access, {a: Name(a) for a in AXES}), tile) == footprint(access, tile)


def test_contiguity_is_a_unit_step_in_the_last_dimension_alone():
    access = Access(({"i": 1}, {"j": 2, "k": 1}))
    assert [is_contiguous(access, a) for a in AXES] == [False, False, True]
    assert not is_contiguous(Access(({"k": 1}, {"k": 1})), "k")


def touched(index: str, tile: dict[str, int]) -> int:
    """How many different places the points of a tile reach, counted by isl."""
    box = " and ".join(f"0 <= {a} < {n}" for a, n in tile.items())
    return int(islpy.Map(f"{{ [{', '.join(tile)}] -> [{index}] : {box} }}").range().count_val().to_str())


def loops_of(schedule: Schedule) -> list[Loop]:
    return [node for _, node in nodes(schedule.body) if isinstance(node, Loop)]


@pytest.mark.parametrize("shape", [(64, 64, 64), (256, 384, 512), (1000, 77, 3000)])
def test_the_operands_in_flight_fit_the_shared_memory_of_a_gpu_as_isl_counts_them(shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    device = parse("sm_80")
    kernel = parse_kernel(f"""
        kernel @k(A: f32[{m},{k}], B: f32[{k},{n}]) -> (C: f32[{m},{n}]) over m={m}, n={n}, k={k} {{
          C[m,n] = sum(k: A[m,k] * B[k,n])
        }}""")
    ((_, schedule),) = choose_gpu(kernel, device)
    block = {loop.axis: loop.step for loop in loops_of(schedule)}
    elements = touched("m, k", block) + touched("k, n", block)
    assert schedule.stages * 4 * elements <= device.shared_bytes
    assert touched("m, n", block) <= schedule.warps * device.warp * device.thread_registers


@pytest.mark.parametrize("shape", [(160, 192), (512, 1024)])
def test_a_strip_of_a_transposition_uses_whole_lines_as_isl_counts_them(shape: tuple[int, int]) -> None:
    i, j = shape
    kernel = parse_kernel(f"kernel @k(X: f32[{j},{i}]) -> (Y: f32[{i},{j}]) over i={i}, j={j} {{ Y[i,j] = -X[j,i] }}")
    loops = loops_of(choose(kernel, generic("avx512"))[1])
    block = {loop.axis: loop.step for loop in loops if loop.kind == "parallel"}
    lanes = next(loop.step for loop in loops if loop.together == "lanes")
    lines = touched("j, floor(i / 16)", {"i": block["i"], "j": lanes})
    assert lines * CACHE_LINE == 4 * lanes * block["i"]
