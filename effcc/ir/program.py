"""Programs: a graph after fusion. Buffers, and steps that launch kernels or call PyTorch, in order.

A step list without extern calls runs as one native function. Each extern call ends a segment: Python runs the call and
enters the next segment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from effcc.ir.graph import Attribute
from effcc.ir.kernel import Kernel
from effcc.ir.types import TensorType


@dataclass(frozen=True)
class Buffer:
    """A tensor with storage. `space`: `input`, `weight`, `prepared` (computed from weights), `output` or `arena`."""

    name: str
    type: TensorType
    space: str


@dataclass(frozen=True)
class Launch:
    """Run `kernel` (a key of `Program.kernels`) on buffers: its parameters, then its outputs, in the kernel's order."""

