"""Long sums are cut where an accumulator would collect too many rounding errors, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effcc.codegen.lower import lower
from effcc.ir.dtypes import f64
from effcc.ir.interpreter import run_kernel, run_loops
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_kernel
from effcc.ir.schedule import Hold, nodes
from effcc.passes.tiling.build import TiledAxis
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.chunk import PRODUCT, chunk_of
from effcc.target import generic


def summing(operator: str = "sum", dtype: str = "f32") -> Kernel:
    return parse_kernel(
        f"kernel @k(X: {dtype}[8,40,50]) -> (Y: {dtype}[8]) over i=8, r=40, s=50 {{\n"
        f"  Y[i] = {operator}(r, s: X[i,r,s])\n}}"
    )


@given(r=st.integers(1, 3000), s=st.integers(1, 3000), longest=st.sampled_from([64, 256]))
def test_no_accumulator_sums_more_than_half_as_much_again_as_the_limit(r: int, s: int, longest: int) -> None:
    cut = chunk_of(summing(), [0], ("r", "s"), {"r": r, "s": s}, longest)
    terms = r * s if cut is None else cut.tile * (s if cut.axis == "r" else 1)
    assert terms <= longest * 3 // 2
    assert cut is None or terms > longest // 4 or cut.tile == r


def test_a_chunk_leaves_no_rest_where_one_of_about_its_length_does() -> None:
    assert chunk_of(summing(), [0], ("r",), {"r": 3072}, PRODUCT) == TiledAxis("r", 256)
    assert chunk_of(summing(), [0], ("r",), {"r": 1000}, PRODUCT) == TiledAxis("r", 250)
    assert chunk_of(summing(), [0], ("r",), {"r": 384}, PRODUCT) is None


def test_lanes_of_a_sum_collect_their_own_terms() -> None:
    assert chunk_of(summing(), [0], ("r",), {"r": 64 * 90}, 64, lanes=64) is None
    assert chunk_of(summing(), [0], ("r",), {"r": 64 * 128}, 64, lanes=64) == TiledAxis("r", 64 * 64)


@pytest.mark.parametrize(("operator", "dtype"), [("max", "f32"), ("sum", "i64")])
def test_what_has_no_rounding_errors_stays_whole(operator: str, dtype: str) -> None:
    assert chunk_of(summing(operator, dtype), [0], ("r",), {"r": 1 << 20}, 64) is None


PRODUCT_OVER_TWO_AXES = """
    kernel @k(A: f32[3,{r},5], B: f32[5,{r},17]) -> (C: f32[3,17]) over m=3, n=17, r={r}, s=5 {{
      C[m,n] = sum(r, s: A[m,r,s] * B[s,r,n])
    }}
"""
COLUMN_SUM = "kernel @k(X: f32[{r},40]) -> (Y: f32[40]) over r={r}, i=40 {{\n  Y[i] = sum(r: X[r,i])\n}}"
ROW_SUM = "kernel @k(X: f32[3,{r}]) -> (Y: f32[3]) over i=3, r={r} {{\n  Y[i] = sum(r: X[i,r])\n}}"


@pytest.mark.parametrize("text", [PRODUCT_OVER_TWO_AXES, COLUMN_SUM, ROW_SUM], ids=["product", "columns", "rows"])
@pytest.mark.parametrize("length", [200, 203, 5000])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_chunks_add_up_to_the_sum(text: str, length: int, dynamic: bool) -> None:
    if length == 5000 and text is PRODUCT_OVER_TWO_AXES:
        pytest.skip("the interpreter would take minutes")
    kernel = parse_kernel(text.format(r="s0" if dynamic else length))
    _, schedule = choose(kernel, generic("avx512"))
    nest = lower(kernel, schedule)
    random = np.random.default_rng(0)
    shapes = [[length if d == "s0" or not isinstance(d, int) else d for d in p.type.shape] for p in kernel.params]
    arrays = {p.name: random.standard_normal(s).astype(np.float32) for p, s in zip(kernel.params, shapes, strict=True)}
    sizes = {"s0": length} if dynamic else {}
    (result,) = run_loops(nest, arrays, sizes).values()
    (wanted,) = run_kernel(kernel, arrays, sizes, dtype=f64).values()
    np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-4)
    if text is not ROW_SUM:  # whose vectors collect few terms for each lane
        holds = [target for _, node in nodes(schedule.body) if isinstance(node, Hold) for target in node.targets]
        assert len(holds) == 2  # the accumulators of a chunk, and the total that they join
