"""Schedules: how a kernel becomes loops. `effcc.passes.tiling` chooses them, people edit them, codegen follows them.

A schedule is a tree of loops over tiles, with the statements of a kernel at its leaves. A product whose sums go through
the cache in blocks of k, its panels of W packed, and what follows it:

    schedule @linear {
      pack W along n by 48 order k
      parallel n by 384, m by 64 {
        hold O in local {
          for k by 256 {
            for n by 48 lanes, m by 8 unroll {
              hold O in registers {
                for k by 1 { do O }
              }
            }
          }
          for n by 48 lanes, m by 8 unroll { do Y }
        }
      }
    }

Every construct has one meaning, whatever stands around it:

- `for m by 64 { ... }` cuts what is left of axis m, outermost all of it, into tiles of 64 points, one after the other;
  the rest, if 64 does not divide, is a smaller tile with code of its own (a peeled border), and so are the tiles of an
  axis on which padded windows end, so that the others need no condition. Inside, m is what is left to be cut; by 1, a
  point. `parallel` says that tiles may run at once. `for n by 8, m by 4` nests loops.
- `packed` says that points of a reduced axis are packed neighbours of a dot product, which adds all of them up.
- `lanes`, `unroll` and `block` say that a tile's points are computed together: in the lanes of vectors, in registers of
  their own, as a block of a GPU's program. A rest is then a smaller tile, or a masked one where its size is not known.
- `hold S in local { ... }` gives S a buffer as large as what is left of its axes there; `registers`, one for the points
  computed together there. Of a scan whose every step reads the one before, it keeps one step, and stands around the
  scan's loop. Of a reduction, it begins at the operator's identity, and what is reduced in a `hold` further
  in joins it at the end of that: so partial sums rest in registers, in a block in the cache, or in both; it is read
  after its innermost hold. A result that nothing holds is in registers where it was computed, for the statements that
  follow there.
- `tiles` holds a sum's accumulators in tile registers, 16 rows by 16 lanes each: a product whose tiles of 32 by 32 sums
  take four of them, `for n by 32 lanes, m by 32 unroll { hold O in tiles { for k by 32 packed { do O } } }`.
- `do S` computes statement S at the points of the loops around it: all its axes, the reduced ones inside its `hold`.
- `pack W along n by 48 order k` stores the constant operand W anew as `W[n // 48, k, n % 48]`, once; `group 2` of them
  as `W[n // 48, k // 2, n % 48, k % 2]`: what is packed for a dot product are neighbours.

Attention walks the keys 256 at a time: the running maximum M, the sum D and the result O rest between the turns, and
the scores S and weights P of one turn stay in the cache:

    schedule @attention {
      parallel m by 16 {
        hold M, D, O in local {
          for n by 256 {
            hold S, P in local {
              for n by 32 lanes, m by 8 unroll { hold S in registers { for d by 1 { do S } } }
              for m by 1 {
                hold M in registers { for n by 32 lanes { do M } }
                hold D in registers { for n by 32 lanes { do P do D } }
              }
              for f by 32 lanes, m by 8 unroll { hold O in registers { for n by 1 { do O } } }
            }
          }
          for m by 1, f by 32 lanes { do Y }
        }
      }
    }

On a GPU a tile of the parallel loops is a program, which runs on `warps` warps; `stages` of a loop says the loads of
how many turns are in flight. Tiles are blocks, of one size for each axis, masked where they stick out; buffers are in
registers too, and as large as the blocks of their axes:

    schedule @softmax warps 4 {
      parallel i by 1 {
        hold E in registers {
          hold M in registers {
            for n by 64 block stages 2 { do M }
          }
          hold D in registers {
            for n by 64 block stages 2 {
              do E
              do D
            }
          }
          for n by 64 block stages 2 { do P }
        }
      }
    }
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from effcc.ir.kernel import Kernel, Statement

PARALLEL, SERIAL = "parallel", "for"
TOGETHER = ("lanes", "unroll", "block", "packed")
"""What becomes of a tile whose points are computed together."""
SPACES = ("local", "registers", "tiles")
ACCUMULATORS = ("registers", "tiles")
"""Where the accumulators of a reduction are."""

Path = tuple[int, ...]
"""Where a node stands: its number among its siblings, after those of the nodes around it."""


@dataclass(frozen=True)
class Loop:
    """A loop over tiles of `step` points of an axis; `together`: one of `TOGETHER`, or empty for a range to be cut."""

    kind: str
    axis: str
    step: int
    body: tuple[Node, ...]
    together: str = ""
    stages: int = 1


@dataclass(frozen=True)
class Hold:
    """Buffers for results of statements, alive in `body`; `space` is one of `SPACES`."""

    targets: tuple[str, ...]
    space: str
    body: tuple[Node, ...]


@dataclass(frozen=True)
class Do:
    """A statement, by its target; where several define one target, they come in the kernel's order."""

    target: str


