"""Sums of gathered rows between turns: each task turns its own rows, and computes the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import effcc
from effcc.codegen.lower import lower
from effcc.ir.interpreter import run_kernel, run_loops
from effcc.ir.parser import parse_graph, parse_kernel
from effcc.ir.printer import print_schedule
from effcc.ir.schedule import Hold, Loop, nodes
from effcc.ir.verifier import verify_schedule
from effcc.passes.fusion import fuse
from effcc.passes.tiling.choose import choose
from effcc.target import generic

TARGET = replace(generic("avx512"), cores=2)
CSR = """
graph @g(%x: f32[{rows},96], weight %s: i32[65], weight %c: i32[600], weight %v: f32[600], weight %b: f32[64]) {{
  %w = decode %s, %c, %v {{encoding=<csr>, dtype=f32, shape=[64,96]}} : f32[64,96]
  %y = linear %x, %w, %b : f32[{rows},64]
  return %y
}}
"""
KERNELS = {
    "csr": """
        kernel @k(X: f32[{rows},24], C: i32[90], V: f32[90], P: i32[21], B: f32[20]) -> (Y: f32[{rows},20])
            over k=24, m={rows}, n=20, p=90 {{
          T[k,m] = X[m,k]
          R[n,m] = sum(p in cast<i64>(P[n])..cast<i64>(P[n + 1]): T[cast<i64>(minimum(maximum(C[p], 0), 23)),m] * V[p])
          Y[m,n] = R[n,m] + B[n]
        }}""",
    "csr(slab=8)": """
        kernel @k(X: f32[{rows},24], C: i32[90], V: f32[90], P: i32[61], B: f32[20]) -> (Y: f32[{rows},20])
            over k=24, m={rows}, n=20, s=3, p=90 {{
          T[k,m] = X[m,k]
          R[n,m] = sum(s, p in cast<i64>(P[s * 20 + n])..cast<i64>(P[s * 20 + n + 1]):
                       T[cast<i64>(minimum(maximum(C[p], 0), 23)),m] * V[p])
          Y[m,n] = R[n,m] + B[n]
        }}""",
    "block(4,1)": """
        kernel @k(X: f32[{rows},24], C: i32[5,7], V: f32[5,7,4], B: f32[5,4]) -> (Y: f32[{rows},5,4])
            over k=24, m={rows}, n=5, i=4, j=7 {{
          T[k,m] = X[m,k]
          R[n,i,m] = sum(j: T[cast<i64>(minimum(maximum(C[n,j], 0), 23)),m] * V[n,j,i])
          Y[m,n,i] = R[n,i,m] + B[n,i]
        }}""",
}


@pytest.mark.parametrize(("rows", "kernels"), [(16, 3), (48, 3), (64, 1), (200, 1)])
def test_turns_and_sums_are_one_kernel_where_rows_give_every_core_a_task(rows: int, kernels: int) -> None:
    assert len(fuse(parse_graph(CSR.format(rows=rows)), TARGET).kernels) == kernels


def test_what_does_not_fit_a_cores_cache_is_turned_apart() -> None:
    small = replace(TARGET, l2_bytes=8 << 10)
    assert len(fuse(parse_graph(CSR.format(rows=64)), small).kernels) == 3


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("isa", ["avx512", "avx2"])
@pytest.mark.parametrize("rows", [70, 64, 9])
def test_tasks_compute_what_the_kernel_says(name: str, isa: str, rows: int) -> None:
    kernel = parse_kernel(KERNELS[name].format(rows=rows))
    random = np.random.default_rng(rows)
    given = {p.name: random.standard_normal(p.type.shape).astype(np.float32) for p in kernel.params}
    given |= {p.name: random.integers(0, 24, p.type.shape).astype(np.int32) for p in kernel.params if p.name == "C"}
    for starts in (p for p in kernel.params if p.name == "P"):
        given["P"] = np.sort(random.integers(0, 91, starts.type.shape)).astype(np.int32)
    chosen, schedule = choose(kernel, replace(generic(isa), cores=2))
    (tasks,) = schedule.body
    assert isinstance(tasks, Loop) and tasks.axis == "m" and isinstance(tasks.body[0], Hold)
    got = run_loops(lower(chosen, schedule), given)
    np.testing.assert_allclose(got["Y"], run_kernel(kernel, given)["Y"], rtol=1e-5, atol=1e-5)


def test_rows_of_a_block_share_what_they_gather() -> None:
    """As many results of a block as registers allow: their rows are loaded once."""
    kernel = parse_kernel(KERNELS["block(4,1)"].format(rows=128))
    _, schedule = choose(kernel, TARGET)
    unrolled = [n for _, n in nodes(schedule.body) if isinstance(n, Loop) and (n.axis, n.together) == ("i", "unroll")]
    assert unrolled[0].step == 4, print_schedule("k", schedule)


@pytest.mark.parametrize(("l2_kilobytes", "rows"), [(512, 16), (2048, 32)])
def test_tasks_are_no_wider_than_what_l2_keeps_of_their_rows(l2_kilobytes: int, rows: int) -> None:
    """Rows of 1536 inputs: 32 of them take 192 KB, from which L3 is not far where L2 has 512."""
    text = KERNELS["csr"].format(rows=128).replace("n=20, p=90", "n=768, p=235929").replace("k=24", "k=1536")
    text = text.replace(",24]", ",1536]").replace("[90]", "[235929]").replace("[21]", "[769]").replace("[20]", "[768]")
    kernel = parse_kernel(text.replace(",20]", ",768]").replace(", 23)", ", 1535)"))
    target = replace(generic("avx2"), cores=2, l1_bytes=32 << 10, l2_bytes=l2_kilobytes << 10)
    _, schedule = choose(kernel, target)
    (tasks,) = schedule.body
    assert isinstance(tasks, Loop) and tasks.step == rows, print_schedule("k", schedule)


def test_slabs_are_summed_one_after_the_other_where_their_rows_fit_the_nearest_cache() -> None:
    """All results of a slab before the next one's: what they gather stays in L1, and their sums rest in L2."""
    graph = CSR.replace("i32[65]", "i32[385]").replace("<csr>", "<csr(slab=128)>").replace("[600]", "[14745]")
    avx2 = replace(generic("avx2"), cores=2, l2_bytes=512 << 10)
    (kernel,) = fuse(parse_graph(graph.replace("96]", "768]").format(rows=128)), avx2).kernels.values()
    for kilobytes, wanted in ((32, True), (1 << 10, False)):
        _, schedule = choose(kernel, replace(avx2, l1_bytes=kilobytes << 10))
        loops = [n.axis for _, n in nodes(schedule.body) if isinstance(n, Loop)]
        assert (loops.index("s") < loops.index("n")) == wanted, print_schedule("k", schedule)


