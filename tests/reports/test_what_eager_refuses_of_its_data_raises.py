"""Values that eager's operators refuse, and assertions about data that do not hold, raise in compiled code too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import effcc
from effcc.errors import EffccError, RefusedValueError

HALF = torch.full((3, 21), 0.5)  # a vector of 16 lanes, and a tail


def with_one(tensor: Tensor, value: float) -> Tensor:
    """`tensor` with another last element."""
    changed = tensor.clone()
    changed.view(-1)[-1] = value
    return changed


def asserted(x: Tensor) -> Tensor:
    torch._assert_async((x > 0).all())
    return x * 2


def asserted_of_an_input(x: Tensor) -> Tensor:
    torch.ops.aten._assert_async.msg((x > 0).all(), "must be positive")
    return x


def asserted_beside_a_write(x: Tensor, y: Tensor) -> None:
    torch._assert_async((x > 0).all())
    y.add_(1)


CLASSES = torch.tensor([[0, 1, 2], [2, 1, 0]])
CALLS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...], tuple[tuple[Tensor, ...], ...]]] = {
    "an assertion": (asserted, (HALF,), ((with_one(HALF, -1),),)),
    "an assertion with a message": (asserted_of_an_input, (HALF,), ((with_one(HALF, -1),),)),
    "an assertion of what only writes": (asserted_beside_a_write, (HALF, HALF), ((with_one(HALF, -1), HALF),)),
    "one_hot": (lambda i: F.one_hot(i, 3) * 2, (CLASSES,), ((with_one(CLASSES, 3),), (with_one(CLASSES, -1),))),
    "binary_cross_entropy": (
        F.binary_cross_entropy, (HALF, HALF),
        tuple(pair for bad in (1.5, -0.5, float("nan"))
              for pair in ((with_one(HALF, bad), HALF), (HALF, with_one(HALF, bad)))),
    ),
    "weighted binary_cross_entropy of elements": (
        lambda x, y, w: F.binary_cross_entropy(x, y, w, reduction="none"), (HALF, HALF, HALF),
        ((with_one(HALF, 1.5), HALF, HALF), (HALF, with_one(HALF, -1), HALF)),
    ),
    "bernoulli": (torch.bernoulli, (HALF,), ((with_one(HALF, 1.5),), (with_one(HALF, float("nan")),))),
    "nanquantile": (lambda x, q: x.nanquantile(q), (HALF, HALF[0]), ((HALF, with_one(HALF[0], 1.5)),)),
    "the largest of a part": (lambda x: x[:0].max(), (), ((HALF,),)),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_it_raises_where_eager_does(name: str) -> None:
    function, good, refused = CALLS[name]
    compiled = torch.compile(function, backend="effcc", fullgraph=True)
    if good:
        torch.manual_seed(0)
        expected = function(*(t.clone() for t in good))
        torch.manual_seed(0)
        torch.testing.assert_close(compiled(*(t.clone() for t in good)), expected)
    for bad in refused:
        with pytest.raises((RuntimeError, IndexError)):
            function(*(t.clone() for t in bad))
        with pytest.raises((RuntimeError, IndexError)):
            compiled(*(t.clone() for t in bad))


def test_the_error_says_what_was_refused_and_where() -> None:
    loss = torch.compile(lambda x, y: F.binary_cross_entropy(x, y), backend="effcc")
    said = r"all elements of target should be between 0 and 1 at test_what_eager_refuses.*\(loss = torch.compile"
    with pytest.raises(RefusedValueError, match=said) as raised:
        loss(HALF, with_one(HALF, 2))
    assert isinstance(raised.value, RuntimeError) and isinstance(raised.value, EffccError)


def test_training_raises_in_the_forward_half() -> None:
    layer = nn.Linear(21, 4)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        torch._assert_async((x > 0).all(), "inputs are positive")
        return F.binary_cross_entropy(layer(x).sigmoid(), y)

    compiled = torch.compile(loss, backend="effcc", fullgraph=True)
    target = torch.full((3, 4), 0.25)
    torch.testing.assert_close(compiled(HALF, target), loss(HALF, target))
    for bad in ((with_one(HALF, -1), target), (HALF, with_one(target, 1.25))):
        with pytest.raises(RefusedValueError):
            compiled(*bad)
    compiled(HALF, target).backward()


class Encoded(nn.Module):
    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        torch._assert_async((x > 0).all(), "must be positive")
        return F.one_hot(classes, 3) * x


def test_packages_refuse_it_too(tmp_path: Path) -> None:
    x = torch.ones(2, 3, 1)
    package = effcc.load(effcc.export(Encoded(), (x, CLASSES), tmp_path / "encoded"))
    torch.testing.assert_close(package(x, CLASSES), Encoded()(x, CLASSES))
    with pytest.raises(RefusedValueError, match="must be positive"):
        package(-x, CLASSES)
    with pytest.raises(RefusedValueError, match="Class values must be smaller than num_classes"):
        package(x, with_one(CLASSES, 5))
