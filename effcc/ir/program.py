"""Programs: a graph after fusion. Buffers, and steps that launch kernels or call PyTorch, in order.

    program @mlp(x, w) -> (y) where s0 in 1..512 {
      buffer x: f32[s0,384] in input
      buffer w: f32[1536,384] in weight
      buffer w.packed: f32[48,384,32] in prepared
      buffer y: f32[s0,1536] in output
      kernel @pack(W: f32[1536,384]) -> (P: f32[48,384,32]) over b=48, k=384, n=32 {
        P[b,k,n] = W[32 * b + n,k]
      }
      kernel @linear(X: f32[s0,384], P: f32[48,384,32]) -> (Y: f32[s0,1536]) over m=s0, j=1536, k=384 {
        Y[m,j] = sum(k: X[m,k] * P[j // 32,k,j % 32])
      }
      prepare {
        launch @pack(w) -> (w.packed)
      }
      main {
        launch @linear(x, w.packed) -> (y)
      }
    }

A step list without extern calls runs as one native function. Each extern call ends a segment: Python runs the call and
enters the next segment.

Control flow is made of steps that hold steps. All threads run them together, and decide alike: each reads the one bool
that a launch has stored.

      if flag {                                   loop {
        launch @double(x) -> (y)                    launch @less(i, n) -> (flag)
      } else {                                    } while flag {
        launch @half(x) -> (y)                      launch @next(i, x) -> (i, x)
      }                                           }
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from effcc.ir.dims import hints, symbols
from effcc.ir.graph import Attribute, Graph
from effcc.ir.kernel import Kernel
from effcc.ir.types import TensorType

SIZE_HINT = 128
"""What a size that is only known at run time counts as."""


@dataclass(frozen=True)
class Buffer:
    """A tensor with storage. `space`: `input`, `weight`, `prepared` (computed from weights), `output` or `arena`.

    `offset` is the place in the arena, in bytes at the size hints, once memory is planned; `alias` names the buffer
    whose storage this one shares (an in-place result, or a view of the same elements with another shape).
    """

    name: str
    type: TensorType
    space: str
    offset: int | None = None
    alias: str = ""


@dataclass(frozen=True)
class Check:
    """What a run-time check guards in the user's model, for the error it raises.

    `kind`: `index`, `index from either end` (negative ones count from the end), `divisor` or `requirement`; `op` is the
    op's name, or what a requirement says; `dimension` is the indexed one. `order` is the op's place in the model: of
    several checks that fail, eager would meet the lowest first.
    """

    order: int
    kind: str
    op: str
    location: str = ""
    dimension: int = 0


@dataclass(frozen=True)
class Launch:
    """Run `kernel` (a key of `Program.kernels`) on buffers: its parameters, then its outputs, in the kernel's order.

    `checks` says what the kernel's run-time checks, by their numbers, mean here; they have no meaning for the
    computation.
    """

    kernel: str
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    checks: tuple[Check, ...] = ()

    @property
    def touched(self) -> tuple[str, ...]:
        """The buffers it reads, then those it writes: in the order of the kernel's signature."""
        return (*self.arguments, *self.results)


@dataclass(frozen=True)
class Join:
    """Copy many buffers into one, one after the other along `axis`: a concatenation of too many tensors for a kernel,
    which would ask of every element which tensor it comes from."""

    arguments: tuple[str, ...]
    results: tuple[str]
    axis: int

    @property
    def touched(self) -> tuple[str, ...]:
        """The buffers it reads, then the one it writes."""
        return (*self.arguments, *self.results)


@dataclass(frozen=True)
class Extern:
    """A step outside native code: the graph op `op` on buffers, run by PyTorch or, where it has regions, by Python
    around programs of their own. `reason` says why: no index form, control flow, or PyTorch is faster here."""

    op: str
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    attrs: Mapping[str, Attribute] = field(default_factory=dict)
    reason: str = ""
    location: str = ""
    regions: tuple[Graph, ...] = ()

    @property
    def touched(self) -> tuple[str, ...]:
        """The buffers it reads, then those it writes."""
        return (*self.arguments, *self.results)


