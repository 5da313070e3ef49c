"""A target is read off the machine, or is one of the documented generic ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from effcc import target
from effcc.errors import UnknownNameError
from effcc.target import REQUIRED_FEATURES, Target, cpu_features, cpu_model, default_rates, detect, generic, parse


def test_the_host_has_what_its_instruction_set_requires() -> None:
    host = detect()
    assert set(REQUIRED_FEATURES[host.isa]) <= set(host.features) <= cpu_features()
    assert host.runs_here()
    assert host.cores >= 1
    assert 0 < host.l1_bytes <= host.l2_bytes <= host.l3_bytes


@pytest.mark.parametrize(("name", "lanes", "registers"), [("avx512", 16, 32), ("avx2", 8, 16), ("scalar", 1, 16)])
def test_generic_targets_are_the_same_everywhere(name: str, lanes: int, registers: int) -> None:
    target = Target.parse(name)
    assert (target.isa, target.vector_lanes, target.vector_registers) == (name, lanes, registers)
    assert (target.cores, target.l1_bytes, target.measured) == (4, 32 << 10, False)


def test_host_and_native_are_this_machine() -> None:
    assert parse("host") == parse(" Native ") == detect()


@pytest.mark.parametrize(("wrong", "near"), [("avx51", "avx512"), ("avx3", "avx2"), ("hots", "host")])
def test_an_unknown_target_lists_the_near_misses(wrong: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown target '{wrong}'.*{near}"):
        parse(wrong)


def test_a_machine_can_be_restricted_to_less() -> None:
    narrow = generic("avx512").with_isa("avx2")
    assert (narrow.isa, narrow.vector_bytes, narrow.features) == ("avx2", 32, REQUIRED_FEATURES["avx2"])
    assert narrow.peak_flops == default_rates("avx2", 4)["peak_flops"]
    assert generic("avx2").with_isa("avx2") == generic("avx2")


def test_cpuinfo_is_read_as_linux_writes_it(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu sse avx2\n\nprocessor\t: 1\nflags\t: fpu\n")
    assert cpu_features(cpuinfo) == {"fpu", "sse", "avx2"}
    assert cpu_model(cpuinfo) == "A CPU"
    assert cpu_features(tmp_path / "none") == frozenset()


def test_importing_it_does_not_import_torch() -> None:
    script = "import sys, effcc.target, effcc.runtime.measure; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


@pytest.mark.parametrize("allowed", [True, False])
def test_a_matrix_unit_counts_where_linux_gives_its_registers(
    allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "_may_use_tiles", lambda: allowed)
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : avx2 amx_bf16 amx_tile amx_int8\n")
    assert cpu_features(cpuinfo) == {"avx2", *(target.AMX_FEATURES if allowed else ())}


def test_generic_machines_differ_by_what_they_do_with_bf16() -> None:
    found = {name: (parse(name).sums_bf16, parse(name).tile_registers) for name in target.GENERIC}
    assert found["amx"] == (True, 8) and found["avx512_bf16"] == (True, 0)
    assert {found[name] for name in ("avx512", "avx2", "scalar")} == {(False, 0)}
    assert parse("amx").with_isa("avx2").tile_registers == 0
