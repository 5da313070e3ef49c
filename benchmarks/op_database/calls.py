"""Calls to compile, made from the operator database: a function, its arguments, and how it is called.

Samples are chosen, not drawn: the first, then those whose shapes or options are unlike those chosen before (empty,
0-d, broadcast), and a copy of one with its elements apart in memory. They are the same in every process.
"""

from __future__ import annotations

import dataclasses
import itertools
import linecache
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.testing._internal import common_methods_invocations as database
from torch.testing._internal.common_utils import freeze_rng_state
from torch.utils import _pytree as pytree

KINDS = ("plain", "inference", "dynamic", "inplace", "out", "error", "gradient")
"""How an operator is called: on samples; in inference mode; with sizes told at run time; in place; with `out=`; on
arguments it must refuse; with its gradient."""

DTYPES = {str(d).removeprefix("torch."): d for d in (
    torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64,
)}  # fmt: skip

# The database seeds random operators inside the call, which torch.compile cannot trace; here the caller seeds.
setattr(database, "wrapper_set_seed", lambda op, *args, **kwargs: op(*args, **kwargs))  # noqa: B010

_LOOKED_AT = 60  # samples of an operator among which those to run are chosen


@dataclasses.dataclass(frozen=True)
class Call:
    """One call: `function(*args, **kwargs)`; `name` says which operator, `index` which of its samples."""

    name: str
    kind: str
    dtype: str
    index: int
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __str__(self) -> str:
        arguments = [show(a) for a in self.args] + [f"{name}={show(a)}" for name, a in self.kwargs.items()]
        return f"{self.name} {self.kind} {self.dtype} #{self.index}({', '.join(arguments)})"


TOGETHER = "together.py"
"""The file that calls compiled together stand in, one a line from the second on: the k-th call is line k + 2."""


def together(given: Sequence[Call]) -> Call:
    """Several calls of one kind as one, which gives their results in turn: one graph to capture and compile."""
    lines = [f"    f{k}(*given[{k}][0], **given[{k}][1])," for k in range(len(given))]
    text = "\n".join(["def function(*given): return [", *lines, "]"])
    linecache.cache[TOGETHER] = (len(text), None, text.splitlines(keepends=True), TOGETHER)
    names: dict[str, Any] = {f"f{k}": call.function for k, call in enumerate(given)}
    exec(compile(text, TOGETHER, "exec"), names)
    arguments = tuple((call.args, dict(call.kwargs)) for call in given)
    return dataclasses.replace(given[0], function=names["function"], args=arguments, kwargs={})


def show(argument: Any) -> str:
    """An argument in a line: a tensor as its dtype, shape and, where they are not row-major, strides."""
    if isinstance(argument, Tensor):
        text = f"{str(argument.dtype).removeprefix('torch.')}{list(argument.shape)}".replace(" ", "")
        if argument.layout != torch.strided:
            return f"{text} {argument.layout}"
        return text if argument.is_contiguous() else f"{text}{argument.stride()}".replace(" ", "")
    if isinstance(argument, list | tuple):
        return "[" + ", ".join(show(a) for a in argument) + "]"
    return repr(argument)


def operators() -> dict[str, Any]:
    """Every entry of the database by its name, variants apart: `nn.functional.pad:reflect`."""
    return {name_of(op): op for op in database.op_db}


def name_of(op: Any) -> str:
    return f"{op.name}:{op.variant_test_name}" if op.variant_test_name else str(op.name)


def calls(op: Any, kind: str, dtype: str, limit: int) -> list[Call]:
    """Up to `limit` calls of an operator, all where that is 0; none where it takes no such dtype, or cannot be called
    that way."""
    torch_dtype = DTYPES[dtype]
    if kind != "error" and torch_dtype not in op.supported_dtypes("cpu"):
        return []
    made: list[Call] = []
    with freeze_rng_state():
        torch.manual_seed(zlib.crc32(f"{name_of(op)} {dtype}".encode()))
        for index, (function, args, kwargs) in enumerate(_samples(op, kind, torch_dtype, limit)):
            made.append(Call(name_of(op), kind, dtype, index, function, args, kwargs))
    return made


_Sample = tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]


def _samples(op: Any, kind: str, dtype: torch.dtype, limit: int) -> Iterator[_Sample]:
    if kind == "error":
        if op.error_inputs_func is None:
            return
        for error in list(op.error_inputs("cpu"))[: limit or None]:
            sample = error.sample_input
            yield op.get_op(), (sample.input, *sample.args), sample.kwargs
        return
    function = op.get_inplace() if kind == "inplace" else op.get_op()
    if function is None or (kind == "out" and not op.supports_out) or (kind == "gradient" and not op.supports_autograd):
        return
    for sample in _chosen(op, dtype, limit, kind == "gradient"):
        args, kwargs = (sample.input, *sample.args), dict(sample.kwargs)
        if kind == "inplace" and (not isinstance(sample.input, Tensor) or sample.broadcasts_input):
            continue
        if kind == "out":
            result = function(*args, **kwargs)
            leaves = result if isinstance(result, tuple) else (result,)
            if not all(isinstance(leaf, Tensor) for leaf in leaves):
                continue
            empty = tuple(torch.zeros_like(leaf) for leaf in leaves)
            kwargs["out"] = empty if isinstance(result, tuple) else empty[0]
        yield function, args, kwargs


def _chosen(op: Any, dtype: torch.dtype, limit: int, requires_grad: bool) -> list[Any]:
    """Samples unlike each other, or all, and the first with several elements, non-contiguous."""
    given = op.sample_inputs(torch.device("cpu"), dtype, requires_grad=requires_grad)
    found = list(itertools.islice(given, _LOOKED_AT if limit else None))
    apart = next((s for s in found if isinstance(s.input, Tensor) and s.input.dim() and s.input.numel() > 1), None)
    others = [] if apart is None or limit == 1 else [apart.noncontiguous()]
    return [*_unlike(found, limit - len(others)), *others] if limit else [*found, *others]


def _unlike(found: list[Any], limit: int) -> list[Any]:
    """Up to `limit` samples, those least like the ones before."""
    chosen: list[Any] = []
    seen: set[str] = set()
    for wanted in (_features, _shapes):
        for sample in found:
            mark = wanted(sample)
            if len(chosen) < limit and mark not in seen:
                seen.update((_features(sample), _shapes(sample)))
                chosen.append(sample)
    return chosen


def _features(sample: Any) -> str:
    """What kind of sample it is: ranks, emptiness, layouts and which options are given."""
    tensors = [t for t in pytree.tree_leaves((sample.input, sample.args, sample.kwargs)) if isinstance(t, Tensor)]
    shapes = [(min(t.dim(), 2), 0 in t.shape, t.dtype) for t in tensors[:3]]
    return f"{shapes} {len(sample.args)} {sorted(sample.kwargs)}"


def _shapes(sample: Any) -> str:
    return " ".join(show(a) for a in (sample.input, sample.args, dict(sample.kwargs)))
