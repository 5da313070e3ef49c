"""What is written of a failure: the graph as an IR file, and a Python script that shows it without the fuzzer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from effcc.fuzz.oracles import Failure
from effcc.fuzz.torch_text import dtype_text, torch_function
from effcc.ir.dtypes import from_numpy
from effcc.ir.graph import Graph
from effcc.ir.printer import print_graph
from effcc.runtime.files import write_whole

_SCRIPT = '''"""{title}

    python {name}

Found by `effcc fuzz`, seed {seed}, at the step `{step}`; the same graph is in {ir}.
"""

{first}import torch
import torch.nn.functional as F

import effcc
{extra}
nan, inf = float("nan"), float("inf")


{function}

inputs = (
{inputs}
)

if __name__ == "__main__":
    expected = model(*inputs)
    compiled = effcc.compile(model)
    wrong = False
    for number, (got, want) in enumerate(zip(compiled(*inputs), expected, strict=True)):
        same = torch.allclose(got.double(), want.double(), rtol=1e-3, atol=1e-5, equal_nan=True)
        print(f"result {{number}}:", "equal" if same else f"expected\\n{{want}}\\ngot\\n{{got}}")
        wrong |= not same
    raise SystemExit(wrong)
'''


def write_failure(failure: Failure, folder: Path, name: str = "") -> tuple[Path, Path]:
    """Write `fuzz_<name>.ir` and `repro_<name>.py` into `folder`, which is made; name: by default the seed."""
    folder.mkdir(parents=True, exist_ok=True)
    graph, seed = failure.case.graph, failure.case.seed
    function = torch_function(graph)
    ir, script = folder / f"fuzz_{name or seed}.ir", folder / f"repro_{name or seed}.py"
    message = "\n".join(f"# {line}" for line in [str(failure), *failure.message.splitlines()[1:20]])
    varied = failure.case.variation
    given = f"\n# compiled with {varied}:\n" + _commented(print_graph(failure.case.compiled)) if varied.changes else ""
    if failure.case.passes:
        given += f"\n# with these passes: {', '.join(failure.case.passes)}\n"
    drawn = f"\n# under these schedules:\n{_commented(failure.schedules)}" if failure.schedules else ""
    write_whole(ir, f"{message}\n{print_graph(graph)}\n{given}{drawn}")
    write_whole(
        script,
        _SCRIPT.format(
            title=re.sub(r'[\\"]', "'", str(failure)),
            name=script.name,
            seed=seed,
            step=failure.step,
            ir=ir.name,
            first="from itertools import accumulate\n\n" if "accumulate(" in function else "",
            extra="".join(f"import effcc.frontend.{module}\n" for module in _modules(graph)),
            function=function,
            inputs="\n".join(f"    {tensor_text(a)}," for a in failure.case.inputs),
        ),
    )
    return ir, script


def _commented(text: str) -> str:
    return "".join(f"# {line}\n" for line in text.splitlines())


def _modules(graph: Graph) -> list[str]:
    """The modules that register the operators of ours that a graph is spelled with."""
    ops = {n.op for n in graph.nodes}
    return [*(["decode"] if "decode" in ops else []), *(["recurrent"] if ops & {"lstm", "gru", "rnn"} else [])]


def tensor_text(array: Any) -> str:
    """An array as a call of torch.tensor that makes exactly it."""
    dtype = from_numpy(array.dtype)
    values = array.astype(np.float64) if dtype.is_float else array
    text = f"torch.tensor({values.reshape(-1).tolist()}, dtype={dtype_text(dtype)})"
    return f"{text}.reshape({list(array.shape)})"
