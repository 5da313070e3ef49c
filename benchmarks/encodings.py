"""Encoded products beside the dense one, in one run: `python -m benchmarks.encodings [--size 768] [--layers 2]`.

A stack of square linear layers in float32, with int8 weights, with four fifths of its blocks of 4 outputs x 1 input
left out, and with both; for many rows and for one. Columns: median and best time, speed beside effcc's own dense
product (the median of the rounds' ratios), bytes of the stored weights, bytes of what effcc keeps beside them (packed
copies), and the largest difference from eager on the decoded weights. Eager's and Inductor's dense products run in the
same rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.race import race
from benchmarks.table import show
from effcc.compression.quantize import quantize
from effcc.compression.sparsify import sparsify
from effcc.driver import compile_graph
from effcc.frontend.aten import import_graph
from effcc.frontend.export import capture

VARIANTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "fp32": lambda m: m,
    "int8": lambda m: quantize(m, "int8"),
    "block(4,1), 80 % zeros": lambda m: sparsify(m, "block(4,1)", density=0.2),
    "block(4,1) . int8": lambda m: quantize(sparsify(m, "block(4,1)", density=0.2), "int8"),
}


class Compiled:
    """A model compiled by effcc for inputs of one shape, called without torch.compile around it."""

    def __init__(self, model: nn.Module, x: torch.Tensor) -> None:
        captured = capture(model, (x,))
        self.state = tuple(captured.state.values())
        imported = import_graph(captured.graph_module, captured.signature)
        self.executable = compile_graph(imported.graph).executable

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


def bytes_of(model: nn.Module) -> int:
    """Bytes of all weights, biases aside."""
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return sum(t.numel() * t.element_size() for name, t in held.items() if "bias" not in name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="+", default=[128, 1])
    parser.add_argument("--seconds", type=float, default=6.0, help="for each number of rows")
    parser.add_argument("--inductor", action="store_true", help="also run Inductor's dense product")
    options = parser.parse_args()
    for rows in options.rows:
        x = torch.randn(rows, options.size)
        models = {name: encode(stack(options.size, options.layers)).eval() for name, encode in VARIANTS.items()}
        sides: dict[str, Any] = {name: Compiled(model, x) for name, model in models.items()}
        compiled = dict(sides)
        dense = models["fp32"]
        sides["eager fp32"] = dense
        if options.inductor:
            sides["Inductor fp32"] = torch.compile(dense)
        timings = race(sides, (x,), "fp32", options.seconds)
        table = []
        for name, timing in timings.items():
            row = [name, f"{timing.median * 1e6:.0f}", f"{timing.best * 1e6:.0f}", f"{timing.speed:.2f}x"]
            if name in compiled:
                with torch.no_grad():
                    error = float((compiled[name](x) - models[name](x)).abs().max())
                kept = compiled[name].executable.prepared_bytes
                row += [f"{bytes_of(models[name]) / 1e6:.2f}", f"{kept / 1e6:.2f}", f"{error:.1e}"]
            table.append([*row, *("" for _ in range(7 - len(row)))])
        title = (
            f"{options.layers} layers {options.size} x {options.size}, {rows} rows, {torch.get_num_threads()} threads"
        )
        show(title, ["", "us", "best", "speed", "weights MB", "beside MB", "max diff"], table)


if __name__ == "__main__":
    main()
