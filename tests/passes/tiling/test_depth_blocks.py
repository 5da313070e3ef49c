"""Long sums of products are cut into blocks whose partial sums rest in the cache; what the model chose is done."""

from __future__ import annotations

from dataclasses import replace

import islpy as isl
import numpy as np
import pytest

from effcc.codegen.lower import lower
from effcc.ir.interpreter import run_kernel, run_loops
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_kernel
from effcc.ir.schedule import Hold, Loop, Schedule, nodes
from effcc.ir.verifier import verify_schedule
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.written import bounds
from effcc.target import Target, generic

SMALL = replace(generic("avx512"), l2_bytes=24 << 10, cores=2)
"""A machine whose L2 holds no panel of a long product."""


def linear(m: int, n: int, k: int, dtype: str = "f32") -> Kernel:
    kernel = parse_kernel(f"""
        kernel @linear(A: {dtype}[{m},{k}], W: {dtype}[{n},{k}], B: {dtype}[{n}]) -> (Y: {dtype}[{m},{n}])
            over m={m}, n={n}, k={k} {{
          O[m,n] = sum(k: A[m,k] * W[n,k])
          Y[m,n] = maximum(O[m,n] + B[n], 0.0)
        }}""")
    return replace(kernel, weights=frozenset({"W", "B"}))


def steps(schedule: Schedule) -> list[tuple[str, str, int]]:
    loops = [node for _, node in nodes(schedule.body) if isinstance(node, Loop)]
    return [(x.together or x.kind, x.axis, x.step) for x in loops]


def test_partial_sums_of_a_long_product_rest_in_the_cache() -> None:
    kernel, schedule = choose(linear(20, 70, 900), SMALL)
    verify_schedule(kernel, schedule, bounds(SMALL))
    assert any(isinstance(node, Hold) and node.space == "local" for _, node in nodes(schedule.body))
    ((_, _, depth),) = [x for x in steps(schedule) if x[:2] == ("for", "k") and x[2] > 1]
    assert depth < 900
    random = np.random.default_rng(0)
    arrays = {p.name: random.standard_normal([int(n) for n in p.type.shape]).astype(np.float32) for p in kernel.params}
    np.testing.assert_allclose(
        run_loops(lower(kernel, schedule), arrays)["Y"], run_kernel(kernel, arrays)["Y"], rtol=1e-3, atol=1e-4
    )


ALONE = """
    kernel @product(A: f32[{m},900], W: f32[70,900]) -> (O: f32[{m},70]) over m={m}, n=70, k=900 {{
      O[m,n] = sum(k: A[m,k] * W[n,k])
    }}"""


@pytest.mark.parametrize("rows", [20, 3])
def test_a_product_alone_is_stored_from_there_also_for_rows_known_at_run_time(rows: int) -> None:
    kernel, schedule = choose(replace(parse_kernel(ALONE.format(m="s0")), weights=frozenset({"W"})), SMALL)
    assert any(isinstance(node, Hold) and node.space == "local" for _, node in nodes(schedule.body))
    verify_schedule(kernel, schedule, bounds(SMALL))
    random = np.random.default_rng(0)
    shapes = [tuple(rows if not isinstance(n, int) else n for n in p.type.shape) for p in kernel.params]
    arrays = {p.name: random.standard_normal(s).astype(np.float32) for p, s in zip(kernel.params, shapes, strict=True)}
    nest = lower(kernel, schedule)
    expected = run_kernel(kernel, arrays, {"s0": rows})["O"]
    np.testing.assert_allclose(run_loops(nest, arrays, {"s0": rows})["O"], expected, rtol=1e-3, atol=1e-4)


def test_a_product_that_fits_the_cache_is_not_cut() -> None:
    _, schedule = choose(linear(20, 70, 900), generic("avx512"))
    assert not any(isinstance(node, Hold) and node.space == "local" for _, node in nodes(schedule.body))


@pytest.mark.parametrize("shape", [(20, 70, 900), (64, 64, 1200), (7, 130, 2000)])
def test_what_a_block_touches_fits_the_cache_as_isl_counts_it(shape: tuple[int, int, int]) -> None:
    kernel, schedule = choose(linear(*shape), SMALL)
    found = steps(schedule)
    box = {axis: step for how, axis, step in found if how == "parallel"}
    box |= {"k": next(step for how, axis, step in found if (how, axis) == ("for", "k"))}
    panel = {**box, "n": next(step for how, axis, step in found if (how, axis) == ("lanes", "n"))}

    def touched(index: str, tile: dict[str, int]) -> int:
        axes = ", ".join(tile)
        inside = " and ".join(f"0 <= {a} < {min(t, kernel.extents[a])}" for a, t in tile.items())
        points = isl.Set(f"{{ [{axes}] : {inside} }}").apply(isl.Map(f"{{ [{axes}] -> [{index}] }}"))
        return int(str(points.count_val()))

    bytes = 4 * (touched("m, k", box) + touched("n, k", panel) + touched("m, n", box))
    assert bytes <= SMALL.l2_bytes


@pytest.mark.parametrize("target", [generic("avx512"), generic("avx2")], ids=lambda t: t.name)
def test_f64_fills_the_registers_that_its_lanes_take(target: Target) -> None:
    kernel, schedule = choose(linear(64, 256, 256, "f64"), target)
    verify_schedule(kernel, schedule, bounds(target))
    tile = {how: step for how, _, step in steps(schedule) if how in ("lanes", "unroll")}
    vectors = tile["lanes"] * 8 // target.vector_bytes
    assert target.vector_registers * 2 // 3 <= vectors * (tile["unroll"] + 1) + 1 <= target.vector_registers
