"""Which stored elements share a parameter: all of a weight, those of a channel, or groups along a channel.

Rows are the channels' stored elements, [N, L], as `Levels.rows` gives them; the last group of a row may be shorter.
Parameters have the shape [1], [N] or [N, ceil(L / group)].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from effcc.ir.expr import Expr, floor_div, integer

Array = Any


@dataclass(frozen=True)
class Grid:
    """`per` says who shares; `group` is how many elements of a row do, where groups share."""

    per: Literal["tensor", "channel", "group"]
    group: int = 0

    def shape(self, rows: tuple[int, int]) -> tuple[int, ...]:
        """The shape of parameters for rows of the given shape."""
        match self.per:
            case "tensor":
                return (1,)
            case "channel":
                return (rows[0],)
        return (rows[0], -(-rows[1] // self.group))

    def largest_count(self, rows: tuple[int, int]) -> int:
        """How many elements share one parameter at most."""
        match self.per:
            case "tensor":
                return rows[0] * rows[1]
            case "channel":
                return rows[1]
        return min(self.group, rows[1])

    def counts(self, rows: tuple[int, int]) -> Array:
        """How many elements share each parameter, to be broadcast to their shape."""
        if self.per != "group":
            return np.full(1, self.largest_count(rows))
        return np.minimum(self.group, rows[1] - self.group * np.arange(-(-rows[1] // self.group)))

    def blocks(self, rows: Array, fill: float | None = None) -> Array:
        """Rows as an array whose last axis is what shares a parameter; short groups end with `fill`, or repeat."""
        match self.per:
            case "tensor":
                return rows.reshape(1, -1)
            case "channel":
                return rows
        missing = -rows.shape[1] % self.group
        if missing:
            last = rows[:, -1:] if fill is None else np.full((len(rows), 1), fill, rows.dtype)
            rows = np.concatenate([rows, np.repeat(last, missing, axis=1)], axis=1)
        return rows.reshape(len(rows), -1, self.group)

    def rows(self, blocks: Array, shape: tuple[int, int]) -> Array:
        """The rows, of `shape`, that `blocks` was made from."""
        if self.per != "group":
            return blocks.reshape(shape)
        whole = blocks.reshape(shape[0], -1)
        return whole if whole.shape[1] == shape[1] else whole[:, : shape[1]]

    def spread(self, parameters: Array, columns: range, xp: Any = np) -> Array:
        """The parameter of each element of the given columns: [N, C], or what broadcasts to it."""
        match self.per:
            case "tensor":
                return parameters.reshape(1, 1)
            case "channel":
                return parameters.reshape(-1, 1)
        return parameters[:, xp.arange(columns.start, columns.stop) // self.group]

    def sums(self, xp: Any, rows: Array) -> Array:
        """Sums of the elements that share a parameter."""
        match self.per:
            case "tensor":
                return rows.sum().reshape(1)
            case "channel":
                return rows.sum(1)
        whole = rows.shape[1] // self.group * self.group
        parts = [rows[:, :whole].reshape(rows.shape[0], -1, self.group).sum(-1)] if whole else []
        if whole < rows.shape[1]:
            parts.append(rows[:, whole:].sum(-1).reshape(-1, 1))
        return parts[0] if len(parts) == 1 else xp.concatenate(parts, 1)

    def index(self, channel: Expr, position: Expr) -> Sequence[Expr]:
        """Where the parameter of the element at `position` of a channel stands."""
        match self.per:
            case "tensor":
                return (integer(0),)
            case "channel":
                return (channel,)
        return (channel, floor_div(position, integer(self.group)))
