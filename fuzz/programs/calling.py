"""A program called as users call it, and all that they then see: results, inputs, state, gradients, shared memory."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import effcc
from effcc.fuzz.programs.case import Case
from effcc.fuzz.programs.interpreted import interpreting_backend
from effcc.fuzz.programs.oracle import Disturbed
from effcc.fuzz.programs.values import tensor

Through = Callable[[nn.Module, Sequence[Any]], Callable[..., Any]]
"""How a program becomes what is called, given its first arguments: as it is, compiled, exported."""


@dataclass(frozen=True)
class Seen:
    """Something that a caller sees: where, and a tensor's copy with its strides, or a fact as it is.

    inexact: whether other orders of computation give other values (`effcc.fuzz.programs.oracle`).
    """

    where: str
    value: Any
    strides: tuple[int, ...] = ()
    inexact: bool = False


@dataclass(frozen=True)
class Raised:
    """What a call raised."""

    where: str
    error: Exception


def eager(program: nn.Module, given: Sequence[Any]) -> Callable[..., Any]:
    """The program as it is."""
    return program


def compiled(case: Case, backend: str = "effcc") -> Through:
    """Through `torch.compile`."""
    options: dict[str, Any] | None = {"target": case.target} if backend == "effcc" else None

    def through(program: nn.Module, given: Sequence[Any]) -> Callable[..., Any]:
        found: Callable[..., Any] = torch.compile(program, backend=backend, dynamic=case.dynamic, options=options)
        return found

    return through


def interpreted(case: Case) -> Through:
    """Through `torch.compile`, up to the imported graphs, which are interpreted."""

    def through(program: nn.Module, given: Sequence[Any]) -> Callable[..., Any]:
        found: Callable[..., Any] = torch.compile(program, backend=interpreting_backend, dynamic=case.dynamic)
        return found

    return through


def exported(program: nn.Module, given: Sequence[Any]) -> Callable[..., Any]:
    """Through a package."""
    with tempfile.TemporaryDirectory(prefix="effcc-fuzz-") as folder:
        return effcc.load(effcc.export(program, tuple(given), Path(folder, "m.effcc")))


def observe(case: Case, loaded: Any, through: Through, disturbed: Disturbed | None = None) -> list[Seen | Raised]:
    """Everything that is seen of a case's calls, in order, up to the first error; `disturbed`, if that is given."""
    inexact = disturbed.tainted if disturbed is not None else lambda t: False
    program = loaded.Program()
    seen: list[Seen | Raised] = []
    where = ""
    run: Callable[..., Any] | None = None
    try:
        for number, sizes in enumerate(case.calls):
            where = f"call {number + 1}" if len(case.calls) > 1 else "the call"
            given = loaded.inputs(**dict(sizes))
            with disturbed or contextlib.nullcontext():
                with calling_mode(case):
                    run = through(program, given) if run is None else run
                    seen += _called(case, run, given, where, inexact)
                if not case.export:
                    seen += [_look(f"{n} after {where}", t, inexact) for n, t in program.state_dict().items()]
                if case.trains:
                    learned = program.named_parameters()
                    seen += [_look(f"the gradient of {n} after {where}", p.grad, inexact) for n, p in learned]
                if case.change and number + 1 < len(case.calls):
                    with torch.no_grad():
                        exec(case.change, {"torch": torch, "program": program})
    except Exception as error:  # whatever is raised is what is seen
        seen.append(Raised(where, error))
    return seen


def calling_mode(case: Case) -> contextlib.AbstractContextManager[Any]:
    """As a case is called: with gradients or without, with automatic casts."""
    stack = contextlib.ExitStack()
    if case.mode.startswith("autocast"):
        stack.enter_context(torch.autocast("cpu", torch.bfloat16))
    if not case.trains:
        stack.enter_context(torch.inference_mode() if case.mode == "inference" else torch.no_grad())
    return stack


def _called(
    case: Case, run: Callable[..., Any], given: Sequence[Any], where: str, inexact: Callable[[Tensor], bool]
) -> Iterator[Seen]:
    results = run(*given)
    if not isinstance(results, tuple | list):
        results = (results,)
    named = [(f"result {k} of {where}", r) for k, r in enumerate(results)]
    arguments = [(f"{i.name} after {where}", g) for i, g in zip(case.inputs, given, strict=True)]
    yield from [_look(n, t, inexact) for n, t in named]
    if not case.export:
        yield from [_look(n, t, inexact, False) for n, t in arguments]
    if case.trains:
        _backward([t for _, t in named])
        for name, argument in arguments:
            if isinstance(argument, Tensor) and argument.is_leaf:
                yield _look(f"the gradient of {name}", argument.grad, inexact)
    if not case.export:
        yield from _shared([*named, *arguments], len(named), inexact)


def _look(where: str, value: Any, inexact: Callable[[Tensor], bool], result: bool = True) -> Seen:
    if not isinstance(value, Tensor):
        return Seen(where, value)
    copy = value.detach().clone(memory_format=torch.contiguous_format)
    strides = value.stride() if result and _ordered(value) else ()
    if len(strides) > 0:
        strides = tuple(s if n > 1 else -1 for s, n in zip(strides, value.shape, strict=True))
    return Seen(where, copy, strides, inexact(copy))


def _ordered(value: Tensor) -> bool:
    """Whether strides are such as users count on."""
    return value.numel() > 1 and (
        value.is_contiguous() or (value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last))
    )


def _backward(results: Sequence[Any]) -> None:
    """Gradients of a weighted sum of all results."""
    loss: Any = 0.0
    for number, result in enumerate(tree_leaves(results)):
        if isinstance(result, Tensor) and result.requires_grad and result.is_floating_point():
            loss = loss + (result.double() * tensor(result.shape, torch.float64, "positive", number)).sum()
    if isinstance(loss, Tensor):
        loss.backward()


def _shared(named: Sequence[tuple[str, Any]], results: int, inexact: Callable[[Tensor], bool]) -> Iterator[Seen]:
    """Which results share memory with which other tensors, and what these hold once a result was written."""
    tensors = [(n, t) for n, t in named if isinstance(t, Tensor)]
    written = [n for n, t in named[:results] if isinstance(t, Tensor)]
    sharing = []
    for (one, a), (other, b) in itertools.combinations(tensors, 2):
        if one in written and a.numel() and b.numel() and _storage(a) == _storage(b):
            sharing.append((one, other))
            yield Seen(f"whether {one} shares memory with {other}", True)
        elif one in written and a.numel() and b.numel():
            yield Seen(f"whether {one} shares memory with {other}", False)
    for name in dict.fromkeys(one for one, _ in sharing):
        target = dict(tensors)[name]
        try:
            with torch.no_grad():
                target.copy_(torch.ones_like(target) if target.dtype == torch.bool else torch.full_like(target, 3))
        except RuntimeError:
            continue  # its elements share memory
        yield from [_look(f"{n} once {name} is written", t, inexact, False) for n, t in tensors]


def _storage(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()
