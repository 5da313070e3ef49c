"""An index outside its tensor raises, as in eager, and nothing is written anywhere else."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import effcc
from effcc.errors import EffccError, OutOfRangeError, ZeroDivisorError
from effcc.runtime.toolchain import find_compiler

ROWS, WIDTH = 5, 19  # a vector of 16 lanes, and a tail
LOWEST = -(1 << 63)

READS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "embedding": lambda i, x: F.embedding(i, x) * 2,
    "gather": lambda i, x: x.gather(0, i[:, None].expand(-1, WIDTH)),
    "index": lambda i, x: x[i] + 1,
    "index along the lanes": lambda i, x: x.t()[:, i],
}
WRITES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "index_add": lambda i, x: x.index_add(0, i, x[:3]),
    "index_add along the lanes": lambda i, x: x.t().index_add(1, i, x.t()[:, :3]),
    "index_put": lambda i, x: x.index_put((i,), x[:3]),
    "scatter": lambda i, x: x.scatter(0, i[:, None].expand(-1, WIDTH), x[:3]),
    "scatter_add": lambda i, x: x.scatter_add(0, i[:, None].expand(-1, WIDTH), x[:3]),
}


def table() -> Tensor:
    return torch.arange(ROWS * WIDTH, dtype=torch.float32).reshape(ROWS, WIDTH)


@pytest.mark.parametrize("name", [*READS, *WRITES])
def test_it_raises_where_eager_does(name: str) -> None:
    function = (READS | WRITES)[name]
    compiled = torch.compile(function, backend="effcc", fullgraph=True)
    for last in (ROWS - 1, 0, ROWS, -1, -ROWS, -ROWS - 1, 9_000_000, LOWEST):
        index, x = torch.tensor([1, 2, last]), table()
        try:
            expected = function(index, x)
        except (IndexError, RuntimeError):
            with pytest.raises(OutOfRangeError, match=f"index {last} is out of bounds for dimension . with size 5"):
                compiled(index, x)
        else:
            torch.testing.assert_close(compiled(index, x), expected)


MASKED: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "where": lambda m, i, x: torch.where(m[:, None], x[i], 0),
    "where along the lanes": lambda m, i, x: torch.where(m, x.t()[:, i], 0),
    "masked_fill": lambda m, i, x: F.embedding(i, x).masked_fill(~m[:, None], 0).sum(),
    "a mask that is padded": lambda m, i, x: torch.where(F.pad(m[1:], (1, 0))[:, None], x[i], 0),
    "a division": lambda m, i, x: torch.where(m, 7 // (9_000_000 - i), 0),
}


@pytest.mark.parametrize("dynamic", [False, True])
def test_what_a_mask_leaves_out_is_looked_up(dynamic: bool) -> None:
    """The model's data chooses between what eager has computed in full."""
    torch._dynamo.reset()
    mask, index = torch.tensor([True, True, False]), torch.tensor([1, 2, 9_000_000])
    for name, function in MASKED.items():
        compiled = torch.compile(function, backend="effcc", fullgraph=True, dynamic=dynamic)
        torch.testing.assert_close(compiled(mask, index % 5, table()), function(mask, index % 5, table()), msg=name)
        with pytest.raises((OutOfRangeError, ZeroDivisorError)):
            compiled(mask, index, table())


def test_what_a_domain_leaves_out_is_not() -> None:
    def padded(i: Tensor, x: Tensor) -> Tensor:
        return torch.where(F.pad(x[i[:2]], (0, 0, 1, 2)) > 50, F.pad(x[i[:2]], (0, 0, 2, 1)), -1)

    index = torch.tensor([1, 2, 9_000_000])
    for dynamic in (False, True):
        torch._dynamo.reset()
        compiled = torch.compile(padded, backend="effcc", fullgraph=True, dynamic=dynamic)
        torch.testing.assert_close(compiled(index, table()), padded(index, table()))


def test_the_error_is_what_eager_raises_and_names_the_line() -> None:
    with pytest.raises(OutOfRangeError, match=r"gather at test_indices_out_of_range.py:\d+ \(\"gather\": .*") as raised:
        torch.compile(READS["gather"], backend="effcc")(torch.tensor([1, 7, 2]), table())
    for kind in (IndexError, RuntimeError, EffccError):
        assert isinstance(raised.value, kind)


def test_a_write_outside_changes_nothing() -> None:
    def write(x: Tensor, index: Tensor) -> None:
        x.index_add_(0, index, torch.ones(3, WIDTH))

    x = table()
    with pytest.raises(OutOfRangeError):
        torch.compile(write, backend="effcc")(x, torch.tensor([9_000_000, -1, 1]))
    torch.testing.assert_close(x[2:], table()[2:])
    torch.testing.assert_close(x[0], table()[0])


class Lookup(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(ROWS, WIDTH)

    def forward(self, index: Tensor) -> Tensor:
        return self.table(index).sum(-1)


PROGRAM = """
#include "lookup.h"

int main(int argc, char **argv) {
    lookup model;
    int64_t index[3] = {0, 4, atoll(argv[2])};
    float y[3];
    if (argc != 3 || lookup_open(&model, argv[1])) return 9;
    int code = lookup_run(&model, index, y, 1);
    puts(code ? model.error : "fine");
    lookup_close(&model);
    return code;
}
"""


def test_packages_raise_in_python_and_return_an_error_in_c(tmp_path: Path) -> None:
    folder = effcc.export(Lookup(), (torch.tensor([0, 1, 2]),), tmp_path / "lookup")
    package = effcc.load(folder)
    package(torch.tensor([0, 4, 3]))
    with pytest.raises(OutOfRangeError, match="index -2 is out of bounds for dimension 0 with size 5"):
        package(torch.tensor([0, -2, 3]))
    (tmp_path / "main.c").write_text(PROGRAM)
    build = [find_compiler().command[0], "-x", "c", "-I", folder, "main.c", "-o", "main", "-ldl"]
    subprocess.run(build, cwd=tmp_path, check=True)
    for value, code, said in (("3", 0, "fine"), ("7", 1, "index 7 is out of bounds"), ("-1", 1, "index -1 is out")):
        done = subprocess.run([tmp_path / "main", folder, value], text=True, capture_output=True)
        assert done.returncode == code and said in done.stdout
