"""Networks whose data decide what runs: compiled as one program, and as packages that C programs run."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

import effcc
from effcc.errors import OutOfRangeError

WIDTH = 16


class EarlyExit(nn.Module):
    """Blocks one after the other until a head is sure of its answer: where its largest probability is above 0.6."""

    def __init__(self, blocks: int = 3, classes: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(blocks))
        self.heads = nn.ModuleList(nn.Linear(WIDTH, classes) for _ in range(blocks))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.leave(x, 0)

    def leave(self, x: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        """The answer from a block on, and at which one the network left."""
        x = x + self.blocks[depth](x)
        answer, left = self.heads[depth](x).softmax(-1), torch.full((), depth)
        if depth + 1 == len(self.blocks):
            return answer, left
        return torch.cond(  # type: ignore[no-any-return]
            answer.amax() > 0.6,
            lambda x, answer: (answer.clone(), torch.full((), depth)),
            lambda x, answer: self.leave(x, depth + 1),
            (x, answer),
        )


class Routed(nn.Module):
    """One of several experts runs, the one that a router's scores are highest for: a tree of branches finds it."""

    def __init__(self, experts: int = 4) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, WIDTH)) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.one_of(self.router(x).sum(0).argmax(), x, 0, len(self.experts))

    def one_of(self, chosen: Tensor, x: Tensor, low: int, high: int) -> Tensor:
        """What the chosen of some experts makes of x."""
        if high - low == 1:
            return self.experts[low](x)  # type: ignore[no-any-return]
        middle = (low + high) // 2
        return torch.cond(  # type: ignore[no-any-return]
            chosen < middle,
            lambda chosen, x: self.one_of(chosen, x, low, middle),
            lambda chosen, x: self.one_of(chosen, x, middle, high),
            (chosen, x),
        )


