"""One call, compiled and compared with eager."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import Unsupported
from torch.utils import _pytree as pytree

from benchmarks.op_database.calls import TOGETHER, Call, together
from effcc.accuracy import check_output
from effcc.backend import programs_of
from effcc.errors import EffccError
from effcc.frontend.widened import reference
from effcc.ir.program import Extern

# What a call can come to. Right: `native`, or `extern` where PyTorch runs part of it. Refused: effcc says that it
# cannot. `broken`: right, but in several graphs, since torch.compile cannot trace the call as one. `capture`: whatever
# the backend, torch.compile does something else than eager. `skipped`: eager refuses it.
STATUSES = ("native", "extern", "broken", "refused", "values", "layout", "error", "crash", "capture", "skipped")
RIGHT = ("native", "extern", "broken")
FAILED = ("values", "layout", "error", "crash")

_CHECKOUT = str(Path(__file__).parents[2])

# Their results hold whatever lay in memory: only dtype, shape and strides are compared.
_UNDEFINED = ("empty", "new_empty", "resize_", "resize_as_")

# Eager gives views that autograd must not know of, and says that nobody may rely on them.
_NO_VIEWS = ("unsafe_",)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a call came to: one of `STATUSES`, the reason where it is not right, and the ops that PyTorch ran."""

    call: str
    status: str
    detail: str = ""
    externs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Run:
    """What a call gave: its results, its arguments as it left them, and the gradients of those that have one."""

    results: Any
    arguments: Any
    gradients: tuple[Tensor | None, ...] = ()


