"""Programs drawn from a seed: line by line, each run by eager on the inputs of the first calls before it is kept.

So types and sizes need no rules here: what does not fit is dropped, and other sizes are tried where there are several
calls, so that a line fits all of them. (Some lines that eager refuses are kept as a program's last: it must be refused
compiled, too.)
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._higher_order_ops import while_loop

from effcc.fuzz.learned.rule import Concrete, Rule
from effcc.fuzz.programs.case import Case, Input
from effcc.fuzz.programs.learned import LearnedCall, are_wanted, by_operator
from effcc.fuzz.programs.places import Places, Unfit
from effcc.fuzz.programs.plainly import plain_control_flow
from effcc.fuzz.programs.table import CALLS, THEMES
from effcc.fuzz.programs.values import indices, laid, tensor

MODES = ("no_grad",) * 5 + ("training",) * 4 + ("inference", "autocast", "autocast_training")
TARGETS = ("host", "host", "host", "avx2", "scalar")
WAYS = (
    "compiled", *("recorded", "traced", "recorded") * 4, "interpreted", *("recorded", "recorded", "traced") * 4,
)  # fmt: skip
"""How programs are seen, in turn: a recorded one takes half as long as a traced one (some of which go through Dynamo),
the other ways five and twenty times as long."""
LINES = {"recorded": 24, "traced": 12}  # at most; 9 in other ways
IN_TURN = {"recorded": 12, "traced": 6}  # of the table's calls; 3 in other ways
REFUSED = {"recorded": 0.0, "traced": 0.0}
"""How many of the lines that eager refuses are kept, where they can be seen: tracing them is refused, too."""
TRIES = 6
NOT_RECORDED = re.compile(r"\b(cond|while_loop|equal|cov|corrcoef|one_hot)\(")
"""What is not the same when it is recorded as it runs: PyTorch's branches and loops, and what makes Python's numbers of
elements."""
UNWRITTEN = re.compile(r"F\.pad\(.*-\d.*circular")
"""What eager reads from memory that nobody wrote: turns of which one side is cut off."""
COSTLY = 0.3
"""How often branches and loops are drawn, beside other themes: Dynamo takes half a second to trace one."""
LEARNED_EVERY, LEARNED = 3, 8
"""How many programs there are for one of learned operators, where these are wanted: so many calls of them at most, as
one that cannot be traced takes the others with it, and calls of the table among them."""
MOST = 5_000  # elements of a tensor in the first calls
RANK = 5
SIZES = (1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33)
CHANGES = (
    "program.{p}.data.view(-1)[-1] += 1",
    "program.{p}.view(-1)[0] = 2",
    "program.{p}.data = program.{p}.data * 2 + 1",
    "program.load_state_dict({{k: v.clone() + 1 for k, v in program.state_dict().items()}})",
    "program.{p}.numpy().reshape(-1)[0] = 3",
)
_PLACE = re.compile(r"\{([^{}]+)\}")


def draw(seed: int) -> Case:
    """The program of a seed."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        return _Draw(Random(seed), seed).case()


