"""Numbers beside half tensors are rounded where eager rounds them, and only there, to the bit."""

import pytest
import torch
from torch import Tensor

NUMBER = 0.3
"""No half type holds it."""

STEPS = {
    "compared": lambda x, s: (x == NUMBER, x != 3.14, x < NUMBER, x <= NUMBER, x > NUMBER, x >= NUMBER, x == s, x < s),
    "added": lambda x, s: (x + NUMBER, x - NUMBER, NUMBER - x, x + 257, x + s, s - x),
    "multiplied": lambda x, s: (x * NUMBER, NUMBER * x, x * 257, x * s, s * x, x * x.shape[0]),
    "divided": lambda x, s: (x / NUMBER, x / 257, x / s, x // NUMBER, x // s, x / x.shape[0]),
    "truncated": lambda x, s: tuple(torch.div(x, by, rounding_mode="trunc") for by in (NUMBER, s, s.to(x.dtype))),
    "remainders": lambda x, s: (x % NUMBER, torch.remainder(NUMBER, x), torch.fmod(x, NUMBER), x % s),
    "powers": lambda x, s: (x.abs() ** NUMBER, NUMBER**x),
    "bounded": lambda x, s: (x.clamp(-NUMBER, NUMBER), torch.maximum(x, s), torch.where(x > 0, x, NUMBER)),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("step", STEPS)
def test_numbers_and_single_values_beside_half_tensors(step: str, dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    x = (torch.randn(257, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    x[:2] = torch.tensor([NUMBER, 3.14])
    single = torch.tensor(NUMBER)
    found = torch.compile(STEPS[step], backend="effcc", fullgraph=True)(x, single)
    for k, (expected, got) in enumerate(zip(STEPS[step](x, single), found, strict=True)):
        assert torch.equal(expected, got), (
            f"{step} {k}: expected {expected[expected != got]}, got {got[expected != got]}"
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_scaled_summand_is_not_rounded_before_it_is_added(dtype: torch.dtype) -> None:
    def step(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return torch.add(x, y, alpha=NUMBER), torch.sub(x, y, alpha=NUMBER)

    torch._dynamo.reset()
    x, y = (torch.randn(2, 256, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    factor = torch.tensor(NUMBER, dtype=dtype).double()
    for sign, got in zip((1, -1), torch.compile(step, backend="effcc")(x, y), strict=True):
        exact = x.double() + sign * factor * y.double()
        assert (got != exact.to(dtype)).sum() <= 2  # f32 rounds first
