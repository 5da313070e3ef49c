"""What `repro.py` of a bisection does: the reduced program once more, and the errors of both sides.

    python repro.py

Exit code 1 where a result is wrong, 0 where all are right.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from effcc.bisection.call import Call, Drawn, sizes_of
from effcc.fuzz.eager import to_numpy
from effcc.fuzz.expected import Array
from effcc.fuzz.generate import Case
from effcc.fuzz.oracles import told
from effcc.ir.parser import parse_graph
from effcc.target import Target


def replay(
    graph: Path,
    inputs: Path,
    *,
    target: Target | None = None,
    fast_math: bool = False,
    always_prepare: bool = False,
    threads: int | None = None,
    calls: int = 1,
) -> int:
    """Compile a printed graph, call it, and print each result's error beside that of the graph's interpreter.

    target: default: this machine. calls: how often it is called; each must give the same. Returns 1 where a result is
    wrong, else 0.
    """
    from effcc.runtime.measure import host_target

    parsed = parse_graph(graph.read_text())
    held = load_file(inputs)
    arrays = tuple(to_numpy(held[p.name]) for p in parsed.params)
    generator = held.get("generator", torch.get_rng_state())
    case = Case(parsed, arrays, call=Drawn(generator, sizes_of(parsed, arrays)))
    call = Call(case, target or host_target(), fast_math, always_prepare, threads, generator)
    try:
        executable = call.executable(call.compiled)
        results = [call.run(executable) for _ in range(calls)]
    except Exception as error:
        print(f"wrong: compiling or running it raises {told(error)}")
        return 1
    for number, (value, got) in enumerate(zip(parsed.results, results[0], strict=True)):
        want = call.expected.results[number]
        own, mine = largest_error(want.own, want.wide), largest_error(got, want.wide)
        print(
            f"result {number} (%{value.name}): largest error {mine:.3g} compiled, {own:.3g} interpreted in its dtypes"
        )
    differ = any(a.tobytes() != b.tobytes() for other in results[1:] for a, b in zip(results[0], other, strict=True))
    problem = next(filter(None, map(call.wrong, results)), "two calls differ" if differ else "")
    print(f"wrong: {problem}" if problem else "right", file=sys.stdout)
    return int(bool(problem))


def largest_error(got: Array, exact: Array) -> float:
    """max|got - exact| over what is finite on both sides; of integers, how many differ."""
    if exact.dtype.kind != "f":
        return float((got != exact).sum())
    with np.errstate(all="ignore"):
        errors = np.abs(got.astype(np.float64) - exact)
    return float(errors[np.isfinite(errors)].max(initial=0.0))
