"""Whether numbers are right.

Per output, with every error taken against a float64 reference (`effcc.frontend.widened.reference`):

    max error <= 4 x eager's max error + 2 eps max|reference|
    rms error <= 2 x eager's rms error +   eps rms(reference)      where there are several elements

with eps that of the output's dtype; NaN and infinities exactly where eager has them; integers and booleans equal to
eager's.

    >>> import torch
    >>> eager = torch.linspace(-1, 1, 5).exp()
    >>> reference = torch.linspace(-1, 1, 5).double().exp()
    >>> check(reference, eager, eager).ok
    True
    >>> check(reference, eager, eager + 1e-5).ok
    False
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from effcc.errors import NumericsError


@dataclasses.dataclass(frozen=True)
class OutputReport:
    """One output's errors and bounds; `problem` is empty where it is right. Integer outputs carry zeros."""

    name: str
    problem: str = ""
    max_error: float = 0.0
    max_bound: float = 0.0
    eager_max_error: float = 0.0
    rms_error: float = 0.0
    rms_bound: float = 0.0
    eager_rms_error: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.problem

    def __str__(self) -> str:
        return (
            f"{self.name}: "
            f"max error {self.max_error:.3g} (eager {self.eager_max_error:.3g}, bound {self.max_bound:.3g}), "
            f"rms {self.rms_error:.3g} (eager {self.eager_rms_error:.3g}, bound {self.rms_bound:.3g}): "
            f"{self.problem or 'ok'}"
        )


@dataclasses.dataclass(frozen=True)
class Report:
    """Every output's report."""

    outputs: tuple[OutputReport, ...]

    @property
    def ok(self) -> bool:
        return all(output.ok for output in self.outputs)

    @property
    def worst(self) -> OutputReport:
        """The output whose maximum error is largest beside its bound; a wrong one before all right ones."""
        return max(self.outputs, key=lambda o: (not o.ok, o.max_error / o.max_bound if o.max_bound else 0.0))

    def __str__(self) -> str:
        return "\n".join(str(output) for output in self.outputs)

    def require(self, what: str = "result") -> Report:
        """This report, or NumericsError where an output is wrong."""
        if not self.ok:
            raise NumericsError(f"{what} is further from the float64 reference than allowed:\n{self}")
        return self


def check(reference: Any, eager: Any, candidate: Any) -> Report:
    """Compare `candidate` with `eager` and the float64 `reference`; all three are tensors or trees of one structure."""
    expected, structure = pytree.tree_flatten(eager)
    got, got_structure = pytree.tree_flatten(candidate)
    wide = pytree.tree_leaves(reference)
    if got_structure != structure or len(wide) != len(expected):
        raise NumericsError(f"results differ in structure: expected {structure}, got {got_structure}")
    names = [pytree.keystr(path) or "output" for path, _ in pytree.tree_flatten_with_path(eager)[0]]
    return Report(tuple(check_output(*item) for item in zip(names, wide, expected, got, strict=True)))


def check_output(name: str, reference: Any, eager: Any, candidate: Any) -> OutputReport:
    """Compare one output."""
    if not isinstance(eager, Tensor):
        return OutputReport(name, "" if candidate == eager else f"expected {eager!r}, got {candidate!r}")
    if not isinstance(candidate, Tensor):
        return OutputReport(name, f"expected a tensor, got {type(candidate).__name__}")
    if candidate.shape != eager.shape or candidate.dtype != eager.dtype:
        expected, got = (f"{t.dtype}{list(t.shape)}" for t in (eager, candidate))
        return OutputReport(name, f"expected {expected}, got {got}")
    reference, eager, candidate = (_real(t.detach()) for t in (reference, eager, candidate))
    if not eager.dtype.is_floating_point:
        wrong = (candidate != eager).flatten()
        return OutputReport(name, f"{int(wrong.sum())} of {wrong.numel()} elements differ" if wrong.any() else "")
    return _check_floating(name, reference, eager, candidate)


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _check_floating(name: str, reference: Tensor, eager: Tensor, candidate: Tensor) -> OutputReport:
    eps = torch.finfo(eager.dtype).eps
    special = ~torch.isfinite(eager)
    got_special = ~torch.isfinite(candidate)
    same = (special == got_special) & (~special | (candidate == eager) | (candidate.isnan() & eager.isnan()))
    finite = ~special & ~got_special & torch.isfinite(reference)
    exact = reference.double()[finite]
    errors = (candidate.double()[finite] - exact).abs()
    eager_errors = (eager.double()[finite] - exact).abs()
    max_bound = 4 * _max(eager_errors) + 2 * eps * _max(exact.abs())
    several = errors.numel() > 1  # of one, the root mean square is the maximum, and its bound half of the other
    report = OutputReport(
        name,
        max_error=_max(errors),
        max_bound=max_bound,
        eager_max_error=_max(eager_errors),
        rms_error=_rms(errors),
        rms_bound=2 * _rms(eager_errors) + eps * _rms(exact) if several else max_bound,
        eager_rms_error=_rms(eager_errors),
    )
    if not same.all():
        where = tuple(int(i) for i in (~same).nonzero()[0])
        problem = f"expected {eager[where].item()} at {list(where)}, got {candidate[where].item()}"
    elif report.max_error > report.max_bound:
        where = tuple(int(i) for i in finite.nonzero()[int(errors.argmax())])
        expected, got = reference[where].item(), candidate[where].item()
        problem = f"maximum error too large at {list(where)}: expected {expected}, got {got}"
    elif report.rms_error > report.rms_bound:
        problem = "root mean square error too large"
    else:
        problem = ""
    return dataclasses.replace(report, problem=problem)


def _max(values: Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0


def _rms(values: Tensor) -> float:
    return math.sqrt(float(values.square().mean())) if values.numel() else 0.0