@dataclass
class _Draw:
    random: Random
    seed: int
    inputs: list[Input] = field(default_factory=list)
    state: list[tuple[str, str]] = field(default_factory=list)
    learned: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def case(self) -> Case:
        random = self.random
        self.mode = random.choice(MODES)
        self.way = WAYS[self.seed % len(WAYS)]
        self.export = self.mode == "no_grad" and random.random() < 0.12 and self.way != "recorded"
        self.way = "compiled" if self.export else self.way
        if self.way in LINES and self.mode == "inference":  # of which neither sees anything
            self.mode = "training"
        dynamic = random.choice((False, False, False, True, True, None))
        dynamic = False if self.export or self.way == "recorded" else dynamic
        count = 1 if dynamic is False else 2
        calls = [self._sizes() for _ in range(count)]
        if self.way == "traced" and dynamic is not False:  # sizes that are no symbols, or one, fit no other call
            calls[0] = dict(zip("nm", random.sample(sorted({*SIZES} - {1}), 2), strict=True))
        self.envs: list[dict[str, Any]] = [dict(_NAMES, **c, self=SimpleNamespace()) for c in calls]
        self.sizes: list[dict[str, int]] = calls
        self.calm = self.mode.endswith("training") or random.random() < 0.6
        themes = list(THEMES)
        weights = [random.choice((0.2, 1, 3)) * (COSTLY if t == "control" else 1) for t in themes]
        wanted = random.randint(2, LINES.get(self.way, 9))
        refused = False
        if are_wanted() and self.seed % LEARNED_EVERY == LEARNED_EVERY - 1:
            self._learned_lines(min(wanted, LEARNED))
        in_turn = IN_TURN.get(self.way, 3)
        for k in range(in_turn):  # every call in its turn, so that few programs see them all
            for _ in range(TRIES):
                before = len(self.lines)
                self._line(CALLS[(in_turn * self.seed + k) % len(CALLS)])
                if len(self.lines) > before:
                    break
        for _ in range(12 * wanted):
            if len(self.lines) >= wanted or refused:
                break
            theme = random.choices(themes, weights)[0]
            refused = self._line(random.choice(THEMES[theme])) and random.random() < REFUSED.get(self.way, 0.03)
            if not refused:
                continue
            refused = self._kept_though_refused()
        if not self.inputs:
            Places(self).tensor("f", 2, False)
        if self.export:
            calls = calls[:1]
        elif dynamic is not False and not refused:
            for _ in range(random.choice((0, 1, 2))):
                sizes = {k: random.choice((0, 1, 2, 3, 5, 40, 700)) for k in calls[0]}
                calls += [sizes] if self._elements(sizes) <= MOST else []
        floats = [n for n, _ in self.state]
        changes = bool(floats) and not self.export and random.random() < 0.6
        change = random.choice(CHANGES).format(p=random.choice(floats)) if changes else ""
        if change and len(calls) == 1:
            calls = calls * 2
        return Case(
            self.seed, tuple(self.inputs), tuple(self.state), tuple(self.lines), self._results(),
            tuple(tuple(c.items()) for c in calls), dynamic, self.mode, tuple(self.learned), change, self.export,
            random.choice(TARGETS), self.way,
        )  # fmt: skip

    def _elements(self, sizes: Mapping[str, int]) -> int:
        """How many elements the inputs of a call have together."""

        def made(shape: Sequence[int], *_: Any) -> Tensor:
            return torch.empty([max(size, 0) for size in shape], device="meta")

        names: dict[str, Any] = {"torch": torch, "tensor": made, "indices": made, "laid": lambda t, how: t, **sizes}
        try:
            for given in self.inputs:
                names[given.name] = eval(given.text, names)
        except (RuntimeError, IndexError):
            return 0  # such a call is refused
        return sum(names[i.name].numel() for i in self.inputs)

    def _sizes(self) -> dict[str, int]:
        return {name: self.random.choice(SIZES) for name in ("n", "m")}

    def _results(self) -> tuple[str, ...]:
        random = self.random
        made = [n for n in self.envs[0] if n in self.unread or _is_made(n)]
        chosen = [n for n in self.unread if n in self.envs[0]]
        others = [n for n in (*made, *(i.name for i in self.inputs)) if n not in chosen]
        while others and (not chosen or (len(chosen) < 5 and random.random() < 0.25)):
            chosen.append(others.pop(random.randrange(len(others))))
        return tuple(chosen)

    # Lines ------------------------------------------------------------------------------------------------------------

    def _line(self, template: str) -> bool:
        """Append a call; True where eager refuses the sizes or dtypes of what is drawn, which is left in `_refused`."""
        if self.way == "recorded" and NOT_RECORDED.search(template):
            return False
        before = self._mark()
        places = Places(self)
        try:
            text = _PLACE.sub(lambda found: places.fill(found[1]), template)
        except (Unfit, IndexError, RuntimeError):  # a view of another input, that this one has in one call only
            self._undo(before)
            return False
        if UNWRITTEN.search(text):
            self._undo(before)
            return False
        if text.startswith("!"):
            text = text[1:]
        elif not places.fresh:
            text = f"{places.name()} = {text}"
        try:
            self._run(text)
            self._require_of_use(places.fresh)
        except (Unfit, TypeError, AttributeError, NotImplementedError, SyntaxError):
            self._undo(before)
            return False
        except (RuntimeError, IndexError, ValueError):
            self._refused = text, (list(self.inputs), list(self.state), list(self.learned))
            self._undo(before)
            return True
        self.lines.append(text)
        self.unread = [n for n in self.unread if n not in places.read] + places.fresh
        return False

    def _learned_lines(self, wanted: int) -> None:
        """Calls of learned operators, every operator in its turn, and calls of the table between them."""
        among = by_operator()
        turn = (self.seed // LEARNED_EVERY) * wanted
        for k in range(wanted if among else 0):
            of_one = among[(turn + k) * _STRIDE % len(among)]
            if of_one[0].writes and self.mode.endswith("training") and self.random.random() < 0.7:
                continue  # what is written cannot be passed gradients through, mostly
            for _ in range(TRIES):
                if self.learned_line(self.random.choice(of_one)):
                    break
            if self.random.random() < 0.3:
                self._line(self.random.choice(CALLS))

    def learned_line(self, learned: Rule | Concrete) -> bool:
        """Append a call of a learned operator; whether eager accepts it, with results as predicted."""
        before = self._mark()
        try:
            call = LearnedCall(self, learned)
            fresh: list[str] = []
            for _ in range(call.count):
                fresh.append(self.fresh(fresh))
            text = f"{', '.join(fresh)}{',' if call.is_list and len(fresh) == 1 else ''} = {call.text}"
            self._run(text)
            call.require_as_predicted([self.envs[0][name] for name in fresh])
            self._require_of_use(fresh)
        except (Unfit, TypeError, AttributeError, NotImplementedError, RuntimeError, IndexError, ValueError):
            self._undo(before)
            return False
        self.lines.append(text)
        self.unread = [n for n in self.unread if n not in call.read] + fresh
        return True

    def _kept_though_refused(self) -> bool:
        text, (self.inputs, self.state, self.learned) = self._refused
        self.lines.append(text)
        return True

    def _run(self, text: str) -> None:
        for env in self.envs:
            with contextlib.ExitStack() as stack:
                if self.way == "traced":
                    stack.enter_context(plain_control_flow())
                if self.mode.startswith("autocast"):
                    stack.enter_context(torch.autocast("cpu", torch.bfloat16))
                if not self.mode.endswith("training"):
                    stack.enter_context(torch.no_grad())
                exec(text, env)

    def _require_of_use(self, fresh: Sequence[str]) -> None:
        for name in fresh:
            for env in self.envs:
                value = env[name]
                if not isinstance(value, Tensor) or value.numel() > MOST or value.dim() > RANK or value.is_complex():
                    raise Unfit
                if value.layout != torch.strided or value.is_quantized:
                    raise Unfit
            value = self.envs[0][name].detach()
            if value.numel() > 2 and self.random.random() < 0.7:
                known = value[~value.isnan()] if value.is_floating_point() else value
                if known.numel() == 0 or bool((known == known.flatten()[0]).all()):
                    raise Unfit

    def _mark(self) -> Any:
        keys = [set(env) for env in self.envs]
        return len(self.inputs), len(self.state), len(self.learned), keys

    def _undo(self, mark: Any) -> None:
        inputs, state, learned, keys = mark
        del self.inputs[inputs:], self.state[state:], self.learned[learned:]
        for env, kept in zip(self.envs, keys, strict=True):
            for name in set(env) - kept:
                del env[name]

    # What lines need --------------------------------------------------------------------------------------------------

    def tensors(self) -> list[str]:
        """The names of all tensors at hand, in order."""
        held = [f"self.{name}" for name, _ in self.state]
        return [n for n, v in self.envs[0].items() if isinstance(v, Tensor)] + held

    def value(self, name: str, env: int = 0) -> Any:
        """A tensor by name."""
        found = self.envs[env]
        return getattr(found["self"], name[5:]) if name.startswith("self.") else found[name]

    def add_input(self, text: str, learned: bool = False) -> str:
        """An input more."""
        name = next(n for n in _INPUTS if all(n != i.name for i in self.inputs))
        for env in self.envs:
            env[name] = eval(text, dict(env))
            if env[name].numel() > MOST:
                raise Unfit
            if learned:
                env[name].requires_grad_()
        self.inputs.append(Input(name, text))
        if learned:
            self.learned.append(name)
        return name

    def add_state(self, text: str) -> str:
        """A parameter or buffer more."""
        name = f"p{len(self.state)}"
        for env in self.envs:
            setattr(env["self"], name, eval(text, dict(env)))
        self.state.append((name, text))
        return f"self.{name}"

    def fresh(self, taken: Sequence[str]) -> str:
        """A name that is not taken."""
        return next(n for n in _MADE if n not in self.envs[0] and n not in taken)


_STRIDE = 101  # of a prime: operators that stand beside each other are alike
_NAMES = {
    "torch": torch, "F": F, "nn": nn, "inf": float("inf"), "nan": float("nan"), "indices": indices, "laid": laid,
    "tensor": tensor, "while_loop": while_loop,
}  # fmt: skip
_INPUTS = ("x", "y", "z", "u", "v", "w", *(f"x{k}" for k in range(100)))
_MADE = (*"abcdefgh", *(f"a{k}" for k in range(100)))


def _is_made(name: str) -> bool:
    return name in _MADE
