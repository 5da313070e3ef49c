"""Calls of learned operators (`effcc.fuzz.learned`) in programs, chained with each other and with calls of the table.

A rule's tensors are tensors at hand, where rank and dtype fit, or new inputs; sizes that are not given by those are
solved for, and the shapes that the rule predicts must be those that eager gives.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from effcc.fuzz.learned.dtypes import result_dtype
from effcc.fuzz.learned.explore import left_out
from effcc.fuzz.learned.formula import Shape, Undefined, shape
from effcc.fuzz.learned.record import CODES, Array, Name
from effcc.fuzz.learned.rule import Concrete, Rule
from effcc.fuzz.learned.rule_file import SHIPPED, Operators, read_operators
from effcc.fuzz.learned.solve import solve, vary
from effcc.fuzz.learned.structure import Slot, overload
from effcc.fuzz.programs.places import Places, Unfit
from effcc.fuzz.programs.values import LAYOUTS

if TYPE_CHECKING:
    from effcc.fuzz.programs.draw import _Draw

FILE = "EFFCC_FUZZ_OPERATORS"
"""The environment variable that names the file of learned operators."""
_CODES = {name: code for code, name in CODES.items()}
_AT_HAND = 0.75  # how often a tensor at hand is taken where one fits


@functools.cache
def operators() -> Operators:
    """The learned operators of this process, those that this PyTorch has."""
    found = read_operators(Path(os.environ.get(FILE) or SHIPPED))
    return Operators(
        [r for r in found.rules if _known(r.operator)], [c for c in found.concrete if _known(c.operator)], found.damaged
    )


def are_wanted() -> bool:
    """Whether programs have learned operators: not of themselves yet, as seven of 77 raised alarms."""
    return bool(os.environ.get(FILE))


def use(path: Path) -> None:
    """Take the learned operators of a file, in processes begun from now on, too. Raises OperatorsError."""
    read_operators(path)
    os.environ[FILE] = str(path.resolve())
    forget()


def forget() -> None:
    """Read the file again when operators are next drawn."""
    operators.cache_clear()
    by_operator.cache_clear()


def _known(operator: str) -> bool:
    return not left_out(operator)


@functools.cache
def by_operator() -> tuple[tuple[Rule | Concrete, ...], ...]:
    """Rules and concrete calls, those of an operator together."""
    found: dict[str, list[Rule | Concrete]] = {}
    every: list[Rule | Concrete] = [*operators().rules, *operators().concrete]
    for one in every:
        found.setdefault(one.operator, []).append(one)
    return tuple(map(tuple, found.values()))


class LearnedCall:
    """One call of a learned operator: its text, the inputs that it needs, and what shapes it will have."""

    def __init__(self, draw: _Draw, learned: Rule | Concrete) -> None:
        self._draw, self._random = draw, draw.random
        self.read: list[str] = []
        self.shapes: list[Shape] | None = None
        self.dtypes: list[str] = []
        self._rule = learned
        if isinstance(learned, Rule):
            arguments = self._of_rule(learned)
        else:
            arguments = {n: self._text(v) for n, v in learned.arguments.items()}
            self.shapes = [r.shape for r in learned.results]
            self.dtypes = [r.dtype for r in learned.results]
        self.text = f"torch.ops.{learned.operator}({', '.join(_placed(learned.operator, arguments))})"
        self.count = len(self.shapes or ())
        self.is_list = _gives_list(learned.operator)

    def _of_rule(self, rule: Rule) -> dict[str, str]:
        """The texts of arguments by name. Raises Unfit where there are no sizes."""
        random = self._random
        ranks = dict(self._ranks(rule))
        bound = self._bound(rule, ranks)
        fixed = {f"{n}_{a}": s for n, t in bound.items() for a, s in enumerate(self._draw.value(t).shape)}
        sizes = frozenset(f"{n}_{a}" for n, (rank, _) in ranks.items() for a in range(rank))
        start = {n: random.choice((1, 2, 3, 4, 5, 7, 8)) for n in sorted(sizes)}
        start |= {n: v for n, v in rule.seen.items() if n in start or n not in ranks}
        start |= self._aligned(rule, ranks, {**start, **fixed})
        for name, slot in rule.slots:
            if slot.kind in ("int", "ints"):
                every = [name] if slot.kind == "int" else [f"{name}_{k}" for k in range(slot.count)]
                start |= {n: rule.seen.get(n, random.choice((1, 1, 2, 3))) for n in every}
        facts = functools.partial(_facts, {n: rank for n, (rank, _) in ranks.items()})
        found = solve(rule, start, sizes, fixed, facts, random)
        if found is None:
            raise Unfit
        if len(found) > len(fixed):
            found = vary(rule, found, sizes, fixed, facts, random)
        try:
            self.shapes = [shape(text, facts(found)) for text in rule.gives]
        except Undefined:
            raise Unfit from None
        dtypes = self._dtypes(rule, bound, list(ranks))
        arguments = {name: self._argument(name, slot, ranks, bound, found, dtypes) for name, slot in rule.slots}
        asked = next((s.literal for n, s in rule.slots if n == "dtype"), None)
        typed = {n: (dtypes[n], rank) for n, (rank, _) in ranks.items()}
        self.dtypes = [result_dtype(text, typed, asked) for text in rule.types.results]
        return arguments

    def _ranks(self, rule: Rule) -> Iterator[tuple[str, tuple[int, str]]]:
        """The rank and filling of every tensor by its name."""
        chosen = self._random.choice((1, 2, 2, 3, 4, 0))
        for name, slot in rule.slots:
            if slot.kind == "tensor":
                rank = slot.ranks[0]
                if rank is None:
                    rank = chosen if self._random.random() < 0.8 else self._random.choice((0, 1, 2, 3))
                yield name, (rank, slot.fills[0])
            elif slot.kind == "tensors":
                for k, (each, fill) in enumerate(zip(slot.ranks, slot.fills, strict=True)):
                    if each is not None and each >= 0:
                        yield f"{name}_{k}", (each, fill)

    def _aligned(
        self, rule: Rule, ranks: Mapping[str, tuple[int, str]], found: Mapping[str, int]
    ) -> Iterator[tuple[str, int]]:
        """Of tensors of any rank, the last axes are mostly as long as those of the first."""
        first, (most, _) = next(iter(ranks.items()), ("", (0, "")))
        for name, (rank, _) in ranks.items() if rule.any_rank else ():
            for axis in range(min(rank, most)):
                size = found[f"{first}_{most - 1 - axis}"]
                yield f"{name}_{rank - 1 - axis}", 1 if self._random.random() < 0.1 else size

    def _bound(self, rule: Rule, ranks: dict[str, tuple[int, str]]) -> dict[str, str]:
        """Tensors at hand for some of the rule's."""
        draw, random = self._draw, self._random
        anywhere = {n for n, s in rule.slots if s.kind == "tensor" and s.ranks[0] is None}
        found: dict[str, str] = {}
        given: dict[str, str] = {}
        for name, allowed in rule.types.allowed:
            rank, fill = ranks[name]
            wanted = (given.get(allowed, ""),) if isinstance(allowed, str) else allowed
            if fill != "any" or random.random() > _AT_HAND or (isinstance(allowed, str) and allowed not in given):
                continue
            fitting = [
                n for n in draw.tensors()
                if (name in anywhere or draw.value(n).dim() == rank) and _code(draw.value(n)) in wanted
            ]  # fmt: skip
            unread = [n for n in fitting if n in draw.unread]
            if fitting:
                taken = random.choice(unread if unread and random.random() < 0.7 else fitting)
                found[name], given[name] = taken, _code(draw.value(taken))
                ranks[name] = draw.value(taken).dim(), fill
        return found

    def _dtypes(self, rule: Rule, bound: Mapping[str, str], names: list[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, allowed in rule.types.allowed:
            if name in bound:
                found[name] = _code(self._draw.value(bound[name]))
            elif isinstance(allowed, str):
                found[name] = found.get(allowed, "f32")
            else:
                leaning = [a for a in allowed if a == "f32"] * 3 or [a for a in allowed if a == "i64"]
                found[name] = self._random.choice([*allowed, *leaning])
        return {n: found.get(n, "f32") for n in names}

    def _argument(
        self, name: str, slot: Slot, ranks: Mapping[str, tuple[int, str]], bound: Mapping[str, str],
        numbers: Mapping[str, int], dtypes: Mapping[str, str],
    ) -> str:  # fmt: skip
        def tensor(name: str) -> str:
            if name in bound:
                self.read.append(bound[name])
                return bound[name]
            rank, fill = ranks[name]
            return self._input(
                Array(dtypes[name], tuple(numbers[f"{name}_{a}"] for a in range(rank)), None, fill), bound
            )

        match slot.kind:
            case "tensor":
                return tensor(name)
            case "tensors":
                parts = [tensor(f"{name}_{k}") if r != -1 else "None" for k, r in enumerate(slot.ranks)]
                return f"[{', '.join(parts)}]"
            case "int":
                return str(numbers[name])
            case "ints":
                return f"[{', '.join(str(numbers[f'{name}_{k}']) for k in range(slot.count))}]"
            case "number":
                return self._number(slot.literal)
            case _:
                return self._text(slot.literal)

    def _number(self, accepted: Sequence[Any]) -> str:
        """A number that was accepted; at times another."""
        random = self._random
        value = random.choice(accepted)
        if random.random() < 0.9 or isinstance(value, bool):
            return self._text(value)
        return repr(random.randint(-3, 9) if isinstance(value, int) else random.choice((0.25, 1e-3, -0.5, 3.0)))

    def _text(self, value: Any) -> str:
        if isinstance(value, Array):
            return self._input(value, {})
        if isinstance(value, Name):
            return value.text
        if isinstance(value, tuple):
            return f"[{', '.join(map(self._text, value))}]"
        return repr(value)

    def _input(self, array: Array, bound: Mapping[str, str]) -> str:
        """A new input."""
        draw, random = self._draw, self._random
        sizes = [self._size(size, bound) for size in array.shape]
        told = f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
        dtype, seed = CODES[array.dtype], random.randrange(1000)
        if array.fill == "index" and dtype.startswith(("int", "uint")):
            text = f'indices({told}, 2, "any", {seed}).to(torch.{dtype})'
            return draw.add_input(text.removesuffix(".to(torch.int64)"))
        if "float" in dtype:
            kind = "normal" if draw.calm else random.choice(("normal", "special", "large", "vast", "halves"))
            text = f'tensor({told}, torch.{dtype}, "{kind}", {seed})'
            text = f"{text}.sigmoid()" if array.fill == "unit" else text
        else:
            kind = "normal" if dtype == "bool" or draw.calm else random.choice(("normal", "full", "extreme"))
            text = f'tensor({told}, torch.{dtype}, "{kind}", {seed})'
        if random.random() < 0.15:
            text = f'laid({text}, "{random.choice(LAYOUTS)}")'
        learned = draw.mode.endswith("training") and "float" in dtype and random.random() < 0.5
        return draw.add_input(text, learned)

    def _size(self, size: int, bound: Mapping[str, str]) -> str:
        """A size as an expression of the sizes of calls, where a tensor of this call has it."""
        draw = self._draw
        if len(draw.envs) > 1:
            for name in bound.values():
                for axis, other in enumerate(draw.value(name).shape):
                    if other == size:
                        return Places(draw).dim(name, axis)
        return str(size)

    def require_as_predicted(self, found: Sequence[Any]) -> None:
        """Raises Unfit where results have not the shapes and dtypes that were predicted."""
        if not all(isinstance(t, Tensor) for t in found) or [tuple(t.shape) for t in found] != self.shapes:
            raise Unfit
        if not self._draw.mode.startswith("autocast") and [_code(t) for t in found] != self.dtypes:
            raise Unfit


def _code(t: Tensor) -> str:
    return _CODES.get(str(t.dtype).removeprefix("torch."), "")


def _facts(ranks: Mapping[str, int], numbers: Mapping[str, int]) -> dict[str, int | Shape]:
    shapes = {n: tuple(numbers[f"{n}_{a}"] for a in range(rank)) for n, rank in ranks.items()}
    return {**numbers, **shapes}


def _placed(operator: str, arguments: Mapping[str, str]) -> Iterator[str]:
    """Arguments by place as long as none is missing, then by name."""
    by_place = True
    for argument in overload(operator)._schema.arguments:
        by_place &= argument.name in arguments and not argument.kwarg_only
        if argument.name in arguments:
            yield arguments[argument.name] if by_place else f"{argument.name}={arguments[argument.name]}"


def _gives_list(operator: str) -> bool:
    returns = overload(operator)._schema.returns
    return len(returns) != 1 or isinstance(returns[0].type, torch.ListType)
