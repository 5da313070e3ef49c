"""How much each candidate changes its layer's output, and the model's when only that layer is stored so.

A layer's error needs the layer alone, so all are measured. The model's takes a call of the whole model each: those are
measured one for each layer first (the candidate in the middle by the layer's error), then the others, until the time
allowed is over. The rest is estimated: where errors are small, the model's error is proportional to the layer's
squared error, by a factor that a measured candidate of that layer shows or, where there is none, gradients.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from effcc.budget.calibration import Profile
from effcc.budget.candidates import DENSE, Candidate, Layer
from effcc.budget.gradients import factors
from effcc.budget.outputs import Measure, detached
from effcc.compression.calls import Call
from effcc.compression.resume import digest
from effcc.errors import InputError


@dataclass(frozen=True)
class Sensitivity:
    """The relative squared error of a layer's output, the model's error, and whether that was measured or estimated."""

    layer_error: float
    model_error: float
    measured: bool


class Trial:
    """A copy of the model in which layers can be exchanged, with the outputs that it had before."""

    def __init__(self, model: nn.Module, layers: Sequence[Layer], calls: Sequence[Call], measure: Measure) -> None:
        self.modules = [[model.get_submodule(n) for n in layer.names] for layer in layers]
        self.model, self.calls, self.measure = model, calls, measure
        self.reference = [detached(call(model)) for call in calls]
        for call, output in zip(calls, self.reference, strict=True):
            if any(isinstance(t, Tensor) and bool(t.isnan().any()) for t in tree_leaves(output)):
                raise InputError(
                    f"data: the model's own result of call {call.number} holds NaN: nothing can be measured"
                )

    def error(self, exchanged: Mapping[int, Candidate]) -> float:
        """The model's error with some layers as candidates have them: the mean over the calls."""
        with exchanging(self.modules, exchanged):
            errors = [self.measure(r, call(self.model)) for r, call in zip(self.reference, self.calls, strict=True)]
        return math.fsum(errors) / len(errors)


@contextmanager
def exchanging(modules: Sequence[Sequence[nn.Module]], exchanged: Mapping[int, Candidate]) -> Iterator[None]:
    """Modules that are, for a while, what candidates are."""
    held = [(m, m.__class__, m.__dict__) for layer in exchanged for m in modules[layer]]
    try:
        for layer, candidate in exchanged.items():
            for module, other in zip(modules[layer], candidate.modules, strict=True):
                module.__class__, module.__dict__ = other.__class__, other.__dict__
        yield
    finally:
        for module, kind, state in held:
            module.__class__, module.__dict__ = kind, state


class Record:
    """Errors of the model as they were measured, a line each in a file, known by what was measured.

    A file may hold those of several models. A line begins with its own newline, and what is no whole line (the process
    ended while it wrote) is skipped.
    """

    def __init__(self, file: str | Path | None, model: nn.Module, calls: Sequence[Call], measure: Measure) -> None:
        self.file = None if file is None else Path(file)
        data = [leaf for call in calls for leaf in tree_leaves((call.args, dict(call.kwargs)))]
        name = f"{measure.__module__}.{measure.__qualname__}" if callable(measure) else repr(measure)
        self.run = digest((*model.state_dict().values(), *data, name))
        self.known = dict(self._lines())

    def key(self, layer: Layer, candidate: Candidate) -> str:
        """What decides a measurement: model, data, measure, layer, and every bit of the candidate."""
        state = [(n, t) for m in candidate.modules for n, t in sorted(m.state_dict().items())]
        return digest((self.run, str(layer), *(x for pair in state for x in pair)))

    def add(self, key: str, error: float) -> None:
        self.known[key] = error
        if self.file is not None:
            with self.file.open("a") as file:
                file.write("\n" + json.dumps({"key": key, "error": error}))

    def _lines(self) -> Iterator[tuple[str, float]]:
        if self.file is None or not self.file.exists():
            return
        for line in self.file.read_text().splitlines():
            try:
                found = json.loads(line)
                yield str(found["key"]), float(found["error"])
            except (ValueError, TypeError, KeyError):
                continue


