"""Kernels that differ in numbers alone, and run once, are one text; what it computes is what each of them did."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from effcc.codegen.cpp.lifted import MOST_NUMBERS, lift_numbers, lift_sizes
from effcc.codegen.cpp.units import kernel_unit
from effcc.codegen.cpp.vectorize import vectorize
from effcc.codegen.lower import lower
from effcc.ir.interpreter import run_vectors
from effcc.ir.parser import parse_graph, parse_kernel, parse_vectors
from effcc.ir.printer import print_vectors
from effcc.ir.vectors import Function
from effcc.ir.verifier import verify_vectors
from effcc.passes.tiling.choose import choose
from effcc.steps import State, run_steps
from effcc.target import generic

SIZES = [(64, 64, 32), (80, 20, 16), (64, 128, 32)]


def packing(n: int, k: int, width: int) -> Function:
    """W[n, k] stored in panels of `width` rows, those beyond the last being zeros."""
    panels = -(-n // width)
    kernel = parse_kernel(
        f"kernel @pack(W: f32[{n},{k}]) -> (P: f32[{panels},{k},{width}]) over p={panels}, k={k}, l={width} {{\n"
        f"  P[p,k,l] = W[{width}*p + l, k]\n}}"
    )
    target = generic("avx2")
    tiled, schedule = choose(kernel, target, once=True)  # as weights are packed
    return vectorize(lower(tiled, schedule), target, "run")


def test_what_runs_once_is_one_text_for_many_lengths() -> None:
    target = generic("avx2")

    def texts(once: bool) -> set[str]:
        found = set()
        for n in (128, 1040, 8 * 127):
            kernel = parse_kernel(
                f"kernel @scale(V: f32[{n}], G: f32[{n}], B: f32[{n}]) -> (S: f32[{n}], T: f32[{n}]) over i={n} {{\n"
                "  S[i] = rsqrt(V[i] + 0.001) * G[i]\n  T[i] = B[i] - V[i] * S[i]\n}"
            )
            tiled, schedule = choose(kernel, target, once=once)
            found.add(kernel_unit(lift_numbers(vectorize(lower(tiled, schedule), target, "run"))).text)
        return found

    assert len(texts(once=True)) == 1
    assert len(texts(once=False)) > 1  # what runs again and again is unrolled, and leaves different rests


def test_packing_of_any_size_is_one_text() -> None:
    apart = {kernel_unit(packing(*size)).text for size in SIZES}
    lifted = [lift_numbers(packing(*size)) for size in SIZES]
    assert len(apart) == len(SIZES)
    assert len({kernel_unit(function).text for function in lifted}) == 1
    assert len({function.sizes for function in lifted}) == len(SIZES)


@pytest.mark.parametrize("size", SIZES)
def test_a_lifted_function_computes_the_same(size: tuple[int, int, int]) -> None:
    n, k, width = size
    function = lift_numbers(packing(*size))
    verify_vectors(function)
    assert parse_vectors(print_vectors(function)) == function
    w = np.random.default_rng(0).standard_normal((n, k)).astype(np.float32)
    packed = np.zeros((n // width, k, width), np.float32)
    run_vectors(function, {"W": w, "P": packed}, {}, 2)
    np.testing.assert_array_equal(packed, w.reshape(n // width, width, k).transpose(0, 2, 1))


def products(*shapes: tuple[int, int]) -> str:
    """Products of inputs and weights of some shapes."""
    params = [f"%x{i}: f32[64,{k}], %w{i}: f32[{n},{k}]" for i, (n, k) in enumerate(shapes)]
    lines = [f"%y{i} = linear %x{i}, %w{i} : f32[64,{n}]" for i, (n, k) in enumerate(shapes)]
    returned = ", ".join(f"%y{i}" for i in range(len(shapes)))
    return "graph @products(" + ", ".join(params) + ") {\n" + "\n".join(lines) + f"\nreturn {returned}\n}}\n"


def test_a_program_shares_what_packs_its_weights_only_where_that_is_seldom_done() -> None:
    graph = parse_graph(products((512, 3840), (768, 4608), (1024, 5376)))  # sums too long for a panel in the cache
    graph = replace(graph, weights=frozenset(f"w{i}" for i in range(3)))
    counts = {}
    for once in (True, False):
        state = run_steps(State(graph=graph, prepare_once=once), generic("avx2"))
        packers = [u for u in state.source.kernels if "packed" in u.text and "source" in u.text]
        counts[once] = len(packers), sum(len(u.kernels) for u in packers)
    assert counts[True] == (1, 3)
    assert counts[False] == (3, 3)


def test_a_function_of_too_many_numbers_keeps_them() -> None:
    reads = "\n".join(f"    do store(O[i + {2 + n}], load<f32>(X[{2 + n}*i]))" for n in range(MOST_NUMBERS))
    text = f"vectors @many(X: f32 read, O: f32;) {{\n  loop i in [0]..[1] step 1 {{\n{reads}\n  }}\n}}"
    function = parse_vectors(text)
    assert lift_numbers(function) is function


def test_a_function_computes_the_same_where_its_run_time_sizes_are_arguments() -> None:
    text = (
        "vectors @strided(X: f32 read, O: f32; s0) {\n  loop i in [0]..[(floor(s0/2) + 1)] step 1 {\n"
        "    do store(O[i], load<f32>(X[(2*floor(s0/2))*i + (floor(s0/2) - 1)]))\n  }\n}"
    )
    function = parse_vectors(text)
    lifted = lift_sizes(function)
    verify_vectors(lifted)
    assert parse_vectors(print_vectors(lifted)) == lifted
    assert [name for name, _ in lifted.sizes] == ["s0", "n0"]
    x = np.arange(64, dtype=np.float32)
    results = []
    for f in (function, lifted):
        out = np.zeros(5, np.float32)
        run_vectors(f, {"X": x, "O": out}, {"s0": 9}, 1)
        results.append(out)
    np.testing.assert_array_equal(results[0], [3, 11, 19, 27, 35])
    np.testing.assert_array_equal(results[1], results[0])


def test_what_may_divide_by_zero_stays_where_it_is_reached() -> None:
    text = (
        "vectors @divided(O: f32; s0, s1) {\n  loop i in [0]..[(floor(s0/s1))] step 1 {\n"
        "    do store(O[i], f32(0.0))\n  }\n}"
    )
    function = parse_vectors(text)
    assert lift_sizes(function) is function
