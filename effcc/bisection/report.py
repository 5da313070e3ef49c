"""The folder that a bisection writes: the finding in words, the IR before and after the fault, the reduced program with
its inputs, and a script that shows the wrong result."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from effcc.bisection.call import Call
from effcc.bisection.imported import Imported
from effcc.bisection.verdict import Verdict
from effcc.fuzz.eager import to_torch
from effcc.ir.printer import print_graph
from effcc.sources import GRAPH_STEPS, PROGRAM_STEPS
from effcc.steps import STEPS, State, show
from effcc.target import GENERIC

CALLS = 20
"""How often the script of a race calls the program."""

_SCRIPT = '''"""{title}

    python repro.py

prints the errors of each result, compiled and interpreted, and ends with 1 where one is wrong. The program is
reduced.ir (`effcc compile reduced.ir --print-after STEP` shows what a step makes of it), its inputs are
inputs.safetensors.
"""

from pathlib import Path

from effcc.bisection.replay import replay
{imports}
FOLDER = Path(__file__).parent

if __name__ == "__main__":
    raise SystemExit(replay(FOLDER / "reduced.ir", FOLDER / "inputs.safetensors"{options}))
'''


def write_report(folder: Path, whole: Call, reduced: Call, verdict: Verdict, found: Verdict, lines: list[str]) -> None:
    """Write the folder, which is made. verdict: of the whole call; found: of the reduced one; lines: the words."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "program.ir").write_text(print_graph(whole.case.graph) + "\n")
    (folder / "reduced.ir").write_text(print_graph(reduced.case.graph) + "\n")
    save_inputs(reduced, folder / "inputs.safetensors")
    (folder / "repro.py").write_text(repro(reduced, found))
    for name, state in (("before", found.before), ("after", found.after)):
        text = printed(found.step, state, name == "after")
        if text:
            (folder / f"{name}.ir").write_text(text + "\n")
    step = step_before(found)
    if step and (folder / "before.ir").exists():
        lines = [*lines, f"go on from the step before it: effcc compile {folder / 'before.ir'} --from {step}"]
    (folder / "verdict.txt").write_text("\n".join(lines) + "\n")


_IMPORT_SCRIPT = '''"""{title}

    python repro.py

prints the errors of each result against float64, compiled and eager, and ends with 1 where one is wrong.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import device, inf, nan

import effcc
from effcc.accuracy import check
from effcc.frontend.widened import reference

FOLDER = Path(__file__).parent


{function}

if __name__ == "__main__":
    held = load_file(FOLDER / "inputs.safetensors")
    inputs = [{inputs}]
    call = lambda *given: forward(None, *given)
    report = check(reference(call, *inputs), call(*inputs), effcc.compile(call)(*inputs))
    print(report)
    raise SystemExit(not report.ok)
'''


def write_import_report(folder: Path, whole: Call, alone: Imported | None, verdict: Verdict, lines: list[str]) -> None:
    """Write the folder of a call that was imported wrongly: its graph, and a script that compiles that call alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "program.ir").write_text(print_graph(whole.case.graph) + "\n")
    (folder / "verdict.txt").write_text("\n".join(lines) + "\n")
    reduced = whole if alone is None else alone.call
    (folder / "reduced.ir").write_text(print_graph(reduced.case.graph) + "\n")
    if alone is None:
        save_inputs(whole, folder / "inputs.safetensors")
        return
    tensors = {f"x{k}": a.contiguous() for k, a in enumerate(alone.arguments) if isinstance(a, Tensor)}
    save_file(tensors, folder / "inputs.safetensors")
    given = [f'held["x{k}"]' if isinstance(a, Tensor) else repr(a) for k, a in enumerate(alone.arguments)]
    title = f"{verdict.sentence[0].upper()}{verdict.sentence[1:]}."
    function = alone.module.code.strip()
    (folder / "repro.py").write_text(_IMPORT_SCRIPT.format(title=title, function=function, inputs=", ".join(given)))


def write_whole(folder: Path, whole: Call, lines: list[str]) -> None:
    """Write the folder of a call that is right when it is made alone: the program and its inputs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "program.ir").write_text(print_graph(whole.case.graph) + "\n")
    (folder / "verdict.txt").write_text("\n".join(lines) + "\n")
    save_inputs(whole, folder / "inputs.safetensors")


def save_inputs(call: Call, file: Path) -> None:
    """The inputs by parameter, and the state of the generator that random numbers come from."""
    tensors = {p.name: to_torch(a) for p, a in zip(call.case.graph.params, call.case.inputs, strict=True)}
    if any(n.op == "extern" for n in call.case.graph.nodes):
        tensors["generator"] = call.generator.clone()
    save_file({name: t.contiguous() for name, t in tensors.items()}, file)


def repro(call: Call, verdict: Verdict) -> str:
    """The text of the script."""
    options = ""
    imports = ""
    if call.target.name in GENERIC:
        imports = "from effcc.target import Target\n"
        options += f", target=Target.parse({call.target.name!r})"
    if call.fast_math:
        options += ", fast_math=True"
    if call.always_prepare:
        options += ", always_prepare=True"
    if call.threads is not None:
        options += f", threads={call.threads}"
    if verdict.kind in ("race", "calls"):
        options += f", calls={CALLS}"
    title = verdict.sentence.replace("\\", "/").replace('"', "'")
    return _SCRIPT.format(title=f"{title[0].upper()}{title[1:]}.", imports=imports, options=options)


def printed(step: str, state: State | None, is_after: bool) -> str:
    """A state as text; empty for one that has none."""
    if state is None or (state.graph is None and state.program is None and state.cascades is None):
        return ""
    if state.cascades is None and state.program is None:
        assert state.graph is not None
        return "\n".join(print_graph(g) for g in (state.prepare, state.graph) if g is not None)
    return show(state, step if is_after and step in STEPS else "fuse")


def step_before(verdict: Verdict) -> str:
    """The step whose result `before.ir` is, if text of it can be taken up again and nothing of the step at fault has
    been done to it."""
    steps = list(STEPS)
    if verdict.step not in steps or verdict.before is None or verdict.kind == "rule":
        return ""
    at = steps.index(verdict.step)
    before = steps[at - 1] if at else ""
    alone = verdict.pass_name in ("", verdict.step) or verdict.kind == "memory"
    return before if before in (*GRAPH_STEPS, *PROGRAM_STEPS) and alone else ""


def words(where: str, problem: str, verdict: Verdict) -> list[str]:
    """The finding, a line each."""
    lines = [f"wrong: {where}", f"how: {problem}", f"why: {verdict.sentence}"]
    if verdict.location:
        lines.append(f"model line: {verdict.location}")
    return [*lines, *verdict.details]