Node = Loop | Hold | Do


@dataclass(frozen=True)
class Pack:
    """A constant operand stored anew: `buffer[axis // width, order..., axis % width]`, 0 where `axis` has ended.

    So many points of the last axis of `order` as a `group` has are innermost instead, 0 where that axis has ended.
    """

    buffer: str
    axis: str
    width: int
    order: tuple[str, ...]
    group: int = 1


@dataclass(frozen=True)
class Schedule:
    """The loops of one kernel. `seconds` is the prediction (0: none was made), `notes` say why, `warps` 0 on a CPU."""

    body: tuple[Node, ...]
    packs: tuple[Pack, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    warps: int = 0

    @property
    def stages(self) -> int:
        """The loads of how many turns are in flight, in the loop that has most."""
        return max((node.stages for _, node in nodes(self.body) if isinstance(node, Loop)), default=1)


@dataclass(frozen=True)
class Place:
    """Where a statement is computed: its position in the kernel, and the nodes around it, outermost first."""

    position: int
    path: Path
    around: tuple[Loop | Hold, ...]

    @property
    def loops(self) -> tuple[Loop, ...]:
        return tuple(n for n in self.around if isinstance(n, Loop))

    @property
    def lanes(self) -> str | None:
        """The axis in the lanes of vectors."""
        return next((loop.axis for loop in self.loops if loop.together == "lanes"), None)


def nodes(body: tuple[Node, ...], path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Every node with its path, those around it first."""
    for number, node in enumerate(body):
        at = (*path, number)
        yield at, node
        if not isinstance(node, Do):
            yield from nodes(node.body, at)


def places(kernel: Kernel, schedule: Schedule) -> list[Place]:
    """Where each statement is computed, in the order of the schedule; what names no statement of the kernel is left
    out, which `effcc.ir.verifier.verify_schedule` refuses.
    """
    positions: dict[str, list[int]] = {}
    for n, s in enumerate(kernel.statements):
        positions.setdefault(s.target, []).append(n)
    found: list[Place] = []

    def visit(body: tuple[Node, ...], path: Path, around: tuple[Loop | Hold, ...]) -> None:
        for number, node in enumerate(body):
            at = (*path, number)
            if not isinstance(node, Do):
                visit(node.body, at, (*around, node))
            elif positions.get(node.target):
                found.append(Place(positions[node.target].pop(0), at, around))

    visit(schedule.body, (), ())
    return found


def rests(hold: Hold, s: Statement) -> bool:
    """Whether partial results of a reduction rest in a hold: a reduced axis is cut between it and the next inside."""
    reduced = set(s.reduction.axes) if s.reduction is not None else set()

    def cut(body: tuple[Node, ...], inside: bool) -> bool:
        for node in body:
            match node:
                case Loop() if cut(node.body, inside or node.axis in reduced):
                    return True
                case Hold() if s.target in node.targets:
                    if inside:
                        return True
                case Hold() if cut(node.body, inside):
                    return True
        return False

    return cut(hold.body, False)
