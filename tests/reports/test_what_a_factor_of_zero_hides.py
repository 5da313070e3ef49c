"""A factor of 0 given to `addmm` leaves out what it multiplies: NaN there is not read, as in eager."""

import pytest
import torch
from torch import Tensor

NAN = float("nan")


@pytest.mark.parametrize(("alpha", "beta"), [(0, 1), (0, 2.5), (0, 0), (1, 0), (0.5, 0)])
def test_addmm_does_not_read_what_is_multiplied_by_zero(alpha: float, beta: float) -> None:
    def layer(bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.addmm(bias, a, b, alpha=alpha, beta=beta)

    torch._dynamo.reset()
    bias = torch.full((4,), 2.0 if beta else NAN)
    a, b = torch.full((3, 5), 3.0 if alpha else NAN), torch.ones(5, 4)
    torch.testing.assert_close(torch.compile(layer, backend="effcc")(bias, a, b), layer(bias, a, b))
