"""Schedules: how a kernel becomes a loop nest. Chosen by `effcc.passes.tiling`, followed by `effcc.codegen.lower`.

A kernel runs as parallel loops over tiles of its shared axes, inside them at most one sequential loop (tiles of a
reduced axis, whose partial results then rest in local buffers, or the points of a scan), and around and inside that,
nests.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from effcc.ir.kernel import Kernel


@dataclass(frozen=True)
class TiledAxis:
    """An axis cut into tiles of `tile` points."""

    axis: str
    tile: int


@dataclass(frozen=True)
class Nest:
    """Statements computed in one set of loops, by their positions in the kernel.

    The nest runs over `kept` axes (which index its results) and `reduced` axes inside them. `body` statements are
    evaluated at every point of both, `reductions` fold over the reduced axes, `epilogue` statements follow at each
    point of the kept axes, in registers. `lanes` is the axis on the vector unit with the number of elements it takes
    at once (a multiple of the vector's); `unroll` gives the other axes kept in registers. `order` lists all loop
    axes, outermost first. `chunk` says how far an accumulator goes before it is set aside: the nest sums `tile` points
    of that reduced axis, with all reduced axes inside it, in fresh accumulators, which then join the total. `phase`
    places the nest `before`, `inside` or `after` the kernel's sequential loop (`inside` if there is none).
    """

    kept: tuple[str, ...]
    reduced: tuple[str, ...]
    body: tuple[int, ...]
    reductions: tuple[int, ...]
    epilogue: tuple[int, ...]
    lanes: TiledAxis | None = None
    unroll: tuple[TiledAxis, ...] = ()
    order: tuple[str, ...] = ()
    phase: str = "inside"
    chunk: TiledAxis | None = None


@dataclass(frozen=True)
class Pack:
    """A constant operand stored anew so that lanes are contiguous and loads follow the loops.

    The kernel's parameter `packed` takes the place of `buffer[index]`: `packed[axis // width, order..., axis % width]`,
    zero where `axis` is out of range. `kernel` computes it from `buffer`.
    """

    buffer: str
    packed: str
    kernel: Kernel


@dataclass(frozen=True)
class Schedule:
    """The loops of one kernel; `sequential` is a tiled reduced axis or a scan axis. `notes` say why.

    `stepwise`: the parallel loops stand inside the sequential one, along a scan, and threads meet after each step.

    On a GPU a tile of the parallel axes is a program; it runs on `warps` warps, and loops keep the loads of `stages`
    turns in flight (both 0 elsewhere).
    """

    parallel: tuple[TiledAxis, ...]
    nests: tuple[Nest, ...]
    sequential: TiledAxis | None = None
    packs: tuple[Pack, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())
    warps: int = 0
    stages: int = 0
    stepwise: bool = False
