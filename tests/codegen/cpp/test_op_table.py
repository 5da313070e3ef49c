"""Every op of the table, compiled to C++ by the whole pipeline, computes what its reference computes."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.driver import compile_graph
from effcc.ir.graph import GraphBuilder
from tests.ir.op_samples import Sample, all_samples
from tests.ir.test_ops import assert_close, reference
from tests.ir.test_ops_against_torch import to_numpy, to_torch

# One library holds many calls: starting the C++ compiler costs more than most of them.
CALLS_A_GRAPH = 48


def batches() -> list[list[Sample]]:
    found = all_samples()
    return [found[i : i + CALLS_A_GRAPH] for i in range(0, len(found), CALLS_A_GRAPH)]


@pytest.mark.slow
@pytest.mark.parametrize("batch", batches(), ids=lambda b: f"{b[0].op}..{b[-1].op}")
def test_compiled_calls_equal_their_references(batch: list[Sample]) -> None:
    builder, arrays, results = GraphBuilder("calls"), [], []
    for number, sample in enumerate(batch):
        params = [builder.param(f"x{number}_{k}", t) for k, t in enumerate(sample.types)]
        arrays.append(sample.arrays(seed=number))
        results += builder.node(sample.op, *params, **sample.attrs).results
    run = compile_graph(builder.build(tuple(results)))
    found = iter(run(*(to_torch(a) for operands in arrays for a in operands)))
    for sample, operands in zip(batch, arrays, strict=True):
        for expected in reference(sample, operands):
            assert_close(to_numpy(next(found)), np.asarray(expected))
