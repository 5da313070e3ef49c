"""Small networks of every kind through effcc: are they captured whole and right, what is left to PyTorch, how long.

python -m benchmarks.architectures                    # all of `benchmarks.small_models`
python -m benchmarks.architectures llama swin whisper
python -m benchmarks.architectures --kind vision      # one kind

Each runs on one sample, then on a batch of three in another size, for which PyTorch compiles it again, with sizes as
symbols. "breaks" are those of the graph under effcc and, after the slash, under a backend that compiles nothing: where
the two agree, the model breaks it and not effcc. "error" is the largest error as a part of what DESIGN.md's measure
allows.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import signal
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from benchmarks import table
from benchmarks.small_models import SMALL_MODELS, SmallModel
from benchmarks.subject import stats
from effcc.accuracy import Report, check
from effcc.errors import FaultWarning
from effcc.frontend import capture
from effcc.frontend.widened import run_widened


@dataclasses.dataclass(frozen=True)
class Row:
    """One network. `result` is "right", "WRONG", or what was raised; `seconds` are those of the two first calls."""

    name: str
    kind: str
    result: str
    error: float = 0.0
    graphs: int = 0
    breaks: int = 0
    own_breaks: int = 0
    externs: Mapping[str, int] = dataclasses.field(default_factory=dict)
    seconds: tuple[float, ...] = ()


def tensors(result: Any) -> list[Tensor]:
    """The tensors among a transformers model's results."""
    return [leaf for leaf in pytree.tree_leaves(result.to_tuple()) if isinstance(leaf, Tensor)]


def reference(model: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """The results in float64. What a model decides by its data is decided as eager does, whose calls are recorded."""

    def call(*values: Tensor) -> list[Tensor]:
        return tensors(model(**dict(zip(inputs, values, strict=True))))

    values = tuple(inputs.values())
    record = make_fx(
        torch.func.functionalize(call, remove="mutations"), tracing_mode="real", _error_on_data_dependent_ops=False
    )
    try:
        recorded = record(*values)
    except RuntimeError:  # what functional transforms refuse, such as gradients of the model's own, Dynamo captures
        run = capture.compile_apart(
            model, lambda module, *_: lambda *given: run_widened(module, given), dynamic=False, fullgraph=False
        )
        return tensors(run(**inputs))
    return run_widened(recorded, values)


def portion(report: Report) -> float:
    """The largest error of all outputs, as a part of its bound."""
    pairs = [p for o in report.outputs for p in ((o.max_error, o.max_bound), (o.rms_error, o.rms_bound))]
    return max((error / bound for error, bound in pairs if bound), default=0.0)


def breaks_of(backend: str, model: nn.Module, calls: Sequence[Mapping[str, Tensor]]) -> int:
    """How often PyTorch breaks the graph of a model with this backend behind it."""
    torch.compiler.reset()
    counters.clear()
    compiled = torch.compile(model, backend=backend)
    for inputs in calls:
        compiled(**inputs)
    return sum(counters["graph_break"].values())


def measure(name: str, entry: SmallModel, own: bool = True) -> Row:
    """Compile one network, run it on its two inputs, and compare with the reference. own: also count PyTorch's own
    graph breaks, which takes another capture. Raises FaultWarning where PyTorch runs a part for a fault of ours."""
    both = [entry.inputs(0), entry.inputs(1)]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", FaultWarning)
        own_breaks = breaks_of("eager", entry.build(), both) if own else 0
        torch.compiler.reset()
        model = entry.build()
        expected = [(reference(model, inputs), tensors(model(**inputs))) for inputs in both]
        torch.compiler.reset()
        counters.clear()
        compiled: Any = torch.compile(model, backend="effcc")
        reports, seconds = [], []
        for inputs, (wide, eager) in zip(both, expected, strict=True):
            started = time.perf_counter()
            got = tensors(compiled(**inputs))
            seconds.append(time.perf_counter() - started)
            reports.append(check(wide, eager, got))
    asked = stats(compiled)
    return Row(
        name,
        entry.kind,
        "right" if all(report.ok for report in reports) else "WRONG",
        max(map(portion, reports)),
        counters["stats"]["unique_graphs"],
        sum(counters["graph_break"].values()),
        own_breaks,
        asked.externs if asked else {},
        tuple(seconds),
    )


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise TimeoutError inside when so much time has passed."""

    def stop(number: int, frame: Any) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of " + ", ".join(SMALL_MODELS))
    parser.add_argument("--seconds", type=int, default=600, help="the most that one network may take")
    parser.add_argument("--kind", choices=sorted({entry.kind for entry in SMALL_MODELS.values()}))
    options = parser.parse_args()
    rows = []
    for name in options.names or [n for n, e in SMALL_MODELS.items() if options.kind in (None, e.kind)]:
        entry = SMALL_MODELS[name]
        try:
            with at_most(options.seconds):
                rows.append(measure(name, entry))
        except Exception as error:  # a failure is a result here, and is printed
            rows.append(Row(name, entry.kind, f"{type(error).__name__}: {error}".splitlines()[0][:60]))
        print(f"{name}: {rows[-1].result}, {' and '.join(f'{s:.1f}' for s in rows[-1].seconds)} s", flush=True)
        torch.compiler.reset()
        gc.collect()
    columns = ["network", "kind", "result", "error", "graphs", "breaks", "externs", "first calls s"]
    cells = [
        [
            row.name,
            row.kind,
            row.result,
            f"{row.error:.2f}",
            str(row.graphs),
            f"{row.breaks} / {row.own_breaks}",
            table.counts(row.externs),
            ", ".join(f"{s:.1f}" for s in row.seconds),
        ]
        for row in rows
    ]
    table.show(f"Small networks of transformers, fp32, {torch.get_num_threads()} threads", columns, cells)
    print(f"{sum(row.result == 'right' for row in rows)} of {len(rows)} are right")


if __name__ == "__main__":
    main()
