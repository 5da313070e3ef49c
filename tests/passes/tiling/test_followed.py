"""What a model decides is what the schedule says: each of its variables shows in the text that is followed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from types import ModuleType

import pytest

from effcc.gpu import parse
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_kernel
from effcc.ir.printer import print_schedule
from effcc.ir.schedule import Schedule
from effcc.passes.tiling import contraction, describe, gpu, online, pointwise, reduction, window
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.constraints import Problem
from effcc.passes.tiling.solver import Solution, solutions
from effcc.target import generic

SMALL = replace(generic("avx512"), l2_bytes=24 << 10, cores=2)
"""A machine whose L2 holds no panel of a long product."""

KERNELS = {
    pointwise: """
        kernel @k(X: f32[200,160], Z: f32[160,200]) -> (Y: f32[160,200]) over i=160, j=200 {
          Y[i,j] = exp(X[j,i]) * Z[i,j]
        }
        """,
    reduction: """
        kernel @k(X: f32[64,1024]) -> (Y: f32[1024]) over i=64, j=1024 { Y[j] = sum(i: X[i,j]) }
        """,
    contraction: """
        kernel @k(A: f32[40,900], W: f32[900,200]) -> (C: f32[40,200]) over m=40, n=200, k=900 {
          C[m,n] = sum(k: A[m,k] * W[k,n])
        }""",
    online: """
        kernel @k(Q: f32[96,8], K: f32[300,8], V: f32[300,8]) -> (O: f32[96,8]) over m=96, n=300, k=8, f=8 {
          S[m,n] = sum(k: Q[m,k] * K[n,k])
          M[m] = max(n: S[m,n])
          P[m,n] = exp(S[m,n] - M[m])
          O[m,f] = sum(n: P[m,n] * V[n,f]) rescale exp(M'[m] - M[m])
        }""",
    window: """
        kernel @k(X: f32[30,30,64], W: f32[3,3,64]) -> (Y: f32[28,28,64]) over y=28, x=28, c=64, k=3, l=3 {
          Y[y,x,c] = sum(k, l: X[y + k,x + l,c] * W[k,l,c])
        }""",
}
"""A kernel for each model, which leaves each of its variables several values."""
ALONE = {
    (pointwise, "unroll"): "kernel @k(X: f32[4096]) -> (Y: f32[4096]) over i=4096 { Y[i] = exp(X[i]) }",
    (reduction, "together"): """
        kernel @k(X: f32[1024], W: f32[64,512]) -> (Y: f32[64]) over n=64, k=512 { Y[n] = sum(k: X[2 * k] * W[n,k]) }
        """,
}
"""Kernels for variables that the model's own leaves one value."""


def problems(model: ModuleType, text: str) -> list[Problem]:
    """The problems that a model poses while a kernel is scheduled."""
    found: list[Problem] = []

    def asking(problem: Problem) -> Iterator[Solution]:
        found.append(problem)
        return solutions(problem)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "solutions", asking)
        followed(parse_kernel(text))
    assert found, f"{model.__name__} is not asked"
    return found


def followed(kernel: Kernel) -> str:
    """The schedule that is chosen, as it is printed, without notes and predictions."""
    forget()
    return shown(choose(kernel, SMALL)[1])


def shown(schedule: Schedule) -> str:
    return print_schedule("k", replace(schedule, notes=(), seconds=0.0))


@pytest.mark.parametrize("model", KERNELS, ids=lambda model: model.__name__.rpartition(".")[2])
def test_whatever_a_model_decides_shows_in_the_schedule(model: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are solutions that differ in one variable alone, each of which is followed in a text of its own."""
    for variable in problems(model, KERNELS[model])[0].domains:
        kernel = ALONE.get((model, variable), KERNELS[model])

        def text_of(solution: Solution, kernel: str = kernel) -> str:
            with monkeypatch.context() as patch:
                patch.setattr(model, "solutions", lambda problem: iter([solution]))
                return followed(parse_kernel(kernel))

        pairs = differing(problems(model, kernel)[0], variable)
        assert any(text_of(one) != text_of(other) for one, other in islice(pairs, PAIRS)), variable


PAIRS = 40
"""Different numbers of parts can round to the same tasks: so many pairs are looked at."""


def differing(problem: Problem, variable: str) -> Iterator[tuple[Solution, Solution]]:
    """Pairs of solutions that differ in one variable alone, good ones first."""
    known: dict[tuple[int, ...], Solution] = {}
    for solution in islice(solutions(problem), 20000):
        rest = tuple(v for name, v in solution.values.items() if name != variable)
        if rest in known:
            yield known[rest], solution
        known[rest] = solution


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    yield
    forget()


def forget() -> None:
    """Forget the schedules of earlier questions."""
    for ask in (describe._window, describe._contraction, describe._pointwise, describe._reduction):
        ask.cache_clear()


PRODUCT = """
    kernel @k(A: f32[256,512], B: f32[512,384]) -> (C: f32[256,384]) over m=256, n=384, k=512 {
      C[m,n] = sum(k: A[m,k] * B[k,n])
    }"""


def test_whatever_the_model_of_a_gpu_decides_shows_in_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, device = parse_kernel(PRODUCT), parse("sm_80")
    asked: list[Problem] = []
    solve = gpu.solve

    def asking(problem: Problem) -> list[Solution]:
        asked.append(problem)
        return solve(problem)

    def text_of(solution: Solution) -> str:
        monkeypatch.setattr(gpu, "solve", lambda problem: [solution])
        ((_, schedule),) = gpu.choose_gpu(kernel, device)
        return shown(schedule)

    monkeypatch.setattr(gpu, "solve", asking)
    gpu.choose_gpu(kernel, device)
    for variable in asked[0].domains:
        pairs = differing(asked[0], variable)
        assert any(text_of(one) != text_of(other) for one, other in islice(pairs, PAIRS)), variable
