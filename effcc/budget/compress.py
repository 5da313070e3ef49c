"""`effcc.compress`: the best encodings within a budget of bytes, time or error."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from effcc.budget.calibration import profiling, rows_of_a_call
from effcc.budget.candidates import (
    DENSE,
    Candidate,
    Layer,
    Recipe,
    Where,
    bytes_of,
    dense_candidates,
    encoded_candidates,
    layers_of,
    pricing,
    recipes_of,
    seen_by,
)
from effcc.budget.outputs import Measure, measure_named
from effcc.budget.problem import Choice, Problem
from effcc.budget.report import LayerReport, Point, Report
from effcc.budget.sensitivities import Record, Sensitivity, Trial, require_all_ran, sensitivities
from effcc.budget.solvers import dynamic, evolutionary, integer
from effcc.compression.calls import calls_of
from effcc.compression.install import all_or_nothing, require_module
from effcc.errors import BudgetError, InputError, UnknownNameError
from effcc.runtime.measure import host_target
from effcc.target import Target

Model = TypeVar("Model", bound=nn.Module)

SCHEMES = ("int8", 'int5(group=32,scale="f16")', 'int4(group=32,scale="f16")', 'int3(group=32,scale="f16")')
"""Among which each layer's is chosen, if nothing else is said: 8, 5.5, 4.5 and 3.5 bits a weight."""

SOLVERS = ("cp-sat", "dynamic", "evolutionary")
POINTS = 16
"""Of the Pareto front, in a report."""

REFINEMENTS = 6
"""How often a budget of the error is solved again, since errors do not add up exactly."""


def compress(
    model: Model,
    *,
    data: object,
    bytes: float | None = None,
    milliseconds: float | None = None,
    error: float | None = None,
    schemes: str | Sequence[str] | Mapping[str, str | Recipe] = SCHEMES,
    method: str = "nearest",
    where: Where | None = None,
    measure: str | Measure | None = None,
    solver: str = "cp-sat",
    rows: int | None = None,
    minutes: float = 10.0,
    resume: str | Path | None = None,
    target: str | Target = "host",
    progress: bool = True,
) -> tuple[Model, Report]:
    """Store each layer by the scheme that serves a budget best, in place; returns the model and a report.

    What each scheme does to each layer's output and to the model's is measured on calibration data, its time is
    predicted, and one scheme a layer is chosen by an integer program.

    data: calls of the model: a tensor, a tuple of arguments, a mapping of keywords, or an iterable of these.
    bytes: the most that all parameters and buffers of the model may take.
    milliseconds: the most that the products with the chosen weights may take in one call, as predicted for `target`.
    error: the most that the model's output may differ, measured on `data`. Without it the error is made as small as
        can be; with it the bytes are (or the time, where bytes are limited as well).
    schemes: notations, or by a name of your choice, notations or recipes: functions of
        (model, where) that store the weights of the modules for which `where(name, module)` holds, in place, as
        `lambda m, where: effcc.sparsify(m, "block(4,1)", density=0.5, where=where)` does. Dense is always possible.
    method: as in `quantize`, for schemes that are notations; it sees `data` too.
    where: as in `quantize`; default: every dense nn.Linear. Modules that share a weight are stored alike.
    measure: `"kl"` (mean divergence of the softmax of logits, in nats), `"squared"` (relative squared error), or a
        function of two outputs (before and after); default: `kl` where the output has `logits`.
    solver: `"cp-sat"` (the optimum if errors of layers add up; needs `pip install 'effcc[budget]'`), `"dynamic"`
        (near it, without that), `"evolutionary"` (measures whole choices, from the dynamic program's on).
    rows: for how many rows a product's time is predicted; default: as `data` has them. 1 is a decoder's.
    minutes: after so long, model errors that are still to be measured are estimated from the layers' errors (and, for
        layers of which none was, gradients). 0 measures none, which is quick and often enough.
    resume: a file to which measurements are added as they come, and which spares them the next time.

    Memory: the encoded layers of all schemes are held until one is chosen.

    Raises BudgetError for a budget that nothing keeps (it says what the least possible is); InputError for data that
    is empty, not finite, or does not reach a layer; EncodingError for a scheme that fits no layer. The model is then
    as it was.

        >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)).eval()
        >>> model, report = compress(model, bytes=12_000, data=torch.randn(16, 64), schemes=["int8"])
        >>> [layer.scheme for layer in report.layers]
        ['int8', 'dense']
    """
    require_module(model, "compress")
    _require_budget(bytes=bytes, milliseconds=milliseconds, error=error)
    schemes = (schemes,) if isinstance(schemes, str) else schemes
    if solver not in SOLVERS:
        raise UnknownNameError("solver", solver, SOLVERS)
    machine = target if isinstance(target, Target) else host_target() if target == "host" else Target.parse(target)
    calls = calls_of(data)
    layers = layers_of(model, where)
    with torch.no_grad():
        work = _working_copy(model)
        recipes = recipes_of(schemes, method, lambda: seen_by(work, layers, calls))
        names = [n for layer in layers for n in layer.names]
        with profiling({n: work.get_submodule(n) for n in names}) as profiles:
            first = calls[0](work)
        require_all_ran(profiles)
        judge = measure_named(measure, first)
        price = pricing({n: rows_of_a_call(p, calls[:1], rows) for n, p in profiles.items()}, machine)
        candidates = [[c] for c in dense_candidates(work, layers, price)]
        for name, recipe in recipes.items():
            for of_layer, made in zip(candidates, encoded_candidates(work, layers, name, recipe, price), strict=True):
                of_layer.extend([made] if made is not None else [])
        trial = Trial(work, layers, calls, judge)
        record = Record(resume, work, calls, judge)
        known = sensitivities(trial, layers, candidates, profiles, record, minutes=minutes, progress=progress)
        situation = _Situation(model, layers, candidates, known, trial)
        choice = situation.solve(solver, bytes, milliseconds, error)
        report = situation.report(choice, solver, getattr(judge, "__name__", "error"))
    _install(model, layers, situation.chosen(choice))
    return model, report


