"""Areas in the plots are operations and seconds."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from effcc.explanation import Explanation
from effcc.page.plots import efficiency, gap, plots, waterline


def test_the_areas_of_the_efficiency_gap_are_seconds(timed: Explanation) -> None:
    (program,) = timed.programs
    program = replace(program, externs=tuple(replace(e, measured=3e-6) for e in program.externs))
    columns = efficiency(program)
    kernels = [c for c in columns if c.water is not None]
    total = sum(k.measured or 0.0 for k in program.kernels)
    lost, beyond, arithmetic = gap(program)
    assert sum(c.width for c in columns) == pytest.approx(total + 3e-6)
    assert lost + beyond + arithmetic == pytest.approx(total)
    assert sum(c.width * c.filled for c in kernels) == pytest.approx(arithmetic)
    assert sum(c.width * ((c.water or 0.0) - c.filled) for c in kernels) == pytest.approx(beyond)
    assert sum(c.width * (1 - (c.water or 0.0)) for c in kernels) == pytest.approx(lost)


def test_the_waterline_is_the_roofline_of_each_kernel(timed: Explanation) -> None:
    (program,) = timed.programs
    peak, bandwidth = program.limits["peak"], program.limits["bandwidth"]
    for column in waterline(program):
        kernel = program.kernels[column.k]
        assert column.width == kernel.flops
        assert column.water == pytest.approx(min(1.0, bandwidth * kernel.flops / kernel.bytes / peak))
        assert column.filled == pytest.approx((column.water or 0.0) / (column.k + 1))  # as much longer it takes


def test_columns_fill_the_width_and_stay_within_the_height(timed: Explanation) -> None:
    text = plots(timed.programs[0])
    figures = text.split("</figure>")[:-1]
    assert len(figures) == 2
    for figure in figures:
        rectangles = [
            tuple(map(float, found))
            for found in re.findall(r'<rect class="lost" x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)"', figure)
        ]
        assert rectangles[0][0] == 0
        assert rectangles[-1][0] + rectangles[-1][2] == pytest.approx(1000, abs=0.05)
        assert all(y >= 0 and y + height == pytest.approx(100, abs=0.05) for _, y, _, height in rectangles)


def test_without_times_there_is_the_waterline_alone(explanation: Explanation) -> None:
    text = plots(explanation.programs[0])
    assert 'class="waterline"' in text and 'class="gap"' not in text and "not measured" in text


def test_a_program_without_kernels_has_no_plots(explanation: Explanation) -> None:
    assert plots(replace(explanation.programs[0], kernels=(), externs=())) == ""
