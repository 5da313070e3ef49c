"""One row times stored codes: what README promises of inputs that are huge, infinite or no numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from effcc.backend import programs_of
from effcc.compression.quantize import quantize
from effcc.runtime.measure import host_target

STORED = replace(host_target(), l3_bytes=0)
"""This machine, as a model finds it that does not fit L3: weights are read as they are stored."""


@pytest.mark.parametrize("scheme", ["int4(group=32)", 'int4(group=32,minimum=true,scale="f16")'])
def test_huge_inputs_give_what_eager_gives_and_infinite_ones_nothing_finite(scheme: str) -> None:
    torch.manual_seed(0)
    model = quantize(nn.Sequential(nn.Linear(512, 256, bias=False)).eval(), scheme)
    compiled = torch.compile(model, backend="effcc", options={"target": STORED})
    x = torch.randn(1, 512)
    with torch.no_grad():
        for size in (1.0, 1e33):
            expected = model(x * size)
            torch.testing.assert_close(compiled(x * size), expected, rtol=1e-4, atol=1e-5 * size)
        (program,) = programs_of(compiled)
        assert [c.decision for c in program.state.encodings] == ["stored"]
        for value in (torch.inf, -torch.inf, torch.nan):
            for place in (4, 5, 36, 511):
                special = x.clone()
                special[0, place] = value
                expected = model(special)
                assert not expected.isfinite().any(), "an infinite term, or zero times infinity"
                assert not compiled(special).isfinite().any()
