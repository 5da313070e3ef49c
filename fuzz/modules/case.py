"""A module as a text: what it is made of, how its weights are stored, how it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from effcc.fuzz.texts import indented, module_of

_TEXT = """import torch
import torch.nn.functional as F
from torch import nn

import effcc


class Model(nn.Module):
    def __init__(self):
        super().__init__()
{layers}

    def forward(self, x):
{lines}


def inputs(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {input}


def dense():
    torch.manual_seed({seed})
    model = Model().eval(){cast}
    with torch.no_grad():
{setup}
    return model


STORING = (
{storing}
)
"""


@dataclass(frozen=True)
class Block:
    """Some layers by name, and the lines of the forward that use them; `needed` where what follows has other sizes."""

    layers: tuple[tuple[str, str], ...]
    lines: tuple[str, ...]
    needed: bool = False


@dataclass(frozen=True)
class Case:
    """A module, and how it is stored and called.

    input: an expression of `n`, the batch's size, and `generator`. setup: what is done to the dense model (`model`)
    first. storing: calls that store its weights. batches: the size of each call. dynamic, target: as torch.compile and
    effcc take them. checks: what is looked at beside the calls (`effcc.fuzz.modules.checks`). change: how a component
    of a weight is changed between calls.
    """

    seed: int
    blocks: tuple[Block, ...]
    input: str
    dtype: str = "float32"
    setup: tuple[str, ...] = ()
    storing: tuple[str, ...] = ()
    batches: tuple[int, ...] = (2,)
    dynamic: bool | None = None
    target: str = "host"
    checks: tuple[str, ...] = ()
    change: str = "copy"

    @property
    def text(self) -> str:
        """The module `Model`, and functions `inputs` and `dense`, and `STORING`: what stores its weights, in turn."""
        layers = [f"self.{name} = {made}" for block in self.blocks for name, made in block.layers]
        lines = [*(line for block in self.blocks for line in block.lines), "return x"]
        cast = "" if self.dtype == "float32" else f".to(torch.{self.dtype})"
        return _TEXT.format(
            layers=indented(layers or ["pass"], 8),
            lines=indented(lines, 8),
            input=self.input,
            seed=self.seed,
            cast=cast,
            setup=indented(self.setup or ["pass"], 8),
            storing=indented([f"lambda model: {call}," for call in self.storing], 4),
        )

    def load(self) -> Any:
        """The text as a Python module, which can be pickled by name and whose lines tracebacks show."""
        return module_of(self.text, f"{self.seed}")
