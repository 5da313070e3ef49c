"""What rows see of keys: bounds are compared with all points of small boxes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effcc.ir.dtypes import boolean, i64
from effcc.ir.expr import Axis, Call, Const, Expr, Load
from effcc.ir.kernel import Kernel
from effcc.ir.masks import Mask, bound_of, mask_of, mean_seen, seen_by_all, seen_by_any
from effcc.ir.parser import parse_kernel


def attention(score: str, weights: str = "P[m,n]", more: str = "") -> Kernel:
    outputs = ", D: f32[8]" if more else ""
    return parse_kernel(f"""
        kernel @k(S: f32[8,12], B: f32[8,12], I: i64[], V: f32[12]) -> (O: f32[8]{outputs}) over m=8, n=12 {{
          M[m] = max(n: {score})
          P[m,n] = exp({score} - where(M[m] == -inf, 0.0, M[m]))
          O[m] = sum(n: {weights} * V[n]) rescale where(M'[m] == M[m], 1.0, exp(M'[m] - M[m]))
          {more}
        }}""")


@pytest.mark.parametrize(
    ("score", "conditions"),
    [
        ("where(n <= m, S[m,n], -inf)", 1),
        ("where(n > m, -inf, S[m,n])", 1),
        ("S[m,n] * 0.5 + where(n <= m and n > sub(m, 3), 0.0, -inf)", 2),
        ("where(n <= I[], S[m,n], -inf)", 1),
        ("S[m,n] + where(2 * n < m + 5, B[m,n], -inf)", 1),
        ("where(n <= m, S[m,n], -1e30)", 0),
        ("where(S[m,n] < 0.0, S[m,n], -inf)", 0),
        ("where(n <= m, S[m,n], -inf) * 0.5", 0),
    ],
)
def test_conditions_of_positions_are_found_where_scores_are_lost_without_them(score: str, conditions: int) -> None:
    found = mask_of(attention(score))
    assert (0 if found is None else len(found.bounds)) == conditions


def test_a_sum_that_needs_all_points_leaves_no_mask() -> None:
    seen = "where(n <= m, S[m,n], -inf)"
    assert mask_of(attention(seen)) is not None
    assert mask_of(attention(seen, more="D[m] = sum(n: S[m,n])")) is None


def value(e: Expr, position: int) -> int:
    match e:
        case Const(v):
            return int(v)
        case Load():
            return position
        case Call("add", (a, b)):
            return value(a, position) + value(b, position)
        case Call("mul", (a, b)):
            return value(a, position) * value(b, position)
        case Call("floordiv", (a, b)):
            return value(a, position) // value(b, position)
    raise AssertionError(e)


steps, starts, sizes = st.integers(-3, 3), st.integers(0, 6), st.integers(1, 5)
comparisons = st.tuples(st.sampled_from(["le", "lt", "ge", "gt"]), steps.filter(bool), steps, st.integers(-9, 9))


@given(st.lists(comparisons, min_size=1, max_size=3), starts, sizes, st.integers(-4, 9))
def test_bounds_are_those_of_all_points(
    conditions: list[tuple[str, int, int, int]], start: int, count: int, position: int
) -> None:
    """`own * n <= step * m + constant + I`, over a box of rows: exact for one condition, a hull for several."""

    def written(function: str, own: int, step: int, constant: int) -> Expr:
        n, m = (Call("mul", (Axis(a), Const(c, i64)), i64) for a, c in (("n", own), ("m", step)))
        right = Call("add", (Call("add", (m, Const(constant, i64)), i64), Load("I", (), i64)), i64)
        return Call(function, (n, right), boolean)

    holds = {"le": int.__le__, "lt": int.__lt__, "ge": int.__ge__, "gt": int.__gt__}
    bounds = [bound_of(written(*c), "n") for c in conditions]
    assert all(bounds)
    mask = Mask("n", frozenset(), tuple(b for b in bounds if b is not None))
    rows, keys = range(start, start + count), range(-60, 60)

    def sees(m: int, n: int) -> bool:
        return all(holds[f](own * n, step * m + c + position) for f, own, step, c in conditions)

    box = {"m": (Const(rows[0], i64), Const(rows[-1], i64))}
    for ends, many in ((seen_by_any, any), (seen_by_all, all)):
        firsts, lasts = ([value(e, position) for e in side] for side in ends(mask, box))
        between = {n for n in keys if all(n >= f for f in firsts) and all(n <= x for x in lasts)}
        wanted = {n for n in keys if many(sees(m, n) for m in rows)}
        assert between >= wanted
        if many is all or len(conditions) == 1:
            assert between == wanted


def test_rows_of_a_causal_mask_see_half_of_the_keys() -> None:
    kernel = attention("where(n <= m, S[m,n], -inf)")
    mask = mask_of(kernel)
    assert mask is not None
    assert mean_seen(kernel, mask, "m") == sum(range(1, 9)) / 8
    data = attention("where(n <= I[], S[m,n], -inf)")
    mask = mask_of(data)
    assert mask is not None
    assert mean_seen(data, mask, "m") is None
