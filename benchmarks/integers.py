"""Layers whose weights and activations are int8, beside effcc's float32: `python -m benchmarks.integers [--model]`.

Linear layers of BERT's shapes with 128 rows, through torch.compile, every side in turn; `--model`: BERT-base itself,
with random weights and 128 tokens. Activations are quantized at every call, a scale for each row, to 8 and to 7 bits.
Speed is the median of the rounds' ratios to float32; `--target` is of all sides, `--integers` of the integer ones.
`--weights "int4(group=32)"`: weights stored so, also with activations in float32.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import effcc
from benchmarks.race import race
from benchmarks.table import show

SHAPES = ((768, 768), (768, 3072), (3072, 768))
"""Inputs and outputs of BERT-base's layers."""


def sides(model: nn.Module, target: str, integers: str, weights: str) -> dict[str, Callable[..., Any]]:
    """The model in float32 by eager and effcc, and with stored weights and activations of 8 and 7 bits."""
    made: dict[str, Callable[..., Any]] = {"eager": model}
    made["effcc"] = torch.compile(copy.deepcopy(model), backend="effcc", options={"target": target})
    if weights != "int8":
        small = effcc.quantize(copy.deepcopy(model), weights)
        made[f"effcc, {weights}"] = torch.compile(small, backend="effcc", options={"target": target})
    for name in ("int8", "int7"):
        small = effcc.quantize(copy.deepcopy(model), weights, activations=f'{name}(per="token")')
        made[f"effcc, {name}"] = torch.compile(small, backend="effcc", options={"target": integers})
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="store_true", help="BERT-base, not its layers")
    parser.add_argument("--target", default="host")
    parser.add_argument("--integers", default="", help="a target for the integer side; by default the same")
    parser.add_argument("--weights", default="int8", help="how weights are stored")
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    cases: dict[str, tuple[nn.Module, torch.Tensor]] = {}
    if given.model:
        from transformers import BertConfig, BertModel

        cases["BERT-base, 128 tokens"] = (BertModel(BertConfig()).eval(), torch.randint(0, 30000, (1, 128)))
    else:
        cases = {f"128 x {k} x {n}": (nn.Sequential(nn.Linear(k, n)), torch.randn(128, k)) for k, n in SHAPES}
    rows = []
    for name, (model, x) in cases.items():
        torch._dynamo.reset()
        timings = race(
            sides(model, given.target, given.integers or given.target, given.weights), (x,), "effcc", given.seconds
        )
        rows += [
            [name, side, f"{t.best * 1e6:.0f}", f"{t.median * 1e6:.0f}", f"{t.speed:.2f}x"]
            for side, t in timings.items()
        ]
    show(
        f"Weights in {given.weights}, activations in 8 and 7 bits",
        ["case", "side", "best us", "median us", "speed"],
        rows,
    )


if __name__ == "__main__":
    main()
