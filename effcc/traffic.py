"""What each kernel's bytes are: weights, what a call is given and gives, and what goes from one kernel to the next."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from effcc.ir.program import Launch, Program, nested, within
from effcc.roofline import Work


@dataclass
class Traffic:
    """One kernel's bytes in a call. weight_bytes: of an element of the largest of its weights, where it is a float;
    else 0: it is stored already. between: the bytes that go to or come from each other kernel, and by how many
    launches."""

    weights: float = 0.0
    weight_bytes: int = 0
    between: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    pairs: Counter[str] = field(default_factory=Counter)

    @property
    def partner(self) -> str:
        """The kernel with most bytes between; empty where there is none."""
        return max(self.between, key=lambda name: self.between[name], default="")


def traffic(program: Program, works: Mapping[str, Work]) -> dict[str, Traffic]:
    """The traffic of every kernel that is launched, by name. works: what a launch of each does.

    Between two kernels is only what a launch of one writes and a launch of the other alone reads: what others read
    too, or a call gives, has to be written anyway.
    """
    found: dict[str, Traffic] = defaultdict(Traffic)
    writers: dict[str, str] = {}
    readers: Counter[str] = Counter(n for step in within(program.steps) for n in set(step.arguments))
    largest: Counter[str] = Counter()
    for step in nested(program.steps):
        if not isinstance(step, Launch):
            for name in step.results:
                writers.pop(name, None)
            continue
        own, does = found[step.kernel], works[step.kernel]
        partners = set()
        for param, name in zip(program.kernels[step.kernel].signature, step.touched, strict=True):
            moved = does.moved.get(param.name, 0.0)
            space = program.buffer(program.memory_of(name)).space
            if space in ("weight", "prepared"):
                own.weights += moved
                if moved > largest[step.kernel]:
                    largest[step.kernel] = int(moved)
                    own.weight_bytes = param.type.dtype.bytes if param.type.dtype.is_float else 0
            elif name in step.arguments and name in writers and readers[name] == 1 and space == "arena":
                writer = writers[name]
                for one, other in ((step.kernel, writer), (writer, step.kernel)):
                    found[one].between[other] += moved
                partners.add(writer)
        for writer in partners:
            own.pairs[writer] += 1
            found[writer].pairs[step.kernel] += 1
        writers |= dict.fromkeys(step.results, step.kernel)
    return dict(found)