def _require_budget(**budget: float | None) -> None:
    given = {name: value for name, value in budget.items() if value is not None}
    if not given:
        raise InputError("compress needs a budget: give bytes=..., milliseconds=... or error=...")
    for name, value in given.items():
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise InputError(f"compress: {name}={value!r}: expected a finite number, 0 or more")


def _working_copy(model: Model) -> Model:
    """A copy in evaluation mode that shares the parameters, which nothing here writes to, but not the buffers."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()}).eval()


@dataclass(frozen=True)
class _Situation:
    """What is known when the choice is made."""

    model: nn.Module
    layers: Sequence[Layer]
    candidates: Sequence[Sequence[Candidate]]
    known: Sequence[Sequence[Sensitivity]]
    trial: Trial

    def problem(self, goal: str, limits: Mapping[str, float]) -> Problem:
        """The integer program. What is not to be chosen is a last layer of one candidate."""
        rest = bytes_of(self.model) - sum(of_layer[0].bytes for of_layer in self.candidates)
        costs = {
            "bytes": (*(tuple(float(c.bytes) for c in of) for of in self.candidates), (float(rest),)),
            "seconds": (*(tuple(c.seconds for c in of) for of in self.candidates), (0.0,)),
            "error": (*(tuple(max(s.model_error, 0.0) for s in of) for of in self.known), (0.0,)),
        }
        return Problem(costs, goal, limits)

    def solve(self, solver: str, most_bytes: float | None, milliseconds: float | None, error: float | None) -> Choice:
        """The choice within the budget."""
        seconds = None if milliseconds is None else milliseconds / 1000
        wanted = {"bytes": most_bytes, "seconds": seconds, "error": error}
        goal = next((q for q in ("error", "bytes", "seconds") if wanted[q] is None), "error")
        problem = self.problem(goal, {q: limit for q, limit in wanted.items() if limit is not None})
        if solver == "evolutionary":
            choice = evolutionary.solve(problem, self.error)
        else:
            method = integer.solve if solver == "cp-sat" else dynamic.solve
            choice = method(problem) if error is None else self._refined(problem, method, error)
        if error is not None and (found := self.error(choice)) > error:
            raise BudgetError(f"no choice was found that has error <= {error:.9g}: the least met is {found:.9g}")
        return choice

    def chosen(self, choice: Choice) -> list[Candidate]:
        """The layers' candidates."""
        return [of[c] for of, c in zip(self.candidates, choice, strict=False)]

    def error(self, choice: Choice) -> float:
        """The model's error, measured with all layers as chosen."""
        return self.trial.error({n: c for n, c in enumerate(self.chosen(choice)) if c.scheme != DENSE})

    def _refined(self, problem: Problem, method: Callable[[Problem], Choice], error: float) -> Choice:
        """The choice of least goal whose measured error keeps its limit; the sum's own limit is moved until it does."""
        best: Choice | None = None
        fine = replace(problem, goal="error", limits={q: v for q, v in problem.limits.items() if q != "error"})
        low, high, limit = 0.0, math.inf, error
        for _ in range(REFINEMENTS):
            try:
                choice = method(replace(problem, limits={**problem.limits, "error": limit}))
            except BudgetError:  # so little is not to be had by adding up, which may be too cautious
                low, limit = limit, 2 * limit
                continue
            found = self.error(choice)
            if found <= error:
                low = limit
                if best is None or problem.total(problem.goal, choice) <= problem.total(problem.goal, best):
                    best = choice
            else:
                high = limit
            limit = math.sqrt(low * high) if low > 0 and high < math.inf else limit * error / max(found, 0.1 * error)
        return method(fine) if best is None else best

    def report(self, choice: Choice, solver: str, measure: str) -> Report:
        """What was chosen, beside what else could have been."""
        problem = self.problem("error", {})
        dense = (0,) * len(choice)
        return Report(
            layers=tuple(
                LayerReport(
                    name=str(layer),
                    scheme=of[c].scheme,
                    bytes=of[c].bytes,
                    dense_bytes=of[0].bytes,
                    seconds=of[c].seconds,
                    dense_seconds=of[0].seconds,
                    layer_error=known[c].layer_error,
                    error=known[c].model_error,
                    measured=known[c].measured,
                )
                for layer, of, known, c in zip(self.layers, self.candidates, self.known, choice, strict=False)
            ),
            bytes=int(problem.total("bytes", choice)),
            dense_bytes=int(problem.total("bytes", dense)),
            seconds=problem.total("seconds", choice),
            dense_seconds=problem.total("seconds", dense),
            error=self.error(choice),
            expected_error=problem.total("error", choice),
            measure=measure,
            solver=solver,
            front=tuple(self._point(problem, c) for c in _spread(problem, dynamic.front(problem, "bytes"))),
        )

    def _point(self, problem: Problem, choice: Choice) -> Point:
        counts = Counter(c.scheme for c in self.chosen(choice))
        size, seconds, error = (problem.total(q, choice) for q in ("bytes", "seconds", "error"))
        return Point(int(size), seconds, error, tuple(sorted(counts.items())))


