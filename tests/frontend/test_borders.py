"""Borders that repeat what lies at the ends of an axis: reflected and replicated, with sizes that are known or not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from effcc.explanation import explain

PADDINGS = [(1, (2, 3)), (2, (1, 0, 3, 2)), (2, (0, 0, 0, 0)), (2, (-1, 2, 3, -2)), (3, (1, 2, 0, 1, 2, 0))]


def _image(rank: int, grown: int = 0) -> Tensor:
    sizes = [5 + grown, 7 + 2 * grown, 6 + grown][:rank]
    return torch.randn(2, 3, *sizes, generator=torch.Generator().manual_seed(grown))


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
@pytest.mark.parametrize(("rank", "padding"), PADDINGS)
def test_a_border_repeats_what_lies_at_the_ends(mode: str, rank: int, padding: tuple[int, ...]) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: F.pad(x, padding, mode=mode), backend="effcc", fullgraph=True, dynamic=False)
    image = _image(rank)
    result, expected = compiled(image), F.pad(image, padding, mode=mode)
    assert torch.equal(result, expected) and result.stride() == expected.stride()
    assert result.data_ptr() != image.data_ptr()


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_sizes_may_be_known_at_run_time_only(mode: str) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: F.pad(x, (2, 1, 0, 3), mode=mode), backend="effcc", fullgraph=True, dynamic=True)
    for grown in range(3):
        assert torch.equal(compiled(_image(2, grown)), F.pad(_image(2, grown), (2, 1, 0, 3), mode=mode))
    (program,) = explain(compiled, measure=False).programs
    assert not program.externs


def test_channels_stay_last() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: F.pad(x, (2, 1, 1, 1), mode="reflect"), backend="effcc", dynamic=False)
    image = _image(2).to(memory_format=torch.channels_last)
    expected = F.pad(image, (2, 1, 1, 1), mode="reflect")
    assert compiled(image).stride() == expected.stride() and torch.equal(compiled(image), expected)


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_gradients_add_up_what_was_repeated(mode: str) -> None:
    torch._dynamo.reset()
    weights = torch.randn(2, 3, 9, 10, generator=torch.Generator().manual_seed(9))
    image, same = (_image(2).requires_grad_() for _ in range(2))
    compiled = torch.compile(lambda x: (F.pad(x, (2, 1, 1, 3), mode=mode) * weights).sum(), backend="effcc")
    compiled(image).backward()
    (F.pad(same, (2, 1, 1, 3), mode=mode) * weights).sum().backward()
    assert image.grad is not None and same.grad is not None
    torch.testing.assert_close(image.grad, same.grad)