class _Wrong(Exception):
    """A result that is not eager's: `status` and what is wrong."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def outcomes(given: Sequence[Call]) -> Iterator[Outcome]:
    """What each of several calls of one kind came to.

    They are compiled as one graph. Where that is right they all are; where it is not, each is compiled by itself.
    """
    refused = [isinstance(_attempt(call, call.function), Exception) for call in given]
    fine = [call for call, no in zip(given, refused, strict=True) if not no]
    found = _right(fine) if len(fine) > 1 and given[0].kind != "error" else None
    left = iter(found or ())
    for call, no in zip(given, refused, strict=True):
        if found is not None and not no:
            externs = next(left)
            yield Outcome(str(call), "extern" if externs else "native", "", externs)
        else:
            yield outcome(call)


def _right(given: Sequence[Call]) -> list[tuple[str, ...]] | None:
    """The ops that PyTorch runs for each of several calls; None where one is not as in eager, or that is not known."""
    call = together(given)
    eager, compiled = _attempt(call, call.function), _compiled(call, "effcc")
    got = _attempt(call, compiled)
    if isinstance(eager, Exception) or isinstance(got, Exception) or _difference(call, eager, got) is not None:
        return None
    found: list[set[str]] = [set() for _ in given]
    for extern in _externs(compiled):
        file, _, rest = extern.location.partition(":")
        if file != TOGETHER:
            return None
        found[int(rest.partition(":")[0]) - 2].add(_name(extern))
    return [tuple(sorted(names)) for names in found]


def outcome(call: Call) -> Outcome:
    """Compile a call and compare it with eager: values by `effcc.accuracy`, dtypes, shapes, strides and aliases."""
    eager = _attempt(call, call.function)
    if isinstance(eager, Exception) and call.kind != "error":
        return Outcome(str(call), "skipped", _line(eager))
    compiled = _compiled(call, "effcc")
    got = _attempt(call, compiled)
    reason = ""
    if isinstance(got, Unsupported) and not isinstance(eager, Exception):
        reason = _line(got)  # data decides what Python does next: in several graphs
        compiled = _compiled(call, "effcc", fullgraph=False)
        got = _attempt(call, compiled)
    if isinstance(got, Exception):
        if isinstance(eager, Exception):
            return Outcome(str(call), "native")
        if isinstance(got, EffccError):
            return Outcome(str(call), "refused", _line(got))
        return Outcome(str(call), "capture" if _torchs_own(call, eager) else "crash", f"{_line(got)} | {_place(got)}")
    externs = tuple(sorted(effcc_externs(compiled)))
    if isinstance(eager, Exception):
        wrong: _Wrong | None = _Wrong("error", f"eager raises {_line(eager)}")
    else:
        wrong = _difference(call, eager, got)
    if wrong is None:
        return Outcome(str(call), "broken" if reason else "extern" if externs else "native", reason, externs)
    return Outcome(str(call), "capture" if _torchs_own(call, eager) else wrong.status, str(wrong), externs)


def _torchs_own(call: Call, eager: _Run | Exception) -> bool:
    """Whether capture alone already does something else than eager, with a backend that only runs what it captured."""
    captured = _attempt(call, _compiled(call, "aot_eager"))
    if isinstance(captured, Exception) or isinstance(eager, Exception):
        return isinstance(captured, Exception) != isinstance(eager, Exception)
    return _difference(call, eager, captured) is not None


def effcc_externs(compiled: Callable[..., Any]) -> set[str]:
    """The operators that PyTorch runs for a compiled callable."""
    return set(map(_name, _externs(compiled)))


def _externs(compiled: Callable[..., Any]) -> list[Extern]:
    return [call for one in programs_of(compiled) for call in (*one.executable.program.externs, *one.between)]


def _name(extern: Extern) -> str:
    return str(extern.attrs.get("target", extern.op))


def _compiled(call: Call, backend: str, fullgraph: bool = True) -> Callable[..., Any]:
    torch._dynamo.reset()

    def function(*args: Any, **kwargs: Any) -> Any:
        return call.function(*args, **kwargs)

    dynamic = call.kind == "dynamic"
    compiled: Callable[..., Any] = torch.compile(function, backend=backend, fullgraph=fullgraph, dynamic=dynamic)
    return compiled


def _attempt(call: Call, function: Callable[..., Any]) -> _Run | Exception:
    """What a call gives, or raises."""
    torch.manual_seed(0)
    try:
        return _run(call, function)
    except Exception as error:
        return error


def _run(call: Call, function: Callable[..., Any]) -> _Run:
    """Call `function` on copies of the arguments."""
    args, kwargs = _copied((call.args, dict(call.kwargs)))
    if call.kind != "gradient":
        with torch.inference_mode() if call.kind == "inference" else torch.no_grad():
            results = function(*args, **kwargs)
        return _Run(results, (args, kwargs))
    leaves = [t for t in _tensors((args, kwargs)) if t.requires_grad]
    results = function(*args, **kwargs)
    differentiable = [t for t in _tensors(results) if t.requires_grad]
    if not differentiable:
        raise TypeError("no result depends on an argument that requires a gradient")
    gradients = torch.autograd.grad(differentiable, leaves, [_cotangent(t) for t in differentiable], allow_unused=True)
    return _Run(pytree.tree_map_only(Tensor, torch.Tensor.detach, results), (args, kwargs), tuple(gradients))


def _cotangent(tensor: Tensor) -> Tensor:
    numbers = torch.randn(tensor.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    return numbers.to(tensor.dtype)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _copied(tree: Any) -> Any:
    """The arguments again, at other places in memory, with their strides."""

    def copy(tensor: Tensor) -> Tensor:
        if tensor.layout != torch.strided:
            return tensor.detach().clone().requires_grad_(tensor.requires_grad)
        made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
        torch.empty(0, dtype=tensor.dtype).set_(made.untyped_storage()).zero_()  # `as_strided` reads between elements
        if 0 in tensor.stride():  # expanded: its elements share memory
            made = tensor.detach().clone()
        else:
            made.copy_(tensor.detach())
        return made.requires_grad_(tensor.requires_grad)

    return pytree.tree_map_only(Tensor, copy, tree)


def _difference(call: Call, eager: _Run, got: _Run) -> _Wrong | None:
    """What of a run is not as in eager."""
    try:
        _compare(call, eager, got)
    except _Wrong as wrong:
        return wrong
    return None


def _compare(call: Call, eager: _Run, got: _Run) -> None:
    expected, structure = pytree.tree_flatten((eager.results, eager.gradients))
    candidates, got_structure = pytree.tree_flatten((got.results, got.gradients))
    if structure != got_structure:
        raise _Wrong("layout", f"expected {structure}, got {got_structure}")
    views = not call.name.startswith(_NO_VIEWS)
    laid_out = len(pytree.tree_leaves(eager.results))
    _same_layouts(expected, candidates, laid_out, _tensors(eager.arguments) if views else [], _tensors(got.arguments))
    if call.name.startswith(_UNDEFINED):
        return
    expected += _tensors(eager.arguments)
    candidates += _tensors(got.arguments)
    if all(_identical(a, b) for a, b in zip(expected, candidates, strict=True)):
        return
    wide = pytree.tree_leaves(_reference(call, eager))
    for position, (exact, a, b) in enumerate(zip(wide, expected, candidates, strict=False)):
        a, b = (t.to_dense() if isinstance(t, Tensor) and t.layout != torch.strided else t for t in (a, b))
        report = check_output(f"result {position}", exact if _agrees(exact, a) else a, a, b)
        if not report.ok and not _rounded_apart(a, b):
            raise _Wrong("values", str(report))


def _same_layouts(
    expected: list[Any], got: list[Any], laid_out: int, arguments: list[Tensor], got_arguments: list[Tensor]
) -> None:
    """Strides and aliases are those of the first `laid_out`, the results. Gradients may lie in memory as they like: who
    accumulates them gives them the strides of their leaf, and capture changes them already."""
    for position, (a, b) in enumerate(zip(expected, got, strict=True)):
        if not isinstance(a, Tensor) or not isinstance(b, Tensor):
            if type(a) is not type(b):
                raise _Wrong("layout", f"result {position}: expected {type(a).__name__}, got {type(b).__name__}")
            continue
        if (a.dtype, a.shape, a.layout) != (b.dtype, b.shape, b.layout):
            raise _Wrong("layout", f"result {position}: expected {_describe(a)}, got {_describe(b)}")
        if a.layout != torch.strided or position >= laid_out:
            continue
        if _strides(a) != _strides(b):
            raise _Wrong(
                "layout", f"result {position} {list(a.shape)}: expected strides {a.stride()}, got {b.stride()}"
            )
        if arguments and _shared(a, arguments) != _shared(b, got_arguments):
            shown = [
                f"argument {k}" if k is not None else "nothing"
                for k in (_shared(a, arguments), _shared(b, got_arguments))
            ]
            raise _Wrong("layout", f"result {position}: expected to share memory with {shown[0]}, got {shown[1]}")


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype}{list(tensor.shape)} {tensor.layout}"


def _strides(tensor: Tensor) -> tuple[int, ...]:
    """The strides that matter: of dimensions with several elements, in a tensor with several elements."""
    return tuple(s for n, s in zip(tensor.shape, tensor.stride(), strict=True) if n > 1) if tensor.numel() > 1 else ()


def _shared(tensor: Tensor, arguments: list[Tensor]) -> int | None:
    """The argument whose storage a result lies in."""
    if not _has_memory(tensor):
        return None
    at = tensor.untyped_storage().data_ptr()
    strided = ((k, t) for k, t in enumerate(arguments) if t.layout == torch.strided and _has_memory(t))
    return next((k for k, t in strided if t.untyped_storage().data_ptr() == at), None)


def _has_memory(tensor: Tensor) -> bool:
    """Whether a tensor's elements are somewhere: gradients that are zero throughout are nowhere."""
    return tensor.numel() > 0 and not tensor._is_zerotensor()


