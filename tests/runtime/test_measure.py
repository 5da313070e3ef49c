"""The machine is measured once, and what was measured is believable."""

from __future__ import annotations

from pathlib import Path

import pytest

from effcc.errors import ToolchainError
from effcc.runtime import measure
from effcc.runtime.cache import CompileCache
from effcc.target import detect


def test_rates_are_measured_once_and_recalled(cache: CompileCache, monkeypatch: pytest.MonkeyPatch) -> None:
    target = detect()
    assert measure.recalled(target, cache) == target
    found = measure.measured(target, cache)
    assert found.measured
    assert found.peak_flops > 1e9
    assert found.l2_bandwidth > 1e9
    assert found.instructions > 1e8
    assert found.memory_bandwidth > 1e8
    assert found.memory_bandwidth < found.l2_bandwidth
    monkeypatch.setattr(measure, "_probe", None)  # a second measurement would fail
    assert measure.measured(target, cache) == found
    assert measure.recalled(target, cache) == found


def test_a_damaged_record_is_not_believed(cache: CompileCache) -> None:
    target = detect()
    (cache.folder / "machines").mkdir()
    record: Path = measure._record(target, cache)
    record.write_text('{"rates": {"peak_flops": 1.0}}')
    assert measure.recalled(target, cache) == target
    record.write_text("{")
    assert measure.recalled(target, cache) == target


def test_measuring_without_a_compiler_is_an_error(cache: CompileCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ToolchainError, match="no-such-compiler"):
        measure.measured(detect(), cache)
