"""Attention whose keys, values and mask have lengths of their own, as symbols: capture holds them to be equal."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from effcc.explanation import explain


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])


def inputs(batch: int, queries: int, keys: int) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(keys)
    q, k, v = (torch.randn(batch, 2, n, 16, generator=g) for n in (queries, keys, keys))
    given = (q, k, v, torch.rand(batch, keys, generator=g) > 0.2)
    for x, axes in zip(given, ((0, 2), (0, 2), (0, 2), (0, 1)), strict=True):
        for axis in axes:
            torch._dynamo.mark_dynamic(x, axis)
    return given


def test_one_kernel_of_one_pass_serves_all_lengths() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("effcc")
    run = torch.compile(attend, backend=counter)
    for sizes in ((2, 7, 9), (3, 5, 70), (2, 33, 130)):
        given = inputs(*sizes)
        torch.testing.assert_close(run(*given), attend(*given))
    assert counter.frame_count == 1
    (program,) = explain(run, measure=False).programs
    assert not program.externs
    assert any("rescale" in str(k.text) for k in program.kernels)