@dataclass(frozen=True)
class _Blocks(ABC):
    """Lists of steps that run as the buffer `condition`, one bool, says."""

    condition: str

    @property
    @abstractmethod
    def blocks(self) -> tuple[tuple[Step, ...], ...]:
        """The lists of steps in it."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """The buffers that it reads, on any way, in any turn."""
        return _distinct((self.condition,), *(s.arguments for block in self.blocks for s in block))

    @property
    def results(self) -> tuple[str, ...]:
        """The buffers that it writes, on any way, in any turn."""
        return _distinct(*(s.results for block in self.blocks for s in block))

    @property
    def touched(self) -> tuple[str, ...]:
        return (*self.arguments, *self.results)


@dataclass(frozen=True)
class Branch(_Blocks):
    """Run the steps `then` where the buffer `condition`, one bool, holds true, else those of `orelse`."""

    then: tuple[Step, ...]
    orelse: tuple[Step, ...]
    location: str = ""

    @property
    def blocks(self) -> tuple[tuple[Step, ...], ...]:
        """The lists of steps in it."""
        return self.then, self.orelse

    def with_blocks(self, then: tuple[Step, ...], orelse: tuple[Step, ...]) -> Branch:
        return replace(self, then=then, orelse=orelse)


@dataclass(frozen=True)
class Loop(_Blocks):
    """Run the steps `test`, which write the buffer `condition`, one bool; while it holds true, `body` and `test` again.

    What steps read of an earlier turn they read from a buffer that is written before the loop.
    """

    test: tuple[Step, ...]
    body: tuple[Step, ...]
    location: str = ""

    @property
    def blocks(self) -> tuple[tuple[Step, ...], ...]:
        """The lists of steps in it."""
        return self.test, self.body

    def with_blocks(self, test: tuple[Step, ...], body: tuple[Step, ...]) -> Loop:
        return replace(self, test=test, body=body)


def _distinct(*names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(n for group in names for n in group))


Control = Branch | Loop
"""Steps that hold steps."""
Native = Launch | Join | Branch | Loop
"""Steps of native code."""
Step = Launch | Join | Branch | Loop | Extern


def nested(steps: Iterable[Step]) -> Iterator[Step]:
    """The steps, and after each that holds others all of those."""
    for step in steps:
        yield step
        if isinstance(step, Branch | Loop):
            for block in step.blocks:
                yield from nested(block)


def within(steps: Iterable[Step]) -> Iterator[Launch | Join | Extern]:
    """The steps that do something, those in control flow among them, in the order of the text."""
    for step in nested(steps):
        if not isinstance(step, Branch | Loop):
            yield step


def changed(steps: Iterable[Step], change: Callable[[Launch | Join | Extern], Iterable[Step]]) -> tuple[Step, ...]:
    """The steps with each that does something, in control flow too, replaced by those that `change` gives."""
    found: list[Step] = []
    for step in steps:
        if isinstance(step, Branch | Loop):
            first, second = step.blocks
            found.append(step.with_blocks(changed(first, change), changed(second, change)))
        else:
            found += change(step)
    return tuple(found)


@dataclass(frozen=True)
class Program:
    """Buffers, kernels by name, and two lists of steps.

    `prepare` runs when weights are first seen and when they change; `steps` run at every call. `inputs` and `outputs`
    name buffers in the call's order (weights among the inputs, at their places); `updates` pairs an input with the
    buffer whose value it takes after the call. `ranges` bounds the size symbols, as in a graph.
    """

    name: str
    buffers: tuple[Buffer, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kernels: Mapping[str, Kernel]
    steps: tuple[Step, ...]
    prepare: tuple[Step, ...] = ()
    updates: tuple[tuple[str, str], ...] = ()
    ranges: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)

    def buffer(self, name: str) -> Buffer:
        """The buffer called `name`; KeyError if there is none."""
        return self.by_name[name]

    @cached_property
    def by_name(self) -> Mapping[str, Buffer]:
        return {b.name: b for b in self.buffers}

    def memory_of(self, name: str) -> str:
        """The buffer whose memory `name` stands for: its own, or that of the last of its aliases."""
        buffers = self.by_name
        while buffers[name].alias:
            name = buffers[name].alias
        return name

    @property
    def written(self) -> frozenset[str]:
        """The buffers whose memory a call writes."""
        return frozenset(self.memory_of(n) for step in self.steps for n in step.results)

    @property
    def launches(self) -> list[Launch]:
        """What a call launches or may launch, in order: in control flow, too."""
        return [s for s in within(self.steps) if isinstance(s, Launch)]

    @property
    def prepared_by(self) -> frozenset[str]:
        """The kernels that `prepare` launches, once for all calls."""
        return frozenset(s.kernel for s in self.prepare if isinstance(s, Launch))

    @property
    def externs(self) -> list[Extern]:
        """The calls to PyTorch, in order; those of `prepare` first."""
        return [s for s in (*self.prepare, *self.steps) if isinstance(s, Extern)]

    def segments(self) -> list[tuple[Step, ...]]:
        """The steps cut at extern calls: runs of native steps, and each extern call alone."""
        found: list[tuple[Step, ...]] = []
        launches: list[Step] = []
        for step in self.steps:
            if not isinstance(step, Extern):
                launches.append(step)
                continue
            if launches:
                found.append(tuple(launches))
                launches = []
            found.append((step,))
        if launches:
            found.append(tuple(launches))
        return found

    def with_steps(self, steps: tuple[Step, ...]) -> Program:
        return replace(self, steps=steps)


def fresh_name(base: str, taken: Container[str]) -> str:
    """`base`, or the first of `base_1`, `base_2` ... that is not taken."""
    name, n = base, 0
    while name in taken:
        n += 1
        name = f"{base}_{n}"
    return name


def size_hints(program: Program) -> dict[str, int]:
    """A value for every size symbol: what `hinted` says, else `SIZE_HINT`, brought within the symbol's range."""
    found, known = {}, hints()
    for size in symbols(d for b in program.buffers for d in (*b.type.shape, *b.type.layout)):
        low, high = program.ranges.get(size.name, (0, None))
        hint = known.get(size.name, SIZE_HINT)
        found[size.name] = max(low, hint if high is None else min(high, hint))
    return found
