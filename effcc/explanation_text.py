"""An explanation as text for people."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from effcc.passes.rules.reader import load_safe

if TYPE_CHECKING:
    from effcc.comparison import ProgramComparison
    from effcc.explanation import KernelReport, ProgramReport

_SHOWN_LOCATIONS = 6
_HEADINGS = (
    "kernel", "launches", "MFLOP", "MB", "roofline us", "bound by", "predicted us", "measured us", "of roofline",
)  # fmt: skip


def program_text(report: ProgramReport) -> str:
    """Kernels by time, then each with what fused and why it is scheduled so, calls to PyTorch, memory, compile time."""
    launches = sum(k.launches for k in report.kernels)
    head = f"program {report.name} for {report.target}: {len(report.kernels)} kernels, {launches} launches a call"
    if report.sizes:
        head += "; figures are at " + ", ".join(f"{n} = {v}" for n, v in report.sizes.items())
    parts = [head, kernel_table(report)]
    parts += [f"nothing was measured: {report.problem}"] if report.problem else []
    parts += [_detail(k) for k in _by_time(report)]
    parts += about(report)
    if report.source:
        parts.append(report.source)
    return "\n\n".join(parts)


def about(report: ProgramReport) -> list[str]:
    """Paragraphs on what is no kernel's: calls to PyTorch, arithmetic, stored weights, memory, compile time."""
    parts = []
    if report.externs:
        rows = [f"  {e.operator}: {e.reason}{_at(e.location)}{_took(e.measured)}" for e in report.externs]
        parts.append("run by PyTorch:\n" + "\n".join(rows))
    else:
        parts.append("run by PyTorch: nothing")
    parts.append(_arithmetic(report))
    if report.encodings:
        parts.append("stored weights:\n" + "\n".join(f"  {e}" for e in report.encodings))
    memory = {n: "unknown" if b is None else f"{b:,} bytes" for n, b in report.memory.items()}
    parts.append(
        f"memory: arena {memory['arena']} (live-range lower bound {memory['bound']}); weights {memory['weights']}, "
        f"prepared from them {memory['prepared']}, of the weights only read to prepare {memory['originals']}"
    )
    parts.append("compile time: " + ", ".join(f"{n} {s:.3f} s" for n, s in report.seconds.items()))
    return parts


def _arithmetic(report: ProgramReport) -> str:
    """Whether rules may change more than roundings, and which of them did."""
    if not report.fast_math:
        return "fast_math: off, results differ from eager's by roundings alone"
    safe = {r.name for r in load_safe().rules}
    fired = ", ".join(f"{name} x{n}" for name, n in sorted(report.rules.items()) if name not in safe)
    return f"fast_math: on, rules that changed more than roundings: {fired or 'none'}"


def kernel_table(report: ProgramReport, most: int | None = None) -> str:
    """A table of the kernels, those that take longest first; only the first `most`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading in ("kernel", "bound by") else "right", overflow="fold")
    for k in _by_time(report)[:most]:
        share = f"{100 * k.roofline / k.measured:.0f} %" if k.measured else "-"
        cells = [
            k.name,
            str(k.launches),
            f"{k.flops / 1e6:.2f}",
            f"{k.bytes / 1e6:.3f}",
            _micro(k.roofline),
            k.bound_by,
        ]
        table.add_row(*map(Text, [*cells, _micro(k.predicted), _micro(k.measured), share]))
    target = io.StringIO()
    Console(file=target, width=140, highlight=False, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in target.getvalue().splitlines())


def comparison_text(comparison: ProgramComparison) -> str:
    """A table of the kernels before and after, and the differences of their cascades and schedules."""
    lines = [f"before: {comparison.before or 'nothing'}", f"after: {comparison.after or 'nothing'}"]
    for name, (before, after) in comparison.figures.items():
        shown = (_micro(v) if name == "seconds" else "-" if v is None else f"{v:,.0f}" for v in (before, after))
        lines.append(f"  {name}{' (us)' if name == 'seconds' else ''}: {' -> '.join(shown)}")
    for pair in comparison.pairs:
        names = f"@{pair.before or '-'} -> @{pair.after or '-'}"
        told = ", ".join(pair.changes) or ("nothing" if pair.before and pair.after else "has no partner")
        lines.append(f"{names}: {_micro(pair.before_seconds)} -> {_micro(pair.after_seconds)} us; differs in: {told}")
        for what in ("cascade", "schedule"):
            lines += [f"    {line}" for line in pair.changes.get(what, "").splitlines()]
    return "\n".join(lines)


def breaks_text(breaks: Mapping[str, int]) -> list[str]:
    """A paragraph on graph breaks, or none."""
    if not breaks:
        return []
    return ["graph breaks in this process:\n" + "\n".join(f"  {count} x {reason}" for reason, count in breaks.items())]


def _by_time(report: ProgramReport) -> list[KernelReport]:
    return sorted(report.kernels, key=lambda k: -(k.measured or k.roofline))


def _detail(kernel: KernelReport) -> str:
    lines = kernel.text.splitlines()
    places = [p.strip() for p in kernel.location.split(";") if p.strip()]
    if places:
        more = f" and {len(places) - _SHOWN_LOCATIONS} more" if len(places) > _SHOWN_LOCATIONS else ""
        lines.append("  from: " + "; ".join(places[:_SHOWN_LOCATIONS]) + more)
    lines += [f"  schedule: {note}" for note in kernel.notes]
    lines += [f"  verdict: {kernel.verdict}"] if kernel.verdict else []
    return "\n".join(lines)


def _micro(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e6:.1f}"


def _at(location: str) -> str:
    return f" (at {location})" if location else ""


def _took(seconds: float | None) -> str:
    return "" if seconds is None else f", {seconds * 1e6:.1f} us"
