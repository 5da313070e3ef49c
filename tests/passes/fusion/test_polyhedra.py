"""isl's proofs: accesses in bounds, guards where they are not, and dependences that forbid a kernel."""

from __future__ import annotations

import pytest

from effcc.errors import IRTypeError
from effcc.ir.dependences import shared_axes
from effcc.ir.parser import parse_kernel
from effcc.ir.printer import print_kernel
from effcc.passes.fusion.polyhedra import check_dependences, guard_accesses


def guarded(text: str) -> bool:
    kernel = parse_kernel(text)
    return print_kernel(guard_accesses(kernel)) != print_kernel(kernel)


def test_plain_and_shifted_accesses_inside_need_no_guard() -> None:
    assert not guarded("kernel @k(X: f32[8]) -> (Y: f32[6]) over i=6 {\n  Y[i] = X[i + 2]\n}")


def test_an_access_one_too_far_is_guarded() -> None:
    assert guarded("kernel @k(X: f32[8]) -> (Y: f32[7]) over i=7 {\n  Y[i] = X[i + 2]\n}")


def test_a_guard_that_is_there_proves_the_access() -> None:
    text = "kernel @k(X: f32[8]) -> (Y: f32[10]) over i=10 {\n  Y[i] = where(i >= 1 and i < 9, X[i - 1], 0.0)\n}"
    assert not guarded(text)
    assert guarded(text.replace("i < 9", "i < 10"))


def test_divisions_and_remainders_are_understood() -> None:
    assert not guarded("kernel @k(X: f32[4,8]) -> (Y: f32[32]) over i=32 {\n  Y[i] = X[i // 8,i % 8]\n}")
    assert guarded("kernel @k(X: f32[4,8]) -> (Y: f32[40]) over i=40 {\n  Y[i] = X[i // 8,i % 8]\n}")


def test_an_index_from_memory_needs_its_guard() -> None:
    bare = "kernel @k(T: f32[9], I: i64[4]) -> (Y: f32[4]) over i=4 {\n  Y[i] = T[I[i]]\n}"
    assert guarded(bare)
    assert not guarded(bare.replace("T[I[i]]", "where(I[i] >= 0 and I[i] < 9, T[I[i]], 0.0)"))


def test_symbolic_sizes_are_parameters() -> None:
    assert not guarded("kernel @k(X: f32[s0]) -> (Y: f32[s0]) over i=s0 {\n  Y[i] = X[i]\n}")
    assert guarded("kernel @k(X: f32[s0]) -> (Y: f32[s0]) over i=s0 {\n  Y[i] = X[i + 1]\n}")


def test_a_kernel_whose_tiles_depend_on_each_other_is_refused() -> None:
    kernel = parse_kernel(
        "kernel @k(X: f32[8]) -> (Y: f32[8]) over i=8 {\n  T[i] = exp(X[i])\n  Y[i] = T[7 - i] + T[i]\n}"
    )
    assert shared_axes(kernel) == ()
    with pytest.raises(IRTypeError, match="another point of the parallel axes"):
        check_dependences(kernel, ("i",))


def test_a_statement_that_reads_what_comes_later_is_refused() -> None:
    kernel = parse_kernel("kernel @k(X: f32[8]) -> (Y: f32[8]) over i=8 {\n  T[i] = exp(X[i])\n  Y[i] = T[i]\n}")
    swapped = kernel.with_statements(kernel.statements[::-1])
    with pytest.raises(IRTypeError, match="before it is written"):
        check_dependences(swapped, ())


def test_the_greatest_value_of_a_size_proves_a_scatter() -> None:
    text = """kernel @k(I: i64[1,n], S: f32[1,n]) -> (Y: f32[1,275]) over c=1, d=275, i=1, j=n {
      Y[c,d] = 0.0
      Y[where(in_range(I[i,j], 1, 0), I[i,j], -1),j] add= S[i,j] for i, j
    }"""
    kernel = parse_kernel(text)
    guard_accesses(kernel, {"n": (1, 275)})
    for most in (276, None):
        with pytest.raises(IRTypeError, match="cannot prove that the scatter"):
            guard_accesses(kernel, {"n": (1, most)})
