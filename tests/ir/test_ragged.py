"""Ragged axes: their text, what is refused of them, and what they mean."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.errors import EffccError, ScheduleError
from effcc.ir.dependences import shared_axes
from effcc.ir.interpreter import run_kernel
from effcc.ir.parser import parse_kernel, parse_schedule
from effcc.ir.printer import print_any
from effcc.ir.verifier import verify_any
from effcc.ir.verifier.schedules import verify_schedule

HEAD = "kernel @k(P: i64[4], V: f32[z], X: f32[z,5]) -> (Y: f32[3,5]) over i=3, f=5, j=z {\n  "


def test_text_comes_back_as_it_was() -> None:
    text = HEAD + "Y[i,f] = sum(j in P[i]..where(P[i + 1] < 2, P[i + 1], 2): V[j] * X[j,f])\n}"
    kernel = parse_kernel(text)
    verify_any(kernel)
    assert print_any(kernel) == text
    assert list(kernel.spans) == ["j"]


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("Y[i,f] = exp(j in P[i]..P[i + 1])", "only a reduction takes an axis with its span"),
        ("Y[i,f] = sum(k in P[i]..P[i + 1]: V[0])", "must be names of the kernel's axes"),
        ("Y[i,f] = sum(j in P[j]..P[i + 1]: X[j,f])", "axis 'j' has no value here"),
        ("Y[i,f] = sum(j in V[0]..P[i + 1]: X[j,f])", "the span of 'j' must be i64, got f32"),
        ("Y[i,f] = sum(j in P[i]..P[i + 1], j: X[j,f])", "binds an axis twice"),
        (
            "A[i,f] = sum(j in P[i]..P[i + 1]: X[j,f])\n  Y[i,f] = sum(j in P[i]..P[3]: X[j,f]) + A[i,f]",
            "'j' has another span here",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(statement: str, error: str) -> None:
    with pytest.raises(EffccError, match=error):
        verify_any(parse_kernel(HEAD + statement + "\n}"))


@pytest.mark.parametrize(("operator", "identity"), [("sum", 0.0), ("max", -np.inf), ("prod", 1.0)])
def test_a_reduction_ranges_over_its_span(operator: str, identity: float) -> None:
    kernel = parse_kernel(HEAD + f"Y[i,f] = {operator}(j in P[i]..P[i + 1]: X[j,f])\n}}")
    x = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    found = run_kernel(kernel, {"P": np.array([0, 4, 4, 9]), "V": np.zeros(6, np.float32), "X": x})["Y"]
    fold = {"sum": np.sum, "max": np.max, "prod": np.prod}[operator]
    np.testing.assert_allclose(found[0], fold(x[:4], axis=0), rtol=1e-6)
    assert (found[1] == identity).all()
    np.testing.assert_allclose(found[2], fold(x[4:], axis=0), rtol=1e-6)  # what lies outside of the axis is left out


KEPT = """\
kernel @k(P: i64[4], X: f32[z,5], W: f32[3,5,2]) -> (Y: f32[z,2]) over g=3, j=z, n=2, k=5, r=z {
  T[g,j,n] = sum(k: X[j,k] * W[g,k,n])
  Y[j,n] set= T[g,j,n] for g, j in P[g]..P[g + 1], n
  Y[r,n] set= 0.0 for r in P[3]..z, n
}"""


def test_a_kept_ragged_axis_writes_what_lies_in_its_spans() -> None:
    kernel = parse_kernel(KEPT)
    verify_any(kernel)
    assert print_any(kernel) == KEPT
    assert list(kernel.spans) == ["j", "r"]
    random = np.random.default_rng(0)
    x, w = random.standard_normal((6, 5)).astype(np.float32), random.standard_normal((3, 5, 2)).astype(np.float32)
    found = run_kernel(kernel, {"P": np.array([0, 2, 2, 5]), "X": x, "W": w})["Y"]
    np.testing.assert_allclose(found, np.concatenate([x[:2] @ w[0], x[2:5] @ w[2], np.zeros((1, 2))]), rtol=1e-5)


@pytest.mark.parametrize(
    ("written", "axes"),
    [
        ("j in P[g]..P[g + 1]", ("g", "n")),
        ("j in where(in_range(P[g], 7, 0), P[g], 0)..where(in_range(P[g + 1], 7, 1), P[g + 1], 0)", ("g", "n")),
        ("j in P[g]..P[g + 2]", ("n",)),
        ("j in P[g]..P[g] + 1", ("n",)),
        ("j in P[2 - g]..P[3 - g]", ("n",)),
        ("j in where(P[g] < 2, P[g], 0)..P[g + 1]", ("n",)),
    ],
)
def test_spans_one_after_another_are_apart(written: str, axes: tuple[str, ...]) -> None:
    kernel = parse_kernel(KEPT.replace("j in P[g]..P[g + 1]", written))
    assert shared_axes(kernel.with_statements(kernel.statements[:2])) == axes


def test_a_span_is_of_an_index() -> None:
    with pytest.raises(EffccError, match="'j' ranges over a span, so it must be an index by itself, once"):
        parse_kernel(KEPT.replace("Y[j,n] set=", "Y[j + 1,n] set="))


@pytest.mark.parametrize(
    ("loops", "error"),
    [
        ("for i by 2 unroll, f by 5 lanes { hold Y in registers { for j by 1 { do Y } } }", "read at a point of i"),
        ("for f by 1, i by 3 lanes { hold Y in registers { for j by 1 { do Y } } }", "read at a point of i"),
    ],
)
def test_a_schedule_reads_a_span_at_one_point(loops: str, error: str) -> None:
    kernel = parse_kernel(HEAD + "Y[i,f] = sum(j in P[i]..P[i + 1]: X[j,f])\n}")
    with pytest.raises(ScheduleError, match=error):
        verify_schedule(kernel, parse_schedule(f"schedule @k {{ {loops} }}").schedule)


def test_statements_over_other_points_have_loops_of_their_own() -> None:
    text = """
        kernel @k(P: i64[4], X: f32[z]) -> (Y: f32[3], Z: f32[3]) over i=3, j=z {
          Y[i] = sum(j in P[i]..P[i + 1]: X[j])
          Z[i] = sum(j: X[j])
        }
    """
    kernel = parse_kernel(text)
    both = "parallel i by 1 { hold Y, Z in registers { for j by 1 { do Y do Z } } }"
    with pytest.raises(ScheduleError, match="Y, Z run over other points of j"):
        verify_schedule(kernel, parse_schedule(f"schedule @k {{ {both} }}").schedule)
    each = " ".join(f"hold {t} in registers {{ for j by 1 {{ do {t} }} }}" for t in "YZ")
    verify_schedule(kernel, parse_schedule(f"schedule @k {{ parallel i by 1 {{ {each} }} }}").schedule)
