"""A package takes its arguments and gives its results nested as the model does, and as flat tensors as well."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effcc
from effcc.errors import InputError, UnsupportedError
from effcc.runtime.package import Package

Both = namedtuple("Both", ["low", "rows"])


class Everything(nn.Module):
    """Takes and returns dicts, tuples, lists, named tuples, None, numbers and sizes."""

    def forward(self, x: Tensor, pair: dict[str, Any], flag: bool = True, *, mask: Any = None, k: int = 3) -> Any:
        a, b = pair["both"]
        y = x + a * k - b
        if mask is not None:
            y = y * mask
        return {"y": y, "more": [y * 2, (y + 1, None)], 7: "text", "inf": float("inf"), "p": Both(y - 1, x.shape[0])}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x: Tensor, state: Any = None) -> Any:
        return self.layer(x, state)


def arguments(rows: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    x = torch.randn(rows, 4)
    return (x, {"both": (x * 2, x * 3)}), {"mask": (x > 0).float()}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Package:
    args, kwargs = arguments(3)
    rows = {0: torch.export.Dim("rows", min=2, max=64)}
    sizes = {"x": rows, "pair": {"both": (rows, rows)}, "mask": rows}
    path = tmp_path_factory.mktemp("nested") / "everything.effcc"
    return effcc.load(effcc.export(Everything(), args, path, kwargs=kwargs, dynamic_shapes=sizes))


def assert_same(actual: Any, expected: Any) -> None:
    """Equal, and of the same kind all the way down."""
    if isinstance(expected, Tensor):
        torch.testing.assert_close(actual, expected.detach())
        return
    named = hasattr(expected, "_fields")
    assert actual._fields == expected._fields if named else type(actual) is type(expected)
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        actual, expected = list(actual.values()), list(expected.values())
    if isinstance(expected, tuple | list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other)
    else:
        assert actual == expected


@pytest.mark.parametrize("rows", [3, 8])
def test_results_nest_as_the_models_do(everything: Package, rows: int) -> None:
    args, kwargs = arguments(rows)
    expected = Everything()(*args, **kwargs)
    assert_same(everything(*args, **kwargs), expected)
    assert_same(everything(*args, True, k=3, **kwargs), expected)
    assert_same(everything(args[0], pair=args[1], **kwargs), expected)
    assert_same(everything(args[0], *args[1]["both"], kwargs["mask"]), expected)


def test_a_recurrent_layers_state_is_a_tuple_on_both_sides(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Recurrent().eval(), torch.randn(2, 5, 4)
    state = (torch.randn(1, 2, 3), torch.randn(1, 2, 3))
    without = effcc.load(effcc.export(model, (x,), tmp_path / "without.effcc"))
    assert_same(without(x), model(x))
    assert_same(without(x, None), model(x))
    given = effcc.load(effcc.export(model, (x, state), tmp_path / "given.effcc"))
    assert_same(given(x, state), model(x, state))
    assert_same(given(x, state=list(state)), model(x, state))


WRONG: dict[str, tuple[Callable[[Package, Tensor], Any], str]] = {
    "an argument missing": (lambda p, x: p(x), "'pair_both_0' is missing"),
    "a tuple too short": (
        lambda p, x: p(x, {"both": (x,)}, mask=x),
        "pair['both']: expected a tuple of 2, got",
    ),
    "another key": (lambda p, x: p(x, {"one": x}, mask=x), "pair: expected a dict with 'both', got a dict with 'one'"),
    "another constant": (
        lambda p, x: p(x, {"both": (x, x)}, mask=x, k=4),
        "k: expected 3, which",
    ),
    "True for 1": (lambda p, x: p(x, {"both": (x, x)}, 1, mask=x), "flag: expected True"),
    "an unknown name": (lambda p, x: p(x, {"both": (x, x)}, masks=x), "got 'masks', which is none of them"),
    "a tensor for a dict": (
        lambda p, x: p(x, x, mask=x),
        "pair: expected a dict with 'both', got a value",
    ),
    "twice": (lambda p, x: p(x, {"both": (x, x)}, x=x, mask=x), "got 'x' by position and by name"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_arguments_that_nest_otherwise_are_named(everything: Package, wrong: str) -> None:
    call, message = WRONG[wrong]
    with pytest.raises(InputError) as caught:
        call(everything, torch.randn(3, 4))
    assert message in str(caught.value)


def test_what_no_package_can_return_is_refused_when_it_is_compiled(tmp_path: Path) -> None:
    class Complex(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x + 1, {("a", 1): x}

    with pytest.raises(UnsupportedError, match="a dict with the key"):
        effcc.export(Complex(), (torch.ones(2),), tmp_path / "complex.effcc")
    assert not list(tmp_path.iterdir())
