"""The waterline and the efficiency gap, after Lavin, "On the Efficiency of Convolutional Neural Networks"
(arXiv:2404.03617): latency is arithmetic over computational efficiency, so what is lost is an area.

*Waterline*: operations along x, each kernel as wide as its share of them; operations a second along y. A kernel's
waterline is what the machine can attain at its intensity, min(peak, bandwidth * operations / bytes); what it really
attains fills its column up to there, and the gap between them is lost.

*Efficiency gap*: time along x, each step as wide as it takes; its efficiency along y, the time that its operations take
at the peak beside its own. So areas are seconds: those of arithmetic at the bottom; up to the waterline, those that
bytes take beyond it; above, those that no limit accounts for. Calls to PyTorch have no limits, and are only wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effcc.explanation import ProgramReport

_WIDTH, _HEIGHT = 1000.0, 100.0


@dataclass(frozen=True)
class Column:
    """A column of a plot: whose it is, how wide, what fills it and where its waterline is (None: it has none), both
    as shares of the height, and what to tell of it."""

    k: int
    width: float
    filled: float
    water: float | None
    told: str


def plots(report: ProgramReport) -> str:
    """Both plots; without times only the waterline, without operations only the gap."""
    figures = []
    operations = sum(k.flops for k in report.kernels)
    measured = any(k.measured for k in report.kernels)
    if operations:
        peak = report.limits["peak"]
        reached = f"; reached {_giga(operations / _seconds(report))}" if measured else "; not measured"
        figures.append(
            _figure(
                "waterline",
                "Waterline: operations a second that each kernel can attain, and attains",
                waterline(report),
                f"{_key('filled')} attained {_key('lost')} lost; {_giga(peak)} at the peak{reached}",
                f"{operations / 1e6:,.1f} MFLOP",
            )
        )
    if measured:
        lost, bytes_, arithmetic = gap(report)
        figures.append(
            _figure(
                "gap",
                "Efficiency gap: where the time of a call goes",
                efficiency(report),
                f"{_key('filled')} arithmetic at the peak {_micro(arithmetic)} {_key('bytes')} bytes beyond it "
                f"{_micro(bytes_)} {_key('lost')} lost {_micro(lost)}",
                _micro(_total(report)),
            )
        )
    return f'<div class="plots">{"".join(figures)}</div>' if figures else ""


def waterline(report: ProgramReport) -> list[Column]:
    """A column for every kernel that has operations, in the order of their first launches."""
    peak = report.limits["peak"]
    columns = []
    for k, kernel in enumerate(report.kernels):
        if kernel.flops:
            attainable = kernel.flops / kernel.roofline
            attained = kernel.flops / kernel.measured if kernel.measured else 0.0
            told = f"@{kernel.name}: {kernel.flops / 1e6:,.2f} MFLOP, can attain {_giga(attainable)}"
            told += f", attains {_giga(attained)}" if kernel.measured else ""
            columns.append(Column(k, kernel.flops, attained / peak, attainable / peak, told))
    return columns


def efficiency(report: ProgramReport) -> list[Column]:
    """A column for every kernel and call that was measured."""
    columns = []
    for k, kernel in enumerate(report.kernels):
        if kernel.measured:
            arithmetic = kernel.flops / report.limits["peak"]
            told = f"@{kernel.name}: {_micro(kernel.measured)}, of which its limit is {_micro(kernel.roofline)}"
            columns.append(
                Column(k, kernel.measured, arithmetic / kernel.measured, kernel.roofline / kernel.measured, told)
            )
    for k, extern in enumerate(report.externs, len(report.kernels)):
        if extern.measured:
            columns.append(Column(k, extern.measured, 0.0, None, f"{extern.operator}: {_micro(extern.measured)}"))
    return columns


def gap(report: ProgramReport) -> tuple[float, float, float]:
    """Seconds of kernels in a call: lost, taken by bytes beyond arithmetic, and of arithmetic at the peak.

    A kernel that is faster than its limit, where rates are only assumed, loses nothing."""
    arithmetic = sum(k.flops for k in report.kernels) / report.limits["peak"]
    limit = sum(k.roofline for k in report.kernels)
    lost = sum(max((k.measured or 0.0) - k.roofline, 0.0) for k in report.kernels)
    return lost, limit - arithmetic, arithmetic


def _figure(kind: str, title: str, columns: Sequence[Column], note: str, end: str) -> str:
    whole = sum(c.width for c in columns)
    x, shapes, line = 0.0, [], []
    for c in columns:
        width = _WIDTH * c.width / whole
        filled = _bounded(c.filled)
        shapes.append(f'<g data-k="{c.k}"><title>{escape(c.told)}</title>')
        top = 1.0 if kind == "gap" else _bounded(c.water or 0.0)
        shapes.append(_rectangle("lost", x, width, top))
        if kind == "gap" and c.water is not None:
            shapes.append(_rectangle("bytes", x, width, _bounded(c.water)))
        shapes.append(_rectangle("filled", x, width, filled) + "</g>")
        if c.water is not None:
            y = _HEIGHT * (1 - _bounded(c.water))
            line.append(f"M{x:.2f} {y:.2f}H{x + width:.2f}")
        x += width
    grid = "".join(f'<path class="grid" d="M0 {_HEIGHT * s:g}H{_WIDTH:g}"/>' for s in (0.25, 0.5, 0.75))
    return (
        f'<figure class="{kind}"><figcaption>{escape(title)}</figcaption><div class="plot">'
        f'<div class="ticks"><span>100 %</span><span>50 %</span><span>0</span></div>'
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" preserveAspectRatio="none" role="img" aria-label="{escape(title)}">'
        f'{grid}{"".join(shapes)}<path class="water" d="{"".join(line)}"/></svg>'
        f'</div><div class="ends"><span>0</span><span>{note}</span><span>{escape(end)}</span></div></figure>'
    )


def _key(kind: str) -> str:
    """A patch of a colour, before what it stands for."""
    return f'<i class="{kind}"></i>'


def _rectangle(kind: str, x: float, width: float, height: float) -> str:
    y = _HEIGHT * (1 - height)
    return f'<rect class="{kind}" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{_HEIGHT * height:.2f}"/>'


def _bounded(share: float) -> float:
    return min(max(share, 0.0), 1.0)


def _seconds(report: ProgramReport) -> float:
    return sum(k.measured or 0.0 for k in report.kernels)


def _total(report: ProgramReport) -> float:
    return _seconds(report) + sum(e.measured or 0.0 for e in report.externs)


def _giga(rate: float) -> str:
    return f"{rate / 1e9:,.1f} GFLOP/s"


def _micro(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} us"
