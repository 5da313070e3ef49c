"""The vector language: text and back, what its verifier refuses, what its interpreter computes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effcc.errors import EffccError, InputError, IRSyntaxError, IRTypeError
from effcc.ir.dims import symbol
from effcc.ir.dtypes import boolean, f32, f64, i32, i64, u8
from effcc.ir.interpreter import run_vectors
from effcc.ir.parser import parse_vectors
from effcc.ir.printer import print_vectors
from effcc.ir.sharing import is_all_shared
from effcc.ir.vectors import (
    Affine,
    Assign,
    Branch,
    Broadcast,
    Call,
    Convert,
    Fma,
    Function,
    Iota,
    Lane,
    Let,
    Line,
    Literal,
    Load,
    Loop,
    Parameter,
    Place,
    Reduce,
    Registers,
    Select,
    Share,
    Store,
    Type,
    Value,
    Var,
    value_type,
)  # fmt: skip
from effcc.ir.vectors import (
    Any as AnyLane,
)
from effcc.ir.verifier import verify_vectors

SCALE = """vectors @scale(X: f32 read, O: f32; s0) {
  share at in [(s0)] because "rows" {
    registers f32x4 total_0, total_1 = broadcast<f32x4>(f32(0.0))
    loop k in [0]..[8] step 8 {
      let v: f32x4 = load<f32x4>(X[8*at + k])
      set total_0 = fma(v, v, total_0)
      set total_1 = fma(load<f32x4>(X[8*at + k + 4]), f32x4(2.0), total_1)
    }
    do store(O[at], reduce<add>(add(total_0, total_1)))
  }
}"""


def test_the_text_of_a_function_reads_back_as_it() -> None:
    function = parse_vectors(SCALE)
    verify_vectors(function)
    assert print_vectors(function) == SCALE


@pytest.mark.parametrize("team", [1, 2, 5])
def test_every_row_is_some_threads(team: int) -> None:
    x = np.arange(24, dtype=np.float32).reshape(3, 8)
    o = np.full(3, np.nan, np.float32)
    run_vectors(parse_vectors(SCALE), {"X": x, "O": o}, {"s0": 3}, team)
    np.testing.assert_array_equal(o, (x[:, :4] ** 2).sum(1) + 2 * x[:, 4:].sum(1))


# Random functions

LANES = 4
TYPES = [value_type(d, n, d.bytes) for d in (f32, f64, i32, i64) for n in (1, LANES)]
NUMBERS = {
    True: st.floats(allow_nan=True, width=32), False: st.integers(-(1 << 31), (1 << 31) - 1),
}  # fmt: skip
SIZE = symbol("s0")
AFFINES = st.builds(
    Affine,
    st.lists(
        st.tuples(st.sampled_from(["k", "at"]), st.sampled_from([1, -1, 7, -32, SIZE, 2 * SIZE + 1])),
        max_size=2, unique_by=lambda term: term[0],
    ).map(tuple),
    st.sampled_from([0, 5, -5, SIZE, 3 * SIZE - 1]),
)  # fmt: skip


def truth(type: Type) -> Type:
    return value_type(boolean, type.lanes, type.dtype.bytes)


@st.composite
def values(draw: st.DrawFn, type: Type, depth: int = 3) -> Value:
    """A value of a type, over the loop variables k and at, and the registers r<dtype> and v<dtype>."""
    if type.dtype == boolean:
        of = draw(st.sampled_from([t for t in TYPES if truth(t) == type]))
        return Call(draw(st.sampled_from(["lt", "ge", "ne"])), (draw(values(of, 0)), draw(values(of, 0))), type)
    leaves: list[st.SearchStrategy[Any]] = [
        st.builds(Literal, NUMBERS[type.dtype.is_float], st.just(type)),
        st.just(Var(f"{'v' if type.lanes > 1 else 'r'}_{type.dtype}", type)),
        st.builds(Load, st.builds(Place, st.just(f"B_{type.dtype}"), st.just(type.dtype), AFFINES), st.just(type)),
    ]
    if type == value_type(i64):
        leaves.append(AFFINES)
    if depth == 0:
        return draw(st.one_of(leaves))
    inner = values(type, depth - 1)
    alike = [t for t in TYPES if t.lanes == type.lanes]
    more: list[st.SearchStrategy[Any]] = [
        st.builds(Call, st.sampled_from(["add", "mul", "maximum"]), st.tuples(inner, inner), st.just(type)),
        st.builds(Select, values(truth(type), 0), inner, inner),
        st.builds(Convert, values(draw(st.sampled_from(alike)), 0), st.just(type)),
    ]
    if type.dtype.is_float:
        more.append(st.builds(Fma, inner, inner, inner))
    if type.lanes > 1:
        more.append(st.builds(Broadcast, values(type.element, depth - 1), st.just(type)))
        if type.dtype.is_integer:
            more.append(st.builds(Iota, values(type.element, 0), st.just(type)))
    else:
        wide = value_type(type.dtype, LANES)
        more.append(st.builds(Lane, values(wide, depth - 1), st.integers(0, LANES - 1)))
        more.append(st.builds(Reduce, st.sampled_from(["add", "maximum"]), values(wide, depth - 1)))
    return draw(st.one_of(*leaves, *more))


@st.composite
def functions(draw: st.DrawFn) -> Function:
    """Some statements in a loop in a share, over buffers of every dtype."""
    body: list[Line] = []
    for n in range(draw(st.integers(1, 4))):
        type = draw(st.sampled_from(TYPES))
        value = draw(values(type))
        name = f"{'v' if type.lanes > 1 else 'r'}_{type.dtype}"
        place = Place(f"B_{type.dtype}", type.dtype, draw(AFFINES))
        mask = draw(st.none() | values(truth(type), 0)) if type.lanes > 1 else None
        count = draw(st.none() | AFFINES) if type.lanes > 1 and mask is None else None
        store = Store(place, value, draw(st.sampled_from([1, 3, SIZE])) if type.lanes > 1 else 1, None, mask, count)
        condition = AnyLane(draw(values(value_type(boolean, LANES, 4), 0)))
        body += draw(st.sampled_from([
            [Let(f"x_{n}", value), store], [Assign(name, value)], [Branch(condition, (store,), (Assign(name, value),))],
        ]))  # fmt: skip
    start: list[Line] = [Registers(t, (f"{'v' if t.lanes > 1 else 'r'}_{t.dtype}",)) for t in TYPES]
    loop = Loop("k", Affine(), draw(AFFINES.filter(lambda a: not a.terms)), draw(st.integers(1, 9)), tuple(body))
    share = Share("at", Affine(constant=2), (*start, loop))
    buffers = tuple(Parameter(f"B_{d}", d, f"B_{d}'") for d in (f32, f64, i32, i64))
    return Function("random", buffers, (("s0", "s0"),), (share,), notes=('a "note"',))


@given(functions())
def test_text_and_back_is_the_identity(function: Function) -> None:
    verify_vectors(function)
    assert parse_vectors(print_vectors(function)) == function


# What is refused


def body(text: str) -> str:
    return f"vectors @f(X: f32 read, H: bf16, I: i64 read, O: f32;) {{ {text} }}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("do store(O[0], add(f32(1.0), f32x4(1.0)))", "the operands of add must have one type, got f32, f32x4"),
        ("do store(O[0], x)", "unknown name 'x'"),
        ("do store(P[0], f32(1.0))", "unknown buffer 'P'"),
        ("do store(O[k], f32(1.0))", "unknown name 'k'"),
        ("let x: f32x4 = f32(1.0)", "x is said to be f32x4, but its value is f32"),
        ("let x: f32x3 = f32(1.0)", "lanes are a power of two"),
        ("do store(O[0], exp(i32(1)))", "exp takes floats, got i32"),
        ("do store(O[0], foo(f32(1.0)))", "unknown scalar function 'foo'"),
        ("do store(O[0], 1.0)", "a number says its type"),
        ("do store(O[0], i32(1.5))", "expected a number of i32, got 1.5"),
        ("do move(O[0], f32(1.0))", "expected one of store"),
        ("do prefetch<3>(O[0])", "expected one of store"),
    ],
)
def test_text_without_a_meaning_is_refused_where_it_stands(text: str, message: str) -> None:
    with pytest.raises(EffccError, match=message) as error:
        parse_vectors(body(text))
    assert "<text>:1:" in str(error.value) and "^" in str(error.value)


def test_a_syntax_error_says_what_was_expected() -> None:
    with pytest.raises(IRSyntaxError, match="unexpected"):
        parse_vectors(body("let x f32 = f32(1.0)"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("do store(X[0], f32(1.0))", "buffer 'X' is only read"),
        ("do store(H[0], i32(1))", "elements of bf16 are values of f32, got i32"),
        ("let x: f32 = f32(1.0) let x: f32 = f32(2.0)", "'x' is defined twice"),
        ("let x: f32 = f32(1.0) set x = f32(2.0)", "'x' is no register in scope"),
        ("registers f32 x set x = f64(2.0)", "register 'x' is f32, got f64"),
        ("if [0] { barrier }", "expected bool, got i64"),
        ("loop k in [0]..[4] step 1 { let y: f32 = f32(1.0) } do store(O[0], f32(1.0), count=f32(1.0))",
         "expected i64, got f32"),
        ("do store(O[0], f32x4(1.0), mask=mask64x8(true))", "f32x4 is masked by mask64x8"),
        ("do store(O[0], f32x4(1.0), mask=mask32x4(true), count=[2])", "by a mask or by a count, not both"),
        ("do store(O[0], lane<4>(f32x4(1.0)))", "f32x4 has no lane 4"),
        ("do store(O[0], select(mask64x4(true), f32x4(1.0), f32x4(2.0)))", "mask64x4 selects among f32x4"),
        ("do store(O[0], fma(f32(1.0), f32(1.0), f64(1.0)))", "fma of f32, f32 and f64"),
        ("let d: i32x4 = dot(i8x16(1), i8x8(1), i32x4(0))", "4 packed lanes make one of the sum's"),
        ("let d: i32x4 = dot(i8x16(1), u8x16(1), i32x4(0))", "no dot product of i8x16 with u8x16"),
        ("share at in [4] { barrier }", "threads cannot meet in a share"),
        ("do store(O[(s1)], f32(1.0))", "size 's1' is none of the function's"),
        ("array t: f32[0]", "array 't' has 0 elements"),
        ("let x: f32x4 = round<i32>(f32x4(1.0))", "f32x4 is not rounded to i32"),
    ],
)  # fmt: skip
def test_the_verifier_refuses_what_has_no_meaning(text: str, message: str) -> None:
    function = parse_vectors(body(text))
    with pytest.raises(IRTypeError, match=message):
        verify_vectors(function)


# What nodes mean


def computed(text: str, dtype: Any = np.float32, **arrays: Any) -> Any:
    """The 8 elements of O after a function, from 0 where nothing is written."""
    name = "f32" if dtype == np.float32 else np.dtype(dtype).name.replace("int", "i")
    o = np.zeros(8, dtype)
    x = np.arange(1, 9, dtype=np.float32)
    function = parse_vectors(f"vectors @f(X: f32 read, B: i8 read, H: bf16, O: {name};) {{ {text} }}")
    verify_vectors(function)
    given_ = {"X": x, "B": np.arange(-8, 24, dtype=np.int8), "H": np.zeros(4, ml_dtypes.bfloat16), "O": o, **arrays}
    failed = run_vectors(function, given_)
    return failed or o


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("do store(O[0], load<f32x4>(X[1]))", [2, 3, 4, 5]),
        ("do store(O[0], load<f32x4>(X[0], stride=[2]))", [1, 3, 5, 7]),
        ("do store(O[0], load<f32x4>(X[6], count=[2]))", [7, 8, 0, 0]),
        ("do store(O[0], load<f32x4>(X[0], index=iota<i64x4>([4])))", [5, 6, 7, 8]),
        ("do store(O[0], load<f32x4>(X[6], mask=lanes<mask32x4>([1])))", [7, 0, 0, 0]),
        ("do store(O[1], load<f32x4>(X[0]), count=[2])", [0, 1, 2]),
        ("do store(O[0], load<f32x4>(X[0]), stride=[2])", [1, 0, 2, 0, 3, 0, 4]),
        ("do store(O[0], load<f32x4>(X[0]), index=i32x4(5))", [0, 0, 0, 0, 0, 4]),
        ("do store(O[0], load<f32x4>(X[0]), index=i32x4(5), fold=add)", [0, 0, 0, 0, 0, 10]),
        ("do store(O[0], reduce<maximum>(load<f32x4>(X[0])))", [4]),
        ("do store(O[0], permute(load<f32x4>(X[0]), i32(3), i32(0), i32(0), i32(1)))", [4, 1, 1, 2]),
        ("do store(O[0], lookup(load<f32x4>(X[0]), iota<i32x4>(i32(2))))", [3, 4, 1, 2]),
        ("do store(O[0], lookup(f32x2(7.0), load<f32x2>(X[0]), convert<u8x8>(iota<i32x8>(i32(2))), i32(2), i32(1)))",
         [1, 1]),
        ("registers f32x4 r do put<2>(r, f32(9.0)) do store(O[0], r)", [0, 0, 9]),
        ("do store_rows(O[0], f32x4(1.0), f32x4(2.0), f32x4(3.0), f32x4(4.0), stride=[4], count=[2])",
         [1, 2, 3, 4, 1, 2, 3, 4]),
        ("let a: f32x8 = load<f32x8>(X[0]) do store_rows(O[0], a, a, a, a, a, a, a, a, stride=[8], count=[1])",
         [1] * 8),
        ("do store_rows(H[0], f32x4(1.005), f32x4(3.0), stride=[2], count=[1]) do store(O[0], load<f32x2>(H[0]))",
         [1.0078125, 3]),
        ("do store(H[0], f32(1.005)) do store(O[0], load<f32>(H[0]))", [1.0078125]),
        ("do store(O[0], convert<f32>(saturate([9000000000])))", [1 << 30]),
        ("do store(O[0], select(lt(load<f32x4>(X[0]), f32x4(3.0)), f32x4(1.0), f32x4(0.0)))", [1, 1]),
        ("if every(bool(false), gt(load<f32>(X[99]), f32(0.0))) { do store(O[0], f32(1.0)) }", [0]),
    ],
)  # fmt: skip
def test_nodes_mean_what_their_documentation_says(text: str, want: list[float]) -> None:
    np.testing.assert_array_equal(computed(text), [*want, *[0] * (8 - len(want))])


def test_dots_sum_packed_neighbours() -> None:
    text = "do store(O[0], dot(load<i8x32>(B[0]), load<i8x32>(B[0]), i32x8(1)))"
    b = np.arange(-8, 24).reshape(8, 4)
    np.testing.assert_array_equal(computed(text, np.int32), (b * b).sum(1) + 1)


def test_sums_of_numbers_wrap_around() -> None:
    text = "let a: i64 = load<i64>(L[0]) do store(O[0], [a + a + 1])"
    function = parse_vectors(f"vectors @f(L: i64 read, O: i64;) {{ {text} }}")
    o = np.zeros(1, np.int64)
    run_vectors(function, {"L": np.array([2**62], np.int64), "O": o})
    assert o[0] == -(2**63) + 1


def test_what_lies_outside_a_buffer_is_an_error() -> None:
    with pytest.raises(InputError, match=r"X\[9\]: the buffer has 8 elements"):
        computed("do store(O[0], load<f32x4>(X[6]))")


def test_checks_that_fail_are_told() -> None:
    text = "do check<3>(gt(load<f32x4>(X[0]), f32x4(2.0)), iota<i64x4>([5]), [7])"
    assert computed(text) == [(3, 7, 7), (3, 8, 7)]


def test_there_is_one_object_for_each_type() -> None:
    import copy
    import pickle

    kind = value_type(u8, 16)
    assert pickle.loads(pickle.dumps(kind)) is kind and copy.deepcopy(kind) is kind
    assert pickle.loads(pickle.dumps(u8)) is u8


@pytest.mark.parametrize(
    ("body", "shared"),
    [
        ("share at in [s0] { do store(O[at], load<f32>(X[at])) } barrier", True),
        ("if first() { do store(O[0], load<f32>(X[0])) } barrier", True),
        ("loop k in [0]..[s0] step 1 { share at in [4] { do store(O[at], f32(0.0)) } barrier }", True),
        ("do store(O[0], f32(0.0))", False),
        ("let n: i64 = load<i64>(N[0]) share at in n { do store(O[at], f32(0.0)) }", False),
        ("loop k in [0]..load<i64>(N[0]) step 1 { barrier }", False),
    ],
)
def test_what_a_late_thread_may_pass_is_what_touches_memory_in_shares_alone(body: str, shared: bool) -> None:
    function = parse_vectors(f"vectors @f(X: f32 read, N: i64 read, O: f32; s0) {{ {body} }}")
    assert is_all_shared(function) == shared
