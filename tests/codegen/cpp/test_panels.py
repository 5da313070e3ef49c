"""Panels of decoded weights compute the same on every machine, whole tiles and what is left of them."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.codegen.lower import lower
from effcc.ir.interpreter import run_kernel
from effcc.ir.schedule import Hold, nodes
from effcc.ir.verifier import verify_schedule
from effcc.passes.panels import with_panels
from effcc.passes.tiling.axes import settle_axes
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.pack import pack
from effcc.runtime.cache import CompileCache
from effcc.target import Target, generic
from tests.codegen.cpp.running import run_nest, source_of
from tests.passes.test_panels import BYTES, SYMMETRIC, TABLE, kernel


@pytest.mark.parametrize("value", [SYMMETRIC, TABLE, BYTES], ids=["int4", "table", "int8"])
@pytest.mark.parametrize("columns", [96, 37])
def test_panels_are_what_the_kernel_says(value: str, columns: int, target: Target, cache: CompileCache) -> None:
    rng = np.random.default_rng(0)
    whole = kernel(value, rows=21, columns=columns)
    arrays = {
        "X": rng.standard_normal((21, 128), np.float32),
        "Q": rng.integers(0, 256, (columns, 64), np.uint8),
        "S": rng.standard_normal((columns, 4), np.float32),
        "T": rng.standard_normal(16, np.float32),
        "B": rng.integers(-128, 128, (columns, 128), np.int8),
    }
    given = {p.name: arrays[p.name] for p in whole.params}
    expected = run_kernel(whole, given)["O"]
    panels = settle_axes(with_panels(whole), target)
    packed, schedule = choose(panels, target)
    verify_schedule(packed, schedule)
    held = [n.targets for _, n in nodes(schedule.body) if isinstance(n, Hold) and n.space == "local"]
    assert ("O_panel",) in held
    unpacked = panels
    for wanted in schedule.packs:
        unpacked, packing = pack(unpacked, wanted)
        given[wanted.buffer] = run_kernel(packing, {"source": given[wanted.buffer]})["packed"]
    found = np.full((21, columns), np.nan, np.float32)
    run_nest(lower(packed, schedule), {**given, "O": found}, target, cache)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_depth_that_was_cut_for_codes_is_one_loop_where_they_are_decoded() -> None:
    machine = generic("avx2")
    source = source_of(lower(*choose(settle_axes(with_panels(kernel(rows=64)), machine), machine)), machine)
    assert "k_i_1 < 128" in source, "16 bytes a group, two codes each, four groups"
