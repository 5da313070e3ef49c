"""Encoded products beside the dense one, in one run: every scheme of values, alone and with blocks left out.

python -m benchmarks.encodings                                     # all schemes of the registry x 6 shares of zeros
python -m benchmarks.encodings --table                             # 14 of them, compact, in minutes
python -m benchmarks.encodings --formats int8 "int4(group=32)" --zeros 0 80 --rows 1 128 --size 2048 --layers 4

A stack of square linear layers in float32, for one row and for several. Columns: megabytes of the stored weights; what
was chosen for them (read as stored, or decoded once before the first call); best and median time; speed beside effcc's
own dense product, the median of the rounds' ratios; the gigabytes of stored weights that a second of the best call is
worth, beside those that the machine reads; and the largest difference from the decoded weights' product in float64,
as a part of the largest result.

The compact table has a line for each scheme and a column for each share of zeros, of one layer: megabytes stored, best
microseconds and speed beside dense, as above; `d` where the weight was decoded once, since reading it as stored was
predicted to take longer, `c` where it was copied to other codes for that. Below, what was slower than dense, and the
largest difference of all.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch import nn

from benchmarks.race import race
from benchmarks.table import show
from effcc.compression.quantize import quantize
from effcc.compression.sparsify import sparsify
from effcc.driver import Options, compile_graph
from effcc.errors import EncodingError
from effcc.frontend.aten import import_graph
from effcc.frontend.export import capture
from effcc.ir.encodings.registry import DECLARATIONS
from effcc.runtime.measure import measured
from effcc.target import Target

DENSE = "dense"
SCHEMES = (DENSE, *(d.samples[0] for d in DECLARATIONS.values() if d.kind == "values"))
"""Of each scheme of values the plainest notation."""
ZEROS = (0, 50, 70, 80, 90, 95)


FOURTEEN = ("f16", "int8", "int6", "int5", "int4(group=32)", "int3", "int2", "nf4", "iq4", 'fp8("e4m3")', "fp6", "fp4",
            "bfp(group=16)", "ternary")  # fmt: skip
"""The schemes of the compact table."""


class Compiled:
    """A model compiled by effcc for inputs of one shape, called without torch.compile around it."""

    def __init__(self, model: nn.Module, x: torch.Tensor, target: Target) -> None:
        captured = capture(model, (x,))
        self.state = tuple(captured.state.values())
        imported = import_graph(captured.graph_module, captured.signature)
        compiled = compile_graph(imported.graph, Options(target=target))
        self.executable, self.choices = compiled.executable, compiled.state.encodings

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.executable(*self.state, x)[0]


def stack(size: int, layers: int) -> nn.Module:
    """Linear layers whose outputs keep the scale of their inputs."""
    torch.manual_seed(0)
    made = nn.Sequential(*(nn.Linear(size, size) for _ in range(layers)))
    with torch.no_grad():
        for layer in made:
            layer.weight.normal_(0, size**-0.5)  # type: ignore[operator]
    return made


def stored(size: int, layers: int, values: str, level: str, zeros: int) -> nn.Module:
    """The stack with so many per cent of its blocks left out, and what is left stored by a scheme."""
    made = stack(size, layers)
    if zeros:
        sparsify(made, level, density=1 - zeros / 100)
    if values != DENSE:
        quantize(made, values)
    return made.eval()


def fitting(options: argparse.Namespace, layers: int, values: str, zeros: int) -> nn.Module | None:
    """The stack as options say; None, after saying why, where values do not go with the level."""
    try:
        return stored(options.size, layers, values, options.level, zeros)
    except EncodingError as error:
        print(f"left out: {values} with {zeros} % zeros: {error}", flush=True)
        return None


def bytes_of(model: nn.Module) -> int:
    """Bytes of all weights, biases aside."""
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return sum(t.numel() * t.element_size() for name, t in held.items() if "bias" not in name)


def difference(run: Compiled, model: nn.Module, x: torch.Tensor) -> float:
    """The largest difference from the decoded weights' product in float64, as a part of the largest result."""
    with torch.no_grad():
        expected = x.double()
        for layer in model:  # type: ignore[attr-defined]
            expected = nn.functional.linear(expected, layer.weight.double(), layer.bias.double())
        return float((run(x).double() - expected).abs().max() / expected.abs().max())