def _spread(problem: Problem, front: Sequence[Choice]) -> list[Choice]:
    """A few choices of a front, evenly over its bytes, both ends among them."""
    sizes = np.array([problem.total("bytes", c) for c in front])
    near = (int(np.abs(sizes - w).argmin()) for w in np.linspace(sizes.min(), sizes.max(), POINTS))
    return [front[n] for n in dict.fromkeys(near)]


def _install(model: nn.Module, layers: Sequence[Layer], chosen: Sequence[Candidate]) -> None:
    """The model's modules become what was chosen; their hooks, mode, and parameters that are the same stay theirs."""
    with all_or_nothing([model.get_submodule(n) for layer in layers for n in layer.names]):
        _exchange(model, layers, chosen)


def _exchange(model: nn.Module, layers: Sequence[Layer], chosen: Sequence[Candidate]) -> None:
    for layer, candidate in zip(layers, chosen, strict=True):
        if candidate.scheme == DENSE:
            continue
        for name, made in zip(layer.names, candidate.modules, strict=True):
            module = model.get_submodule(name)
            state = dict(made.__dict__)
            state.update({k: v for k, v in module.__dict__.items() if k == "training" or "_hooks" in k})
            for key, parameter in made._parameters.items():
                own = module._parameters.get(key)
                if parameter is not None and own is not None and torch.equal(own, parameter):
                    state["_parameters"] = {**state["_parameters"], key: own}
            module.__class__, module.__dict__ = made.__class__, state