class Settling(nn.Module):
    """One block, again and again until it changes nothing any more or has run 40 times (a deep equilibrium model)."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        def goes_on(turn: Tensor, z: Tensor, change: Tensor) -> Tensor:
            return (turn < 40) & (change > 1e-4)

        def again(turn: Tensor, z: Tensor, change: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            found = (0.5 * self.block(z) + x).tanh()
            return turn + 1, found, (found - z).abs().amax()

        begin = torch.zeros((), dtype=torch.int64), torch.zeros_like(x), x.abs().amax()
        turns, z, _ = while_loop(goes_on, again, begin)
        return z, turns


def confident(depth: int) -> tuple[EarlyExit, Tensor]:
    """A network that leaves at a certain depth: heads before it give all classes the same."""
    torch.manual_seed(0)
    model = EarlyExit().eval()
    for head in list(model.heads)[:depth]:
        nn.init.zeros_(head.weight)  # type: ignore[arg-type]
        nn.init.zeros_(head.bias)  # type: ignore[arg-type]
    with torch.no_grad():
        model.heads[depth].bias[1] += 8  # type: ignore[index,operator]
    return model, torch.randn(1, WIDTH)


def routed(expert: int) -> tuple[Routed, Tensor]:
    """A network and an input that its router sends to a certain expert."""
    torch.manual_seed(0)
    model = Routed().eval()
    with torch.no_grad():
        model.router.bias.zero_()
    x = torch.randn(3, WIDTH) * 0.1 + model.router.weight[expert].detach() * 20
    assert int(model.router(x).sum(0).argmax()) == expert
    return model, x


def settling(scale: float) -> tuple[Settling, Tensor]:
    torch.manual_seed(0)
    return Settling().eval(), torch.randn(3, WIDTH) * scale


CASES = {
    **{f"leaves at {depth}": (confident, depth) for depth in range(3)},
    **{f"expert {expert}": (routed, expert) for expert in range(4)},
    "settles": (settling, 1.0),
    "has settled": (settling, 0.0),
}


def flat(results: Any) -> list[Tensor]:
    return [results] if isinstance(results, Tensor) else list(results)


@pytest.mark.parametrize("name", CASES)
def test_a_network_runs_what_its_data_ask_for(name: str) -> None:
    make, case = CASES[name]
    model, x = make(case)  # type: ignore[operator]
    torch.compiler.reset()
    with torch.no_grad():
        wanted = flat(model(x))
        if name.startswith("leaves"):
            assert int(wanted[1]) == case
        compiled: Any = torch.compile(model, backend="effcc", fullgraph=True)
        torch.testing.assert_close(flat(compiled(x)), wanted)
    stats = effcc.stats(compiled)
    assert stats.programs == 1 and not stats.externs, "one program, without a return to Python"


HOST = """
#include <stdio.h>
#include "MODEL.h"
int main(int argc, char **argv) {
    MODEL model;
    float x[64], z[64];
    int64_t turns = -1;
    int threads;
    if (argc != 2 || MODEL_open(&model, argv[1])) return puts(model.error), 1;
    for (threads = 1; threads < 4; ++threads) {
        FILE *in = fopen("x.bin", "rb"), *out = fopen("z.bin", threads == 1 ? "wb" : "ab");
        if (!in || !out || fread(x, sizeof x[0], COUNT, in) != COUNT) return 2;
        if (MODEL_run(&model, x, RESULTS, threads)) return puts(model.error), 3;
        if (fwrite(z, sizeof z[0], GIVEN, out) != GIVEN || fwrite(&turns, sizeof turns, 1, out) != 1) return 4;
        fclose(in);
        fclose(out);
    }
    MODEL_close(&model);
    return 0;
}
"""


def run_in_c(package: Path, name: str, x: Tensor, results: list[Tensor], folder: Path) -> None:
    """Run a package from C, with one, two and three threads, and compare."""
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    z, *counts = results
    passed = "z, &turns" if counts else "z"
    text = HOST.replace("MODEL", name).replace("COUNT", str(x.numel())).replace("GIVEN", str(z.numel()))
    (folder / "main.c").write_text(text.replace("RESULTS", passed))
    flags = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, "main.c", "-o", "main", "-ldl", "-lm"], cwd=folder, check=True)
    (folder / "x.bin").write_bytes(x.numpy().tobytes())
    subprocess.run(["./main", "."], cwd=folder, check=True, timeout=60)
    size = 4 * z.numel()
    content = (folder / "z.bin").read_bytes()
    assert len(content) == 3 * (size + 8)
    for start in range(0, len(content), size + 8):
        found = np.frombuffer(content[start : start + size], np.float32).reshape(z.shape)
        torch.testing.assert_close(torch.from_numpy(found.copy()), z)
        if counts:
            assert np.frombuffer(content[start + size : start + size + 8], np.int64) == int(counts[0])


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.parametrize("kind", ["early", "routed", "settling"])
def test_a_package_runs_it_from_python_and_from_c(kind: str, tmp_path: Path) -> None:
    make: Any = {"early": confident, "routed": routed, "settling": settling}[kind]
    cases = {"early": [1], "routed": [0, 2], "settling": [1.0, 0.0]}[kind]
    model, x = make(cases[0])
    path = effcc.export(model, (x,), tmp_path / f"{kind}.effcc")
    package = effcc.load(path)
    for number, case in enumerate(cases):
        _, x = make(case)
        with torch.no_grad():
            wanted = flat(model(x))
        torch.testing.assert_close(flat(package(x)), wanted)
        folder = tmp_path / str(number)
        folder.mkdir()
        run_in_c(path, kind, x, wanted, folder)


class Looking(nn.Module):
    """A walk from place to place that ends where a place is its own next."""

    def forward(self, table: Tensor, at: Tensor) -> Tensor:
        return while_loop(  # type: ignore[no-any-return]
            lambda at: (table[at] != at).all(), lambda at: (table[at],), (at,)
        )[0]


def test_a_loop_whose_index_leaves_its_table_ends_with_an_error(tmp_path: Path) -> None:
    table, at = torch.tensor([1, 2, 3, 3]), torch.zeros((1,), dtype=torch.int64)
    package = effcc.load(effcc.export(Looking(), (table, at), tmp_path / "looking.effcc"))
    torch.testing.assert_close(package(table, at), Looking()(table, at))
    with pytest.raises(OutOfRangeError, match="index 7 is out of bounds for dimension 0 with size 4"):
        package(torch.tensor([1, 7, 3, 3]), at)
