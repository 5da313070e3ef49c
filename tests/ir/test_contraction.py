"""A contraction is recognised once, from what its factors load; everything later reads its axes and operands."""

from __future__ import annotations

import pytest

from effcc.ir.contraction import Contraction, contraction, contraction_of_tile, contractions
from effcc.ir.dtypes import f16
from effcc.ir.kernel import Kernel
from effcc.ir.loops import For, Tile
from effcc.ir.parser import parse_kernel, parse_loops

OPERANDS = "A: f32[2,4,8], B: f32[2,8,6], Q: i8[6,8], S: f32[6], T: f32[9,8], I: i64[4], V: f32[8]"


def kernel(statement: str, kept: str = "b,m,n") -> Kernel:
    shape = ",".join({"b": "2", "m": "4", "n": "6"}[a] for a in kept.split(","))
    text = f"kernel @k({OPERANDS}) -> (C: f32[{shape}]) over b=2, m=4, n=6, k=8 {{ C[{kept}] = {statement} }}"
    return parse_kernel(text)


def found(statement: str, kept: str = "b,m,n", weights: frozenset[str] = frozenset()) -> Contraction:
    one = contraction(kernel(statement, kept).statements[0], weights)
    assert one is not None
    return one


@pytest.mark.parametrize(
    ("statement", "kept", "text"),
    [
        ("sum(k: A[b,m,k] * B[b,k,n])", "b,m,n", "C[b,m,n] = sum(k: A * B)"),
        ("sum(k: B[b,k,n] * A[b,m,k])", "b,m,n", "C[b,n,m] = sum(k: B * A)"),
        ("sum(k: A[0,m,k] * (cast<f32>(Q[n,k]) * S[n]))", "m,n", "C[m,n] = sum(k: A * S), S constant"),
        ("sum(k: T[I[m],k] * B[0,k,n])", "m,n", "C[m,n] = sum(k: T * B)"),
        ("sum(b, k: A[b,m,k] * B[b,k,n])", "m,n", "C[m,n] = sum(b,k: A * B)"),
    ],
)
def test_its_axes_and_operands_are_read_off(statement: str, kept: str, text: str) -> None:
    assert str(found(statement, kept, frozenset({"Q", "S"}))) == text


@pytest.mark.parametrize(
    "statement",
    [
        "max(k: A[b,m,k] * B[b,k,n])",
        "sum(k: A[b,m,k] + B[b,k,n])",
        "sum(k: A[b,m,k] * V[k])",
        "sum(k: A[b,m,k] * A[b,m,k])",
        "sum(k: A[b,m,k] * 2.0)",
        "exp(A[b,m,0] * B[b,0,n])",
    ],
)
def test_what_is_no_contraction(statement: str) -> None:
    assert contractions(kernel(statement)) == {}


def test_what_decodes_an_operand_stands_before_its_data() -> None:
    one = found("sum(k: A[0,m,k] * (S[n] * cast<f32>(Q[n,k])))", "m,n")
    assert [x.buffer for x in one.right.loads] == ["S", "Q"] and one.right.data.buffer == "Q"
    assert not one.right.constant


def test_rows_gathered_at_run_time_are_a_contraction_but_not_in_place() -> None:
    gathered = found("sum(k: T[I[m],k] * B[0,k,n])", "m,n")
    assert gathered.left.gathered and not gathered.in_place
    assert found("sum(k: A[b,m,k] * B[b,k,n])").in_place


def test_a_factor_gathered_along_the_others_columns_has_no_outer_products() -> None:
    one = found("sum(k: A[0,m,I[n % 4]] * B[0,k,n])", "m,n")
    assert (one.rows, one.columns) == (("m",), ("n",)) and one.in_place
    assert not one.is_outer and not one.is_block_product


def test_a_mask_on_another_axis_keeps_it_from_being_a_matrix_product() -> None:
    assert found("sum(k: A[b,m,k] * B[b,k,n])").is_block_product
    assert not found("sum(k: where(n <= m, A[b,m,k], 0.0) * B[b,k,n])").is_block_product


def test_a_tile_of_a_contraction_is_recognised_by_its_own_axes() -> None:
    nest = parse_loops("""
        loops @k(A: f16[64,128], B: f32[128,32]) -> (O: f32[64,32]) {
          parallel m0 in 0..64 step 16 {
            alloc acc: f32[16,32] in register
            tile m=16 unroll, n=32 lanes: acc[m,n] = 0.0
            for k0 in 0..128 step 32 {
              tile m=16 unroll, n=32 lanes, k=32 unroll:
                acc[m,n] add= cast<f32>(where(m0 + m < 60, A[m0 + m,k0 + k], 0.0)) * B[k0 + k,n]
            }
            tile m=16 unroll, n=32 lanes: O[m0 + m,n] = acc[m,n]
          }
        }""")
    (loop,) = nest.body
    assert isinstance(loop, For)
    _, begin, turns, end = loop.body
    assert isinstance(turns, For) and isinstance(begin, Tile) and isinstance(end, Tile)
    (step,) = turns.body
    assert isinstance(step, Tile)
    one = contraction_of_tile(step)
    assert one is not None
    assert (one.rows, one.columns, one.depth, one.batch) == (("m",), ("n",), ("k",), ())
    assert one.is_block_product
    assert one.left.unwidened.dtype == f16
    assert one.turned.rows == one.columns and one.turned.left == one.right
    assert contraction_of_tile(begin) is None and contraction_of_tile(end) is None
