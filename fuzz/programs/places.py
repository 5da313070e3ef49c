"""What stands in a place of a call of the table: an operand at hand or a new input, an axis, an index, a number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from effcc.fuzz.programs.table import VALUES
from effcc.fuzz.programs.values import LAYOUTS

if TYPE_CHECKING:
    from effcc.fuzz.programs.draw import _Draw

FLOATS = ("float32",) * 7 + ("float64", "bfloat16", "float16")
INTEGERS = ("int64", "int64", "int64", "int32", "int32", "uint8", "uint8", "int8", "int16")
DTYPES = (*FLOATS[6:], "float32", *INTEGERS[2:], "bool")
CALM = ("normal", "normal", "normal", "positive", "whole", "halves", "flat")
WILD = ("large", "near", "vast", "special", "zeros", "special", "normal")
_TENSOR = re.compile(r"(m?)([tfibn]?)(\d?)(\+?)$")
_EXPRESSIONS = (
    *("n", "m", "n + 1", "n - 1", "m + 1", "m - 1", "2 * n", "2 * m", "n * m", "n + m", "n // 2", "m // 2", "4 * n"),
    *("n * (m + 1)", "m * (n + 1)", "3 * n", "3 * m", "n - 2", "m - 2", "n + 2", "m + 2"),
)
_RANKS = (1, 2, 2, 2, 3, 3, 4, 0)


class Unfit(Exception):
    """What is drawn does not fit."""


class Places:
    """The places of one call, filled from left to right."""

    def __init__(self, draw: _Draw) -> None:
        self._draw, self._random = draw, draw.random
        self._subject = ""
        self._axis = 0
        self._seen: set[str] = set()
        self.fresh: list[str] = []
        self.read: list[str] = []

    def name(self) -> str:
        """A fresh name for a result."""
        found = self._draw.fresh(self.fresh)
        self.fresh.append(found)
        return found

    def fill(self, token: str) -> str:
        """The text for a place."""
        special = getattr(self, f"_{_SPECIAL[token]}", None) if token in _SPECIAL else None
        if special is not None:
            found: str = special()
            return found
        if token in VALUES:
            return self._random.choice(VALUES[token])
        if token.startswith(("w:", "v:")):
            return self._weight([int(k) for k in token[2:].split(",")], token[0] == "v")
        if token[0] in "&=":
            return self._operand(token[0], token[1:])
        writes, kind, rank, more = _TENSOR.match(token).groups()  # type: ignore[union-attr]
        if token in self._seen and self._random.random() < 0.85:
            return self._subject
        self._seen.add(token)
        chosen = self.tensor(kind or "t", int(rank) if rank else None, bool(more), bool(writes))
        self._subject = self._subject or chosen
        return chosen

    # Tensors ----------------------------------------------------------------------------------------------------------

    def tensor(self, kind: str, rank: int | None, more: bool, writes: bool = False) -> str:
        """A tensor of a kind and rank: one at hand, or a new input."""
        draw, random = self._draw, self._random
        fitting = [n for n in draw.tensors() if _is_of(draw.value(n), kind, rank, more)]
        if writes:
            fitting = [n for n in fitting if not n.startswith("self.") or random.random() < 0.3]
        if fitting and random.random() < 0.9:
            made = [n for n in fitting if n in draw.unread]
            return self._reads(random.choice(made if made and random.random() < 0.6 else fitting))
        least = rank or 0
        wanted = rank if rank is not None and not more else random.choice([r for r in _RANKS if r >= least] or [least])
        sizes = [self._size() for _ in range(wanted)]
        if self._subject and wanted <= (s := draw.value(self._subject)).dim() and random.random() < 0.7:
            sizes = [self.dim(self._subject, k) for k in range(s.dim() - wanted, s.dim())]
        return self._new(sizes, self._dtype(kind))

    def _reads(self, name: str) -> str:
        self.read.append(name)
        return name

    def _operand(self, how: str, kind: str) -> str:
        """An operand for the subject: of its shape, or one that broadcasts with it."""
        draw, random = self._draw, self._random
        if not self._subject:  # the subject stands further right
            self._subject = self.tensor(kind or "f", None, False)
            return self._subject
        if how == "&" and not kind and random.random() < 0.35:
            return random.choice((self._k, self._s, self._s))()
        subject = draw.value(self._subject)
        fitting = [n for n in draw.tensors() if self._fits(n, how, kind)]
        if fitting and random.random() < 0.65:
            return self._reads(random.choice(fitting))
        sizes = [self.dim(self._subject, k) for k in range(subject.dim())]
        if how == "&":
            sizes = ["1" if random.random() < 0.2 else s for s in sizes]
            sizes = sizes[random.choice((0, 0, 0, 1, 2)) :]
            if random.random() < 0.1:
                sizes = [self._size(), *sizes]
        same = how == "=" and not kind
        return self._new(sizes, str(subject.dtype)[6:] if same else self._dtype(kind or "t"))

    def _fits(self, name: str, how: str, kind: str) -> bool:
        draw = self._draw
        for env in range(len(draw.envs)):
            a, b = draw.value(self._subject, env), draw.value(name, env)
            if kind and not _is_of(b, kind, None, False):
                return False
            if how == "=" and (a.shape != b.shape or (not kind and a.dtype != b.dtype)):
                return False
            if any(x != y and 1 not in (x, y) for x, y in zip(reversed(a.shape), reversed(b.shape), strict=False)):
                return False
        return True

    def _dtype(self, kind: str) -> str:
        among: Sequence[str] = {"f": FLOATS, "i": INTEGERS, "b": ("bool",), "n": FLOATS + INTEGERS[3:]}.get(
            kind, (*FLOATS, *FLOATS, *INTEGERS, "bool", "bool", "bool")
        )
        return self._random.choice(among)

    def _new(self, sizes: Sequence[str], dtype: str) -> str:
        """A new input: numbers of a kind, at times in other memory, or a view of another input."""
        draw, random = self._draw, self._random
        shape = f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
        shared = [i for i in draw.inputs if i.name not in draw.learned and "indices" not in i.text]
        if shared and not draw.export and draw.way != "recorded" and random.random() < 0.08:
            other = random.choice(shared).name
            held = draw.value(other)
            views = [other, f"{other}[:]", f"{other}.detach()"]
            views += [f"{other}.transpose(0, -1)", f"{other}[1:]", f"{other}[-1:]"] if held.dim() else []
            text = random.choice(views)
            return self._reads(draw.add_input(text))
        if dtype == "bool":
            kind = random.choice(("normal", "normal", "normal", "seldom", "none", "all"))
        elif "float" in dtype:
            kind = random.choice(CALM if draw.calm else WILD)
        else:
            kind = random.choice(("normal", "positive", "whole") if draw.calm else ("full", "extreme", "normal"))
        text = f'tensor({shape}, torch.{dtype}, "{kind}", {random.randrange(1000)})'
        if random.random() < 0.2:
            text = f'laid({text}, "{random.choice(LAYOUTS)}")'
        learned = draw.mode.endswith("training") and "float" in dtype and random.random() < 0.6
        return self._reads(draw.add_input(text, learned))

    def _weight(self, sizes: Sequence[int], statistics: bool = False) -> str:
        draw, random = self._draw, self._random
        subject = draw.value(self._subject) if self._subject else None
        shape, dtype = [], "float32"
        for size in sizes:
            if size < 0:
                if subject is None or subject.dim() < -size:
                    raise Unfit
                found = {draw.value(self._subject, e).shape[size] for e in range(len(draw.envs))}
                if len(found) > 1:
                    raise Unfit
                size = found.pop()
            shape.append(size)
        if subject is not None and subject.is_floating_point():
            dtype = str(subject.dtype)[6:]
        kind = "positive" if statistics else "normal" if draw.calm else random.choice(CALM)
        text = f'tensor({tuple(shape)}, torch.{dtype}, "{kind}", {random.randrange(1000)})'
        if random.random() < 0.15:
            text = f'laid({text}, "transposed")'
        wrapped = "nn.Buffer" if statistics else random.choice(("nn.Parameter", "nn.Parameter", "nn.Buffer"))
        return draw.add_state(f"{wrapped}({text})")

    # Sizes and axes ---------------------------------------------------------------------------------------------------

    def _size(self) -> str:
        return self._random.choice(("n", "n", "m", "m", "1", "2", "3", "4", "n + 1", "2 * m"))

    def dim(self, name: str, axis: int) -> str:
        """The size of an axis as an expression of the sizes of calls."""
        draw = self._draw
        seen = [draw.value(name, env).shape[axis] for env in range(len(draw.envs))]
        if len(set(seen)) == 1 and (len(seen) > 1 or self._random.random() < 0.3):
            return str(seen[0])
        for text in _EXPRESSIONS:
            if [eval(text, dict(s)) for s in draw.sizes] == seen:
                return text
        if len(set(seen)) == 1:
            return str(seen[0])
        raise Unfit

    def _rank(self) -> int:
        rank: int = self._draw.value(self._subject).dim()
        return rank

    def _sizes_at(self, axis: int) -> list[int]:
        envs = range(len(self._draw.envs))
        return [self._draw.value(self._subject, e).shape[axis] for e in envs]

    def _d(self) -> str:
        rank = self._rank()
        if not rank:
            raise Unfit
        self._axis = self._random.randrange(rank)
        return str(self._axis - rank if self._random.random() < 0.4 else self._axis)

    def _new_axis(self) -> str:
        rank = self._rank()
        return str(self._random.randint(-rank - 1, rank))

    def _axes(self) -> str:
        rank = self._rank()
        if not rank:
            raise Unfit
        return str(tuple(self._random.sample(range(rank), min(rank, self._random.randint(1, 2)))))

    def _perm(self) -> str:
        rank = self._rank()
        return str(tuple(self._random.sample(range(rank), rank)))

    def _at(self) -> str:
        least = min(self._sizes_at(self._axis))
        if not least:
            raise Unfit
        return str(self._random.randrange(-least, least))

    def _start(self) -> str:
        least = min(self._sizes_at(self._axis))
        self._from = self._random.randint(0, max(least - 1, 0))
        return str(self._from)

    def _count(self) -> str:
        least = min(self._sizes_at(self._axis)) - getattr(self, "_from", 0)
        return str(self._random.randint(1, max(least, 1)))

    def _subscript(self) -> str:
        random, parts = self._random, []
        rank = self._rank()
        for axis in range(rank):
            least = min(self._sizes_at(axis))
            at = random.randrange(-least, least) if least else 0
            fixed = (":", ":", "1:", ":-1", "::2", "-2:", "1::2")
            parts.append(random.choice((*fixed, f"{at}", f"{at}:", f"{at}:{at + 2}")))
        while parts and parts[-1] == ":" and random.random() < 0.5:
            parts.pop()
        if random.random() < 0.2:
            parts.insert(random.randint(0, len(parts)), "None")
        if random.random() < 0.2 and parts:
            parts[random.randrange(len(parts))] = "..."
        return ", ".join(parts) or "..."

    def _more(self) -> str:
        random, name = self._random, self._subject
        shape = self._draw.value(name).shape
        sizes = [str(random.choice((1, 2, 3))) if s == 1 else "-1" for s in shape]
        if random.random() < 0.4 or not sizes:
            sizes = [str(random.choice((1, 2, 3))), *sizes]
        if name and random.random() < 0.2:
            return f"2, *{name}.shape"
        return ", ".join(sizes)

    def _reps(self) -> str:
        return ", ".join(
            str(self._random.choice((1, 1, 2, 3))) for _ in range(self._rank() + self._random.randint(0, 1))
        )

    def _other_shape(self) -> str:
        random, name = self._random, self._subject
        shape = self._draw.value(name).shape
        ways = ["-1", "-1, 1", "1, -1"]
        if len(shape) > 1:
            ways += [f"{name}.shape[0], -1", f"-1, {name}.shape[-1]", f"{name}.shape[1], {name}.shape[0], -1"]
            ways += [f"{name}.shape[0] * {name}.shape[1], *{name}.shape[2:]"] * 2
        if shape and shape[0] % 2 == 0:
            ways += [f"2, -1, *{name}.shape[1:]", f"-1, 2, *{name}.shape[1:]"]
        return random.choice(ways)

    # Indices and numbers ----------------------------------------------------------------------------------------------

    def _indices(self, shape: Sequence[str], below: str, kind: str = "") -> str:
        kind = kind or self._random.choice(("any", "any", "negative", "equal", "distinct"))
        text = f"({', '.join(shape)}{',' if len(shape) == 1 else ''})"
        return self._draw.add_input(f'indices({text}, {below}, "{kind}", {self._random.randrange(1000)})')

    def _below(self) -> str:
        return self.dim(self._subject, self._axis) if self._subject and self._rank() else "3"

    def _index(self) -> str:
        return self._indices([self._random.choice(("n", "3", "2", "m", "1"))], self._below())

    def _index_like(self) -> str:
        if not self._subject:
            return self._indices(["n", "2"], "3", "any")
        shape = [self.dim(self._subject, k) for k in range(self._rank())]
        kind = self._random.choice(("any", "equal", "distinct"))
        return self._indices(shape, self._below(), kind)

    def _distinct(self) -> str:
        least = min(self._sizes_at(self._axis))
        return self._indices([str(max(least - 1, 1))], self._below(), "distinct")

    def _rows(self) -> str:
        count = self._draw.value(self._subject).numel()
        return self._indices([self.dim(self._subject, k) for k in range(self._rank())], str(max(count, 1)))

    def _k(self) -> str:
        return self._random.choice(("-3", "-1", "0", "1", "2", "2", "3", "5", "True"))

    def _s(self) -> str:
        usual = ("0.1", "-1.5", "2.0", "0.5", "1.0", "-0.3", "3.7", "0.0", "-0.0")
        odd = ("1e-40", "inf", "nan", "16777217.0", "1e30", "-inf", "1e-8")
        return self._random.choice(usual if self._draw.calm or self._random.random() < 0.7 else odd)

    def _p(self) -> str:
        return self._random.choice(("0.5", "1.0", "2.5", "6"))

    def _truth(self) -> str:
        return self._random.choice(("True", "False"))

    def _any_dtype(self) -> str:
        return f"torch.{self._random.choice(DTYPES)}"


_SPECIAL = {
    "new": "fresh_name", "d": "d", "D": "new_axis", "dd": "axes", "perm": "perm", "at": "at", "from": "start",
    "count": "count", "sub": "subscript", "more": "more", "reps": "reps", "shape": "other_shape", "ix": "index",
    "ix=": "index_like", "ix2": "index_like", "ixd": "distinct", "rows": "rows", "k": "k", "s": "s", "p": "p",
    "keep": "truth", "bool": "truth", "dtype": "any_dtype",
}  # fmt: skip
Places._fresh_name = Places.name  # type: ignore[attr-defined]


def _is_of(value: Tensor, kind: str, rank: int | None, more: bool) -> bool:
    if rank is not None and (value.dim() < rank if more else value.dim() != rank):
        return False
    floats, bools = value.is_floating_point(), value.dtype == torch.bool
    return {"t": True, "f": floats, "b": bools, "i": not floats and not bools, "n": not bools}[kind]
