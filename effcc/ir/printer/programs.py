"""Programs as text: buffers, kernels, then the steps of `prepare` and `main`."""

from __future__ import annotations

import json
from collections.abc import Iterable

from effcc.ir.printer.graphs import print_graph, show_attributes, show_ranges
from effcc.ir.printer.kernels import print_kernel, show_location
from effcc.ir.program import Branch, Buffer, Extern, Join, Launch, Loop, Program, Step


def print_program(program: Program, locations: bool = True) -> str:
    """The text of a program; `locations` adds kernels' and extern calls' locations as comments."""
    header = f"program @{program.name}({', '.join(program.inputs)}) -> ({', '.join(program.outputs)})"
    lines = [header + show_ranges(program.ranges) + " {"]
    lines += [_buffer(b) for b in program.buffers]
    lines += [print_kernel(kernel, "  ", locations) for kernel in program.kernels.values()]
    if program.prepare:
        lines += ["  prepare {", *_steps(program.prepare, locations), "  }"]
    lines += ["  main {", *_steps(program.steps, locations), "  }"]
    lines += [f"  update {target}, {value}" for target, value in program.updates]
    return "\n".join([*lines, "}"])


def _buffer(buffer: Buffer) -> str:
    text = f"  buffer {buffer.name}: {buffer.type} in {buffer.space}"
    if buffer.offset is not None:
        text += f" at {buffer.offset}"
    return text + (f" alias {buffer.alias}" if buffer.alias else "")


def _steps(steps: Iterable[Step], locations: bool, indent: str = "    ") -> list[str]:
    lines: list[str] = []
    for step in steps:
        if isinstance(step, Branch | Loop):
            first, second = (_steps(block, locations, indent + "  ") for block in step.blocks)
            is_branch = isinstance(step, Branch)
            opening, between = (f"if {step.condition}", "else") if is_branch else ("loop", f"while {step.condition}")
            head = f"{indent}{opening} {{{show_location(step.location, locations)}"
            lines += [head, *first, f"{indent}}} {between} {{", *second, f"{indent}}}"]
        else:
            lines.append(indent + _step(step, locations))
    return lines


def _step(step: Launch | Join | Extern, locations: bool) -> str:
    names = f"({', '.join(step.arguments)})"
    results = f" -> ({', '.join(step.results)})"
    if isinstance(step, Launch):
        return f"launch @{step.kernel}{names}{results}"
    if isinstance(step, Join):
        return f"join{names}{results} along {step.axis}"
    attrs = f" {show_attributes(step.attrs)}" if step.attrs else ""
    reason = f" because {json.dumps(step.reason)}" if step.reason else ""
    regions = "".join(" " + print_graph(region, "    ", locations).lstrip() for region in step.regions)
    return f"extern {step.op}{names}{attrs}{regions}{results}{reason}{show_location(step.location, locations)}"
