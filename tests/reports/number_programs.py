"""Random programs of a tensor and a number that calls may change, compared with eager call by call.

    python -m tests.reports.number_programs --programs 200 --seed 1

A program is a list of uses, each of a number that it makes of its argument: a factor, a bound, an index. The number of
a call is an int, a float, a bool, or a 0-d tensor of any dtype; huge and special ones among them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tests.reports.outcomes import difference, outcome

DTYPES = (
    torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool, torch.float16, torch.bfloat16,
    torch.float32, torch.float64,
)  # fmt: skip
MADE: dict[str, Callable[[Any], Any]] = {
    "k": lambda k: k, "k + 1": lambda k: k + 1, "-k": lambda k: -k, "abs(k)": abs, "k * 3": lambda k: k * 3,
    "k // 2": lambda k: k // 2, "k % 3": lambda k: k % 3, "k / 3": lambda k: k / 3, "float(k)": float,
    "max(k, 1)": lambda k: max(k, 1), "min(k, 2)": lambda k: min(k, 2), "k ** 2": lambda k: k**2,
    "round": lambda k: round(k * 0.37), "sqrt": lambda k: math.sqrt(abs(k)), "ceil": lambda k: math.ceil(k / 4),
    "bool(k)": bool, "chosen": lambda k: k if k > 2 else 2, "k << 1": lambda k: k << 1, "k & 6": lambda k: k & 6,
    "k > 1": lambda k: k > 1,
}  # fmt: skip
USES: dict[str, Callable[[Tensor, Any], Any]] = {
    "x * n": lambda x, n: x * n, "n - x": lambda x, n: n - x, "x / n": lambda x, n: x / n,
    "n / x": lambda x, n: n / (x + 20), "x // n": lambda x, n: x // n, "x % n": lambda x, n: x % n,
    "x ** n": lambda x, n: x**n, "n ** x": lambda x, n: n**x, "x < n": lambda x, n: x < n,
    "x == n": lambda x, n: x == n,
    "x & n": lambda x, n: x & n, "x << n": lambda x, n: x << n, "x >> n": lambda x, n: x >> n,
    "where": lambda x, n: torch.where(x > 0, x, n), "clamp": lambda x, n: x.clamp(max=n),
    "full": lambda x, n: torch.full((2,), n), "new_full": lambda x, n: x.new_full((2, 2), n),
    "masked_fill": lambda x, n: x.masked_fill(x > 0, n), "fill_": lambda x, n: x.clone().fill_(n),
    "alpha": lambda x, n: torch.add(x, x, alpha=n), "lerp": lambda x, n: torch.lerp(x, x * 2, n),
    "fmod": lambda x, n: torch.fmod(x, n), "trunc": lambda x, n: torch.div(x, n, rounding_mode="trunc"),
    "index": lambda x, n: x[n], "column": lambda x, n: x[:, n], "from": lambda x, n: x[n:], "to": lambda x, n: x[:n],
    "middle": lambda x, n: x[n : n + 2], "step": lambda x, n: x[::n], "narrow": lambda x, n: x.narrow(0, n, 1),
    "roll": lambda x, n: x.roll(n, 0), "tril": lambda x, n: x.tril(n), "diagonal": lambda x, n: x.diagonal(n),
    "pad": lambda x, n: functional.pad(x, (1, n)), "arange": lambda x, n: torch.arange(n),
    "linspace": lambda x, n: torch.linspace(0, n, 5), "zeros": lambda x, n: torch.zeros(n, 2),
    "repeat": lambda x, n: x.repeat(n, 1), "reshape": lambda x, n: x.reshape(n, -1), "sum": lambda x, n: x.sum(n),
    "chunk": lambda x, n: x.chunk(n), "leaky_relu": lambda x, n: functional.leaky_relu(x, n),
    "index_fill": lambda x, n: x.index_fill(0, torch.tensor([0, 2]), n),
    "index_select": lambda x, n: x.index_select(0, torch.tensor([n])), "as number": lambda x, n: (n, x + 1),
    "add_": lambda x, n: x.add_(n), "write": lambda x, n: x.select(0, 0).fill_(n),
    "set": lambda x, n: x.__setitem__(0, n),
}  # fmt: skip
SMALL = (3, 5, -2, 0, 1, 2, -1, 4, 6, 7, -3)
HUGE = (255, 256, -129, 70000, 2**31, -(2**31) - 1, 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.5, -1.5, 0.0, -0.0, 2.0, 3.0, 1e-3, 1e30, 1e-40, math.inf, -math.inf, math.nan, 70000.0, -2.5)
MODES = ("static", "automatic", "dynamic", "mark_dynamic", "maybe_mark_dynamic")
_MOST = 4096  # so long is no axis that a program makes


@dataclass(frozen=True)
class Program:
    """A list of uses of numbers, the calls to make, and how it is compiled."""

    steps: tuple[tuple[str, str], ...]
    calls: tuple[tuple[Tensor, Any], ...]
    mode: str

    def __call__(self, x: Tensor, k: Any) -> tuple[Any, Tensor]:
        """What the program gives, and its argument, which it may have written."""
        return [USES[use](x, MADE[made](k)) for use, made in self.steps], x


def draw(random: Random, uses: int) -> Program:
    """A program that runs in eager for every one of its calls."""
    dtype, mode = random.choice(DTYPES), random.choice(MODES)
    numbers = _numbers(random, random.choice(("int", "int", "float", "bool", "mixed", "tensor")))
    calls = [(_tensor(random, dtype, random.choice((6, 6, 8, 9))), k) for k in numbers]
    if mode == "static":
        calls = [(calls[0][0], k) for k in numbers]
    steps: list[tuple[str, str]] = []
    for _ in range(10 * uses):
        step = (random.choice(list(USES)), random.choice(list(MADE)))
        alone = Program((step,), tuple(calls), mode)
        if len(steps) < uses and _is_small(step, numbers) and all(outcome(alone, *c).error is None for c in calls):
            steps.append(step)
    return Program(tuple(steps), tuple(calls), mode)


def _numbers(random: Random, kind: str) -> list[Any]:
    values = {"int": SMALL + HUGE[: random.choice((0, len(HUGE)))], "float": FLOATS, "bool": (True, False)}
    if kind != "tensor":
        return [
            random.choice(random.choice(list(values.values())) if kind == "mixed" else values[kind]) for _ in "1234"
        ]
    dtype = random.choice(DTYPES)
    chosen: Sequence[Any] = values["bool"] if dtype == torch.bool else FLOATS if dtype.is_floating_point else SMALL
    return [torch.tensor(abs(v) if dtype == torch.uint8 else v, dtype=dtype) for v in random.choices(chosen, k=4)]


def _tensor(random: Random, dtype: torch.dtype, rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(random.randrange(10**6))
    if dtype == torch.bool:
        return torch.randint(0, 2, (rows, 5), generator=generator).bool()
    if dtype.is_floating_point:
        return (torch.randn(rows, 5, generator=generator) * 3).to(dtype)
    return torch.randint(0 if dtype == torch.uint8 else -9, 10, (rows, 5), generator=generator).to(dtype)


def _is_small(step: tuple[str, str], numbers: Sequence[Any]) -> bool:
    use, made = step
    if use not in ("arange", "zeros", "repeat", "pad", "chunk"):
        return True
    sizes = [outcome(MADE[made], k) for k in numbers]
    return all(s.error is None and abs(s.results) < _MOST for s in sizes)


def differences(program: Program, backend: str = "effcc") -> list[str]:
    """How each call of the compiled program differs from eager."""
    torch.compiler.reset()
    dynamic = {"static": False, "dynamic": True}.get(program.mode)
    compiled = torch.compile(program, backend=backend, dynamic=dynamic)

    def call(x: Tensor, k: Any) -> Any:
        if program.mode.endswith("mark_dynamic"):
            getattr(torch._dynamo, program.mode)(x, 0)
        return compiled(x, k)

    return [difference(outcome(call, *c), outcome(program, *c)) for c in program.calls]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=100)
    parser.add_argument("--uses", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong = calls = 0
    for seed in range(options.seed, options.seed + options.programs):
        program = draw(Random(seed), options.uses)
        calls += len(program.calls) * len(program.steps)
        if not any(differences(program)):
            continue
        for step in program.steps:
            alone = Program((step,), program.calls, program.mode)
            found = differences(alone)
            if any(found) and not any(differences(alone, "aot_eager")):
                wrong += 1
                k, text = next((k, f) for k, f in enumerate(found) if f)
                print(
                    f"seed {seed}: {step} {program.mode}, {[n for _, n in program.calls]}, call {k}: {text[:600]}",
                    flush=True,
                )
    print(f"{options.programs} programs, {calls} calls of a use, {wrong} uses wrong")


if __name__ == "__main__":
    main()