def compact(options: argparse.Namespace, target: Target) -> None:
    """Print a table for each number of rows: schemes of values down, zeros across."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for rows in options.rows:
        x = torch.randn(rows, options.size)
        dense = Compiled(stored(options.size, 1, DENSE, options.level, 0), x, target)
        table, slower, worst = [], [], 0.0
        for values in FOURTEEN:
            cells = [values]
            for zeros in options.zeros:
                model = fitting(options, 1, values, zeros)
                if model is None:
                    cells.append("-")
                    continue
                made = Compiled(model, x, target)
                timing = race({"dense": dense, "made": made}, (x,), "dense", 0.1, rest_s=0.001, clock=clock)["made"]
                decoded = "d" if any(c.decision == "decoded" for c in made.choices) else ""
                decoded = decoded or ("c" if any("copied to" in c.reason for c in made.choices) else "")
                cells.append(f"{bytes_of(model) / 1e6:.2f} {timing.best * 1e6:.0f} {timing.speed:.2f}{decoded}")
                worst = max(worst, difference(made, model, x))
                if timing.speed < 1:
                    slower.append(f"{values} {zeros} %: {timing.speed:.2f}{decoded}")
            table.append(cells)
        size = f"{options.size} x {options.size}"
        show(f"{size}, {rows} rows, {torch.get_num_threads()} threads, {target.isa}: MB, us, speed beside dense "
             f"({options.level} zeros)", ["", *(f"{z} %" for z in options.zeros)], table)  # fmt: skip
        print(f"slower than dense: {'; '.join(slower) or 'none'}; largest difference {worst:.0e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 128])
    parser.add_argument("--formats", nargs="+", default=SCHEMES, help="schemes of values, or dense")
    parser.add_argument("--zeros", type=int, nargs="+", default=ZEROS, help="per cent of the blocks")
    parser.add_argument("--level", default="block(4,1)", help="what is left out, where there are zeros")
    parser.add_argument("--target", default="host", help='"host", "avx512", "avx2" or "scalar"')
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row of the table")
    parser.add_argument("--table", action="store_true", help="one layer of 14 schemes, a line for each")
    options = parser.parse_args()
    target = Target.detect() if options.target == "host" else Target.detect().with_isa(options.target)
    target = measured(target)
    if options.table:
        compact(options, target)
        return
    columns = ["", "zeros", "MB", "chosen", "best us", "median us", "speed", "GB/s", "max diff"]
    for rows in options.rows:
        x = torch.randn(rows, options.size)
        dense = Compiled(stored(options.size, options.layers, DENSE, options.level, 0), x, target)
        table = []
        for values in options.formats:
            for zeros in options.zeros:
                model = fitting(options, options.layers, values, zeros)
                if model is None:
                    continue
                made = Compiled(model, x, target)
                sides: dict[str, Any] = {"dense": dense, "made": made}
                timing = race(sides, (x,), "dense", options.seconds, rest_s=0.002)["made"]
                size = bytes_of(model)
                chosen = "/".join(sorted({c.decision for c in made.choices})) or DENSE
                figures = [f"{timing.best * 1e6:.0f}", f"{timing.median * 1e6:.0f}", f"{timing.speed:.2f}x"]
                rate = f"{size / timing.best / 1e9:.1f}"
                row = [values, f"{zeros} %", f"{size / 1e6:.2f}", chosen, *figures, rate]
                table.append([*row, f"{difference(made, model, x):.0e}"])
        read = measured(Target.detect(), again=True).memory_bandwidth
        show(
            f"{options.layers} layers {options.size} x {options.size}, {rows} rows, {torch.get_num_threads()} threads, "
            f"{target.isa}; memory reads {read / 1e9:.1f} GB/s",
            columns,
            table,
        )


if __name__ == "__main__":
    main()
