"""Updates are stored where they belong when nobody reads the old value any more, and copied where somebody does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from effcc.ir.interpreter import run_program
from effcc.ir.parser import parse_graph
from effcc.ir.program import Launch, Program
from effcc.ir.verifier import verify_program
from effcc.passes.fusion import fuse
from effcc.passes.hoist import hoist
from effcc.passes.in_place import store_in_place
from effcc.statistics import require_programs
from effcc.target import generic

CACHE = """
    graph @main(%cache: f32[16,8], %row: f32[8], %at: i64[1]) {{
      %new = index_put %cache, %row, %at {{axes=[0]}} : f32[16,8]
      {more}
      update %cache, %new
      return %y
    }}
"""
SUM = "%y = sum %new {axes=[0]} : f32[8]"
OWN = """
    graph @main(%x: f32[16,8], %g: f32[16,8]) {{
      {value}
      update %x, %new
      return {returned}
    }}
"""


def fused(text: str) -> Program:
    split = hoist(parse_graph(text))
    return fuse(split.main, generic("avx512"), split.prepare)


def copies(program: Program) -> list[str]:
    return [s.kernel for s in program.steps if isinstance(s, Launch) and s.kernel.startswith("update")]


def inputs(program: Program) -> list[np.ndarray[Any, Any]]:
    random = np.random.default_rng(0)
    types = [program.buffer(n).type for n in program.inputs]
    return [
        np.array([5]) if t.dtype.kind == "int" else random.standard_normal(t.shape).astype(np.float32) for t in types
    ]


def same(before: Program, after: Program) -> None:
    """Both programs give the same results and leave the same in their inputs."""
    verify_program(after)
    left = [inputs(before), inputs(before)]
    results = [run_program(p, arrays) for p, arrays in zip((before, after), left, strict=True)]
    for expected, found in zip([*results[0], *left[0]], [*results[1], *left[1]], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_row_of_a_cache_is_written_alone() -> None:
    before = fused(CACHE.format(more=SUM))
    after = store_in_place(before)
    assert copies(before) and not copies(after)
    made = next(b for b in after.buffers if b.alias)
    assert (made.alias, made.space) == ("cache", "input")
    writer = next(k for k in after.kernels.values() if any(s.scatter for s in k.statements))
    assert [s.scatter is not None for s in writer.statements if s.target == writer.outputs[0].name] == [True]
    same(before, after)


@pytest.mark.parametrize(
    "more",
    [
        "%old = sum %new {axes=[0]} : f32[8]\n      %z = exp %cache : f32[16,8]\n"
        "      %s = add %z, %new : f32[16,8]\n      %y = sum %s {axes=[0]} : f32[8]",
        "%y = exp %new : f32[16,8]\n      %w = sum %cache {axes=[1]} : f32[16]",
    ],
)
def test_what_it_leaves_alone_means_the_same(more: str) -> None:
    before = fused(CACHE.format(more=more))
    same(before, store_in_place(before))


def test_an_old_value_that_is_read_later_is_kept() -> None:
    text = CACHE.format(more=SUM).replace("return %y", "return %y, %z")
    text = text.replace(
        SUM, SUM + "\n      %c = cumsum %new {axis=0} : f32[16,8]\n      %z = matmul %cache, %t : f32[16,16]"
    )
    text = text.replace("%c = cumsum", "%t = transpose %new {perm=[1,0]} : f32[8,16]\n      %c = cumsum")
    before = fused(text)
    after = store_in_place(before)
    assert copies(after) == copies(before)
    same(before, after)


def test_a_new_value_that_is_an_output_too_is_copied() -> None:
    before = fused(CACHE.format(more=SUM).replace("return %y", "return %y, %new"))
    assert store_in_place(before).steps == before.steps
    same(before, store_in_place(before))


def test_a_pointwise_update_overwrites_its_own_points() -> None:
    value = "%h = mul %g, %g : f32[16,8]\n      %new = sub %x, %h : f32[16,8]"
    before = fused(OWN.format(value=value, returned="%h"))
    after = store_in_place(before)
    assert copies(before) and not copies(after)
    same(before, after)


@pytest.mark.parametrize(
    "value",
    [
        "%f = flip %x {axes=[0]} : f32[16,8]\n      %new = add %f, %g : f32[16,8]",
        "%m = softmax %x {axis=1} : f32[16,8]\n      %new = add %m, %x : f32[16,8]",
        "%c = cumsum %x {axis=0} : f32[16,8]\n      %new = add %c, %g : f32[16,8]",
    ],
)
def test_an_update_that_reads_other_points_is_copied(value: str) -> None:
    before = fused(OWN.format(value=value, returned="%g"))
    after = store_in_place(before)
    assert copies(after) == copies(before) != []
    same(before, after)


def test_two_inputs_that_swap_are_copied() -> None:
    updates = "update %a, %b\n  update %b, %n"
    before = fused(f"graph @main(%a: f32[4], %b: f32[4]) {{\n  %n = neg %a : f32[4]\n  {updates}\n  return %a\n}}")
    same(before, store_in_place(before))


def test_a_key_value_cache_in_torch_is_eagers_and_is_not_copied() -> None:
    class Cached(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("cache", torch.zeros(2, 16, 8))

        def forward(self, row: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
            self.cache.index_copy_(1, at, row)
            return self.cache.softmax(-1).sum(1)

    models = [Cached(), Cached()]
    torch._dynamo.reset()
    compiled = torch.compile(models[1], backend="effcc")
    generator = torch.Generator().manual_seed(0)
    for position in (3, 15, 3, 0):
        row, at = torch.randn(2, 1, 8, generator=generator), torch.tensor([position])
        torch.testing.assert_close(compiled(row, at), models[0](row, at))
        torch.testing.assert_close(models[1].cache, models[0].cache)
    (program,) = require_programs(compiled)
    assert program.state.program is not None
    assert not copies(program.state.program)