def sensitivities(
    trial: Trial,
    layers: Sequence[Layer],
    candidates: Sequence[Sequence[Candidate]],
    profiles: Mapping[str, Profile],
    record: Record,
    *,
    minutes: float,
    progress: bool,
) -> list[list[Sensitivity]]:
    """For each layer and candidate its sensitivity; dense ones have none."""
    of_layers = [
        [_layer_error(layer, found[0], c, profiles) for c in found]
        for layer, found in zip(layers, candidates, strict=True)
    ]
    measured: list[dict[int, float]] = [{n: 0.0 for n, c in enumerate(f) if c.scheme == DENSE} for f in candidates]
    queue = _in_order(of_layers, measured)
    end = time.monotonic() + 60 * minutes
    for layer, n in _shown(queue, progress):
        key = record.key(layers[layer], candidates[layer][n])
        if key not in record.known:
            if time.monotonic() > end:
                continue
            record.add(key, trial.error({layer: candidates[layer][n]}))
        measured[layer][n] = record.known[key]
    gradients = None
    if not all(
        any(e > 0 and n in known for n, e in enumerate(of)) for of, known in zip(of_layers, measured, strict=True)
    ):
        gradients = factors(trial.model, layers, trial.calls, trial.measure, profiles)
    return _completed(of_layers, measured, gradients)


def _layer_error(layer: Layer, dense: Candidate, candidate: Candidate, profiles: Mapping[str, Profile]) -> float:
    """The relative squared error of the layer's output on the sampled input (of its modules: the largest)."""
    if candidate is dense:
        return 0.0
    errors = []
    for name, before, after in zip(layer.names, dense.modules, candidate.modules, strict=True):
        sample = profiles[name].sample
        assert sample is not None
        expected = before.forward(*sample).double()
        wrong = (after.forward(*sample).double() - expected).square().sum()
        errors.append(float(wrong / expected.square().sum().clamp_min(1e-300)))
    return max(errors)


def _in_order(of_layers: Sequence[Sequence[float]], known: Sequence[Mapping[int, float]]) -> list[tuple[int, int]]:
    """Pairs of layer and candidate: each layer's middle one by its error, then each layer's worst, and so on down."""
    ranked = []
    for errors, done in zip(of_layers, known, strict=True):
        order = sorted((n for n in range(len(errors)) if n not in done), key=lambda n: -errors[n])
        middle = len(order) // 2
        ranked.append([*order[middle : middle + 1], *order[:middle], *order[middle + 1 :]])
    longest = max(map(len, ranked), default=0)
    return [(layer, order[turn]) for turn in range(longest) for layer, order in enumerate(ranked) if turn < len(order)]


def _shown(queue: Sequence[tuple[int, int]], progress: bool) -> Iterator[tuple[int, int]]:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not (progress and console.is_terminal)) as bar:
        yield from bar.track(queue, description="sensitivities")


def _completed(
    of_layers: Sequence[Sequence[float]], measured: Sequence[Mapping[int, float]], gradients: Sequence[float] | None
) -> list[list[Sensitivity]]:
    """Measured errors, and estimates of the others: the layer's error times a factor.

    The factor is that of the layer's measured candidate whose error is nearest in its logarithm. A layer of which none
    was measured takes the factor from gradients, corrected by what measured ones show of those (their median).
    """
    ratios = [
        {errors[n]: known[n] / errors[n] for n in known if errors[n] > 0}
        for errors, known in zip(of_layers, measured, strict=True)
    ]
    base = [1.0] * len(of_layers) if gradients is None else gradients
    corrections = sorted(r / b for of, b in zip(ratios, base, strict=True) for r in of.values() if b > 0)
    correction = corrections[len(corrections) // 2] if corrections else 1.0

    def estimate(error: float, layer: int) -> float:
        of = ratios[layer]
        if not of or error <= 0:
            return error * correction * base[layer]
        return error * of[min(of, key=lambda e: abs(math.log(e / error)))]

    return [
        [
            Sensitivity(e, known[n], True) if n in known else Sensitivity(e, estimate(e, layer), False)
            for n, e in enumerate(errors)
        ]
        for layer, (errors, known) in enumerate(zip(of_layers, measured, strict=True))
    ]


def require_all_ran(profiles: Mapping[str, Profile]) -> None:
    """Raise InputError for layers that the data never reached: nothing is known of them."""
    idle = [name for name, p in profiles.items() if p.sample is None]
    if idle:
        shown = ", ".join(idle[:5]) + (", ..." if len(idle) > 5 else "")
        raise InputError(
            f"data: {len(idle)} of the chosen modules never ran on it ({shown}); give more, or leave them out"
        )