def test_sums_that_move_through_the_rows_gather_what_fits_the_nearest_cache_before_the_rest() -> None:
    """Of N:M: some groups of four columns for all results, then the next ones; as computed by the kernel as it is."""
    text = """
        kernel @k(X: f32[64,384], I: u8[48,96,2], V: f32[48,96,2], B: f32[48]) -> (Y: f32[64,48])
            over k=384, m=64, n=48, g=96, s=2 {
          T[k,m] = X[m,k]
          R[n,m] = sum(g, s: T[g * 4 + cast<i64>(I[n,g,s] and 3),m] * V[n,g,s])
          Y[m,n] = R[n,m] + B[n]
        }"""
    kernel = parse_kernel(text)
    random = np.random.default_rng(0)
    given = {p.name: random.standard_normal(p.type.shape).astype(np.float32) for p in kernel.params if p.name != "I"}
    given["I"] = random.integers(0, 4, (48, 96, 2)).astype(np.uint8)
    for kilobytes, wanted in ((32, True), (1 << 10, False)):
        chosen, schedule = choose(kernel, replace(TARGET, l1_bytes=kilobytes << 10))
        loops = [n.axis for _, n in nodes(schedule.body) if isinstance(n, Loop)]
        assert (loops.index("g") < loops.index("n")) == wanted, print_schedule("k", schedule)
        got = run_loops(lower(chosen, schedule), given)
        np.testing.assert_allclose(got["Y"], run_kernel(kernel, given)["Y"], rtol=1e-5, atol=1e-5)


def test_where_a_span_begins_is_no_window() -> None:
    """Of few rows, too: results whose spans begin side by side are computed one by one."""
    kernel = parse_kernel("""
        kernel @k(X: f32[40], C: i32[90], V: f32[90,2], P: i32[61]) -> (Y: f32[20,2]) over n=20, i=2, s=3, p=90 {
          Y[n,i] = sum(s, p in cast<i64>(P[s * 20 + n])..cast<i64>(P[s * 20 + n + 1]):
                       X[cast<i64>(minimum(maximum(C[p], 0), 39))] * V[p,i])
        }""")
    chosen, schedule = choose(kernel, TARGET)
    verify_schedule(chosen, schedule)


def test_a_row_of_slabs_is_predicted_by_the_elements_that_are_stored() -> None:
    """Each of six slabs holds a sixth of the elements: what they cost beside one span a row is where spans begin."""
    kernels = {
        slabs: parse_kernel(f"""
        kernel @k(X: f32[768], C: i32[58982], V: f32[58982], P: i32[{slabs * 768 + 1}]) -> (Y: f32[768])
            over n=768, s={slabs}, p=58982 {{
          Y[n] = sum(s, p in cast<i64>(P[s * 768 + n])..cast<i64>(P[s * 768 + n + 1]):
                     X[cast<i64>(minimum(maximum(C[p], 0), 767))] * V[p])
        }}""")
        for slabs in (1, 6)
    }
    whole, cut = (choose(kernels[slabs], TARGET)[1].seconds for slabs in (1, 6))
    assert whole <= cut < 2 * whole


@pytest.mark.parametrize("width", [1, 2, 3])
def test_rows_are_gathered_without_vectors(width: int) -> None:
    """A task of one row had its sums set where they should be added up, and PyTorch ran it."""
    table, places = torch.randn(3, width), torch.tensor([[2, 0], [0, 1], [0, 2]])

    def bags(table: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(places, table).bfloat16().sum(1)

    run = torch.compile(bags, backend="effcc", options={"target": "scalar"}, dynamic=False)
    torch.testing.assert_close(run(table, places), bags(table, places))
    assert "run by PyTorch: nothing" in str(effcc.explain(run, measure=False))
