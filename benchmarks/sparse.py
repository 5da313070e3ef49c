"""Sparse float32 products beside the dense peers, in one run: linear layers, and 1x1 convolutions of known networks.

python -m benchmarks.sparse                                          # all of them, effcc's and PyTorch's dense product
python -m benchmarks.sparse --only conv --formats csr:90 "block(4,1):90" --peers eager,onnxruntime,openvino

Linear layers are outputs x inputs, of 128 rows; convolutions are channels in and out at the size of an image, NCHW.
A format is a level and how many per cent of its elements are left out. For each: best and median microseconds, and how
many times as fast as the quickest dense side it was in the median round; `d` where the weight was decoded once, since
reading it as stored was predicted to take longer. Results are compared with PyTorch's on the decoded weight.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.encodings import Compiled
from benchmarks.peers import PEERS
from benchmarks.race import race
from benchmarks.table import show
from effcc.compression.quantize import quantize
from effcc.compression.sparsify import sparsify
from effcc.runtime.measure import measured
from effcc.target import Target

LINEAR = ((768, 768), (3072, 768), (768, 3072))
"""Outputs and inputs: the layers of BERT."""
CONVOLUTIONS = (
    (56, 24, 144), (14, 96, 576), (14, 576, 96), (7, 960, 160), (7, 960, 320),  # MobileNetV2
    (56, 64, 256), (56, 256, 64), (28, 128, 512), (14, 1024, 256), (14, 256, 1024), (7, 512, 2048), (7, 2048, 512),
)  # fmt: skip
"""The size of an image, channels in and out: of MobileNetV2 and of ResNet-50."""
FORMATS = ("block(4,1):80", "csr:80", "csr:90", "nm(2,4):50")


def layer(shape: tuple[int, ...]) -> tuple[nn.Module, torch.Tensor]:
    """A layer and its input."""
    torch.manual_seed(0)
    if len(shape) == 2:
        n, k = shape
        return nn.Linear(k, n).eval(), torch.randn(128, k)
    size, inputs, outputs = shape
    return nn.Conv2d(inputs, outputs, 1).eval(), torch.randn(1, inputs, size, size)


def stored(shape: tuple[int, ...], format: str) -> tuple[nn.Module, torch.Tensor]:
    """The layer with its weight in a format: `csr:90`, `csr:90 . int8`."""
    made, x = layer(shape)
    level, zeros = format.split(":")
    per_cent, _, values = zeros.partition(" . ")
    density = None if level.startswith("nm") else 1 - float(per_cent) / 100
    sparsify(made, level, density=density, where=lambda _, m: m is made)
    if values:
        quantize(made, values, where=lambda _, m: m is made)
    return made, x


def row(shape: tuple[int, ...], options: argparse.Namespace, target: Target) -> list[str]:
    """A line of the table."""
    dense, x = layer(shape)
    sides: dict[str, Callable[..., Any]] = {"effcc": Compiled(dense, x, target)}
    for peer in options.peers:
        sides[peer] = PEERS[peer].build(dense, (x,))
    peers = list(sides)
    for format in options.formats:
        made, _ = stored(shape, format)
        sides[format] = run = Compiled(made, x, target)
        with torch.no_grad():
            torch.testing.assert_close(run(x), made(x), rtol=1e-3, atol=1e-4)
    timings = race(sides, (x,), "effcc", options.seconds, rest_s=0.001)
    seconds = {name: t.seconds for name, t in timings.items()}
    cells = [f"{min(seconds[p]) * 1e6:.0f}" for p in peers]
    for format in options.formats:
        rounds = zip(*(seconds[p] for p in peers), seconds[format], strict=True)
        speed = statistics.median(min(dense) / own for *dense, own in rounds)
        best = min(min(seconds[p]) for p in peers) / timings[format].best
        decoded = "d" if any(c.decision == "decoded" for c in sides[format].choices) else ""  # type: ignore[attr-defined]
        cells.append(f"{timings[format].best * 1e6:.0f} {best:.2f}x, {speed:.2f}x{decoded}")
    return ["x".join(map(str, shape)), *cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("linear", "conv"))
    parser.add_argument("--shapes", nargs="+", help="instead: 768x3072, 14x96x576")
    parser.add_argument("--formats", nargs="+", default=FORMATS)
    parser.add_argument(
        "--peers", type=lambda text: text.split(","), default=["eager"], help="dense sides beside effcc's"
    )
    parser.add_argument("--target", default="host", help='"host", "avx512", "avx2" or "scalar"')
    parser.add_argument("--seconds", type=float, default=1.0, help="for each line")
    options = parser.parse_args()
    here = measured(Target.detect())
    target = here if options.target == "host" else here.with_isa(options.target)
    wanted = {"linear": LINEAR, "conv": CONVOLUTIONS, None: (*LINEAR, *CONVOLUTIONS)}[options.only]
    shapes = [tuple(map(int, s.split("x"))) for s in options.shapes] if options.shapes else wanted
    table = [row(shape, options, target) for shape in shapes]
    show(
        f"{torch.get_num_threads()} threads, {target.isa}: dense sides' best us; best us, speed beside the best dense",
        ["", "effcc", *options.peers, *options.formats],
        table,
    )


if __name__ == "__main__":
    main()
