"""Conversions that g++ takes for others."""

from __future__ import annotations

import pytest
import torch

from effcc.driver import Options, compile_graph
from effcc.ir.parser import parse_graph
from effcc.target import Target

ROUND_TRIP = """graph @round_trip(%x: f64[{n}]) {{
  %narrow = cast %x {{dtype=f32}} : f32[{n}]
  %wide = cast %narrow {{dtype=f64}} : f64[{n}]
  return %narrow, %wide
}}"""


@pytest.mark.parametrize("target", ["host", "avx2", "scalar"])
@pytest.mark.parametrize("n", [130, 132, 135])
def test_doubles_that_are_narrowed_and_widened_again_are_rounded_in_tails_too(target: str, n: int) -> None:
    """GCC 12 at -O3 gives neighbours back as they were; 1e300 must become infinite."""
    if not Target.parse(target).runs_here():
        pytest.skip(f"this machine does not run code for {target}")
    x = (torch.arange(n, dtype=torch.float64) - 9.3) * 1e300
    narrow, wide = compile_graph(parse_graph(ROUND_TRIP.format(n=n)), Options(target=Target.parse(target)))(x)
    assert torch.equal(narrow, x.float())
    assert torch.equal(wide, narrow.double())