def _identical(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor):
        return bool(a == b) or (a != a and b != b)
    a, b = (t if t.layout == torch.strided else t.to_dense() for t in (a, b))
    if a.dtype == b.dtype == torch.complex32:  # PyTorch compares none
        a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
    return (
        torch.equal(a.isnan(), b.isnan()) and torch.equal(a.detach().nan_to_num(), b.detach().nan_to_num())
        if a.is_floating_point()
        else torch.equal(a.detach(), b.detach())
    )


def _agrees(exact: Any, eager: Any) -> bool:
    """Whether the reference is the same function: it was captured, and capture may go another way than eager."""
    if not isinstance(exact, Tensor) or not isinstance(eager, Tensor) or exact.shape != eager.shape:
        return False
    if not eager.is_floating_point() and not eager.is_complex():
        return True
    near = 16 * torch.finfo(eager.dtype).eps ** 0.5
    wide = eager.to(exact.dtype)
    finite = torch.isfinite(wide) & torch.isfinite(exact)
    largest = float(wide[finite].abs().max()) if finite.any() else 0.0
    return bool(((wide - exact)[finite].abs() <= near * max(largest, 1.0)).all())


def _rounded_apart(a: Any, b: Any) -> bool:
    """Whether float64 results differ by a few roundings, of the elements or (as sums do) of the largest: the reference,
    in float64 itself, has no more digits."""
    if not isinstance(a, Tensor) or a.dtype != torch.float64:
        return False
    eps, finite = torch.finfo(a.dtype).eps, a[torch.isfinite(a)].abs()
    largest = float(finite.max()) if finite.numel() else 0.0
    return torch.allclose(a, b, rtol=8 * eps, atol=4 * eps * largest, equal_nan=True)


def _reference(call: Call, eager: _Run) -> Any:
    """Results (and gradients, and arguments) in float64; eager's own where they cannot be had."""
    own = (eager.results, eager.gradients, _tensors(eager.arguments))
    torch.manual_seed(0)
    try:
        if call.kind == "gradient":
            wide = dataclasses.replace(call, args=_double(call.args), kwargs=_double(call.kwargs))
            made = _run(wide, call.function)
            return made.results, made.gradients, _tensors(made.arguments)
        args, kwargs = _copied((call.args, dict(call.kwargs)))
        return reference(lambda *a, **k: call.function(*a, **k), *args, **kwargs), (), _tensors(eager.arguments)
    except Exception:
        return own


def _double(tree: Any) -> Any:
    def widen(tensor: Tensor) -> Tensor:
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            return tensor
        return tensor.detach().double().requires_grad_(tensor.requires_grad)

    return pytree.tree_map_only(Tensor, widen, dict(tree) if isinstance(tree, Mapping) else tree)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:600]


def _place(error: BaseException) -> str:
    """Where in effcc an error came from."""
    while error.__cause__ is not None:
        error = error.__cause__
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if "/effcc/" in f.filename or "/passes/" in f.filename
    ]
    return "; ".join(f"{f.filename.rsplit('/', 2)[-1]}:{f.lineno} {f.name}" for f in frames[-3:])
