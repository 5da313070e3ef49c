"""A program as a text: its inputs, its state, its lines, and how it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from effcc.fuzz.texts import indented, module_of

_TEXT = """import torch
import torch.nn.functional as F
from torch import inf, nan, nn
from torch._higher_order_ops import while_loop

from effcc.fuzz.programs.values import indices, laid, tensor


class Program(nn.Module):
    def __init__(self):
        super().__init__()
{state}

    def forward(self, {names}):
{lines}
        return {results}


def inputs({sizes}):
{inputs}
    return {names},
"""

WAYS = ("compiled", "interpreted", "traced", "recorded")
MODES = ("no_grad", "training", "inference", "autocast", "autocast_training")


@dataclass(frozen=True)
class Input:
    """An argument: its name, and an expression of the sizes and of earlier inputs."""

    name: str
    text: str


@dataclass(frozen=True)
class Case:
    """A program, and how it is called.

    state: parameters and buffers by name, each an expression. lines: the statements of `forward`. results: what it
    returns. calls: the sizes of each call, by name. dynamic: as torch.compile takes it. mode: one of `MODES`. learned:
    the inputs that gradients are wanted of. change: a statement about `program` that is run after each call. export:
    whether a package is called instead of what is compiled. target: as effcc takes it. way: one of `WAYS`: whether its
    graphs are compiled, or interpreted as they are imported (`effcc.fuzz.programs.interpreted`), those of Dynamo's
    trace or of one that takes less time (`effcc.fuzz.programs.traced`), of known sizes if they are recorded.
    """

    seed: int
    inputs: tuple[Input, ...]
    state: tuple[tuple[str, str], ...]
    lines: tuple[str, ...]
    results: tuple[str, ...]
    calls: tuple[tuple[tuple[str, int], ...], ...]
    dynamic: bool | None = False
    mode: str = "no_grad"
    learned: tuple[str, ...] = ()
    change: str = ""
    export: bool = False
    target: str = "host"
    way: str = "compiled"

    @property
    def trains(self) -> bool:
        """Whether gradients are asked for."""
        return self.mode.endswith("training")

    @property
    def text(self) -> str:
        """The class `Program` and the function `inputs`."""
        names = ", ".join(i.name for i in self.inputs)
        made = [f"{i.name} = {i.text}" for i in self.inputs]
        made += [f"{name}.requires_grad_()" for name in self.learned]
        held = [f"self.{name} = {text}" for name, text in self.state]
        return _TEXT.format(
            state=indented(held or ["pass"], 8),
            names=names,
            lines=indented(self.lines or ["pass"], 8),
            results="".join(f"{r}, " for r in self.results).rstrip() or "()",
            sizes=", ".join(name for name, _ in self.calls[0]),
            inputs=indented(made, 4),
        )

    def load(self) -> Any:
        """The text as a Python module whose lines tracebacks show."""
        return module_of(self.text, f"program_{self.seed}")
