"""Whatever reads or writes at an index, or divides integers, raises where eager does, and only there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from effcc.errors import OutOfRangeError, RefusedValueError

ROWS, WIDTH = 5, 12
VALUES = (4, 0, 5, -1, -5, -6, 9_000_000, -(1 << 63))


def table() -> Tensor:
    return torch.arange(ROWS * WIDTH, dtype=torch.float32).reshape(ROWS, WIDTH) / 60


def narrow(i: Tensor) -> Tensor:
    return i.clamp(-(1 << 31), (1 << 31) - 1).int()


def written(x: Tensor, key: object, value: object) -> Tensor:
    y = x.clone()
    y[key] = value  # type: ignore[index]
    return y


def gradient(i: Tensor, x: Tensor) -> Tensor:
    weight = x.clone().requires_grad_()
    return torch.autograd.grad((F.embedding(i, weight) ** 2).sum(), weight)[0]


def masked(i: Tensor, x: Tensor) -> Tensor:
    return torch.where((i == 1)[:, None], x[i], 0.0)


OPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "embedding with padding": lambda i, x: F.embedding(i, x, padding_idx=0),
    "embedding of i32": lambda i, x: F.embedding(narrow(i), x),
    "embedding_bag": lambda i, x: F.embedding_bag(i, x, torch.tensor([0])),
    "embedding, then a norm": lambda i, x: F.layer_norm(F.embedding(i, x), (WIDTH,)),
    "gradient of an embedding": gradient,
    "gather": lambda i, x: x.gather(0, i[:, None]),
    "gather of i32 behind a view": lambda i, x: x.t().gather(1, narrow(i)[None].long()),
    "two indices": lambda i, x: x[i, torch.tensor([0, 1])],
    "index in the middle": lambda i, x: x[None][:, i],
    "0-d index": lambda i, x: x[i[1]],
    "index twice": lambda i, x: x[i][torch.tensor([0, 1, 1])],
    "an index computed": lambda i, x: x.reshape(-1)[i * 3],
    "index_select": lambda i, x: x.index_select(0, i),
    "take": lambda i, x: x[:1, :5].take(i),
    "take_along_dim": lambda i, x: x.take_along_dim(i[:, None].expand(-1, WIDTH), 0),
    "index_put adds": lambda i, x: x.index_put((i,), torch.tensor(1.0), accumulate=True),
    "0-d index_put": lambda i, x: x.index_put((i[1],), torch.tensor(2.0)),
    "assignment": lambda i, x: written(x, i, 1.0),
    "assignment at two": lambda i, x: written(x, (i, torch.tensor([0, 3])), 7.0),
    "put": lambda i, x: x[:, 0].put(i, x[0, :2]),
    "index_add 1d": lambda i, x: x[:, 0].index_add(0, i, x[0, :2]),
    "index_copy": lambda i, x: x.index_copy(0, i, x[3:]),
    "index_fill": lambda i, x: x.index_fill(0, i, 1.0),
    "index_reduce": lambda i, x: x.index_reduce(0, i, x[:2], "prod"),
    "scatter a number": lambda i, x: x.scatter(0, i[:, None].expand(-1, WIDTH), 2.0),
    "scatter_add": lambda i, x: x.scatter_add(0, i[:, None].expand(-1, WIDTH), x[:2]),
    "scatter_reduce amax": lambda i, x: x.scatter_reduce(0, i[:, None].expand(-1, WIDTH), x[:2], "amax"),
    "scatter_reduce mean": lambda i, x: x.scatter_reduce(0, i[:, None].expand(-1, WIDTH), x[:2], "mean"),
    "nll_loss": lambda i, x: F.nll_loss(x.t()[:2].log_softmax(1), i),
    "nll_loss with weights": lambda i, x: F.nll_loss(x.t()[:2].log_softmax(1), i, weight=x[:, 1]),
    "cross_entropy": lambda i, x: F.cross_entropy(x.t()[:2], i),
    "cross_entropy ignores -1": lambda i, x: F.cross_entropy(x.t()[:2], i, ignore_index=-1),
    "cross_entropy, smoothed": lambda i, x: F.cross_entropy(x.t()[:2], i, label_smoothing=0.1),
    "cross_entropy of pixels": lambda i, x: F.cross_entropy(x[None, :, :2], i[None]),
    "multi_margin_loss": lambda i, x: F.multi_margin_loss(x[:2, :5], i),
    "bincount": lambda i, x: torch.bincount(i.clamp(-10, 10), minlength=5),
    "max_unpool1d": lambda i, x: F.max_unpool1d(x[:1, None, :2], i.view(1, 1, 2), 2, output_size=[5]),
    "max_unpool2d": lambda i, x: F.max_unpool2d(
        x[None, :2, None, :2], torch.stack([i, i]).view(1, 2, 1, 2), (1, 2), output_size=[1, 5]
    ),
    "a row that a mask leaves out": masked,
    "an element that a mask leaves out": lambda i, x: torch.where(x[:2] > 0.5, x[i], 0.0),
    "padding": lambda i, x: F.pad(x[i], (1, 1)),
    "concatenation": lambda i, x: torch.cat([x[i], x]),
    "reduction": lambda i, x: x[i].sum(0),
    "attention": lambda i, x: (x[i] @ x.t()).softmax(-1),
    "clamped": lambda i, x: x[i.clamp(0, 4)],
    "remainder": lambda i, x: x[i % 5],
    "argmax": lambda i, x: x.t()[x.argmax(1)],
}


CALLS = [(name, dynamic) for name in OPS for dynamic in (False, True)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dynamic"), CALLS)
@pytest.mark.filterwarnings("ignore")
def test_it_raises_where_eager_does(name: str, dynamic: bool) -> None:
    function, x = OPS[name], table()
    compiled = torch.compile(function, backend="effcc", dynamic=dynamic)
    for last in VALUES:
        index = torch.tensor([1, last])
        try:
            expected = function(index, x)
        except (IndexError, RuntimeError):
            with pytest.raises((OutOfRangeError, IndexError, RuntimeError)):
                compiled(index, x)
        else:
            torch.testing.assert_close(compiled(index, x), expected)


def test_coordinates_that_are_no_numbers_raise_nothing() -> None:
    def sample(x: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False)

    x, grid = torch.randn(1, 2, 4, 4), torch.zeros(1, 3, 3, 2)
    grid[0, 0, 0, 0], grid[0, 1, 1, 1] = float("nan"), 1e30
    assert torch.compile(sample, backend="effcc")(x, grid).shape == sample(x, grid).shape


REFUSED: dict[str, Callable[[Tensor], object]] = {
    "smooth_l1_loss with a negative beta": lambda x: F.smooth_l1_loss(x, x * 2, beta=-1.0),
    "celu with an alpha of 0": lambda x: F.celu(x, 0.0),
    "the maximum along an axis without elements": lambda x: x[:0].max(0),
    "the minimum of rows of which data leave none": lambda x: x[x[:, 0] > 1e9].min(0),
    "index_add of another dtype": lambda x: x.index_add(0, torch.tensor([0]), x[:1].double()),
    "index_copy of another dtype": lambda x: x.index_copy(0, torch.tensor([0]), x[:1].double()),
    "a convolution with a dilation of 0": lambda x: F.conv2d(x[None, None], x[None, None, :2, :2], dilation=0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_eager_refuses_and_capture_does_not(name: str) -> None:
    function, x = REFUSED[name], table()
    with pytest.raises((IndexError, RuntimeError)) as expected:
        function(x)
    with pytest.raises((IndexError, RuntimeError)) as found:
        torch.compile(function, backend="effcc")(x)
    assert str(expected.value).partition("\n")[0] in str(found.value)


def test_a_size_that_the_model_asserts_and_data_do_not_give_is_refused() -> None:
    def function(x: Tensor) -> Tensor:
        places = x.nonzero()
        torch._check(places.size(0) == 4)
        return places + 3

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(function, backend="effcc", fullgraph=True)
        x = torch.tensor([0, 1, 3, 4, 2, 0])
        assert torch.equal(compiled(x), function(x))
        with pytest.raises(RefusedValueError, match=r"asserts that it gives \[4, 1\], and it gave \[1, 1\]"):
            compiled(torch.tensor([0, 1, 0, 0, 0, 0]))
