"""The command line: help with an example for every command, JSON for programs, errors as messages with exit code 2."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import typer.main
from typer.testing import CliRunner

from effcc.cli import app
from effcc.errors import CacheError
from effcc.fuzz.packages import Outcome
from effcc.ir.ops import TABLE
from effcc.runtime.cache import CompileCache
from effcc.steps import STEPS
from effcc.target import detect

runner = CliRunner()
COMMANDS = [
    "compile",
    "run",
    "explain",
    "bisect",
    "ops",
    "doctor",
    "cache",
    "cache list",
    "cache prune",
    "cache clear",
    "demo",
    "fuzz",
    "version",
]


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for the commands."""
    monkeypatch.setenv("EFFCC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def plain(text: str) -> str:
    """Text without the terminal's colours, boxes and line breaks."""
    return re.sub(r"[\s│]+", " ", re.sub(r"\x1b\[[0-9;]*m", "", text))


def test_every_command_is_listed_here() -> None:
    group = typer.main.get_command(app)
    assert set(group.commands) == {name.split()[0] for name in COMMANDS}  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_parses(command: str) -> None:
    result = runner.invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    example = re.search(r"Example: effcc ([^─]*)", plain(result.output))
    assert example, result.output
    words = example.group(1).split()
    assert words[: len(command.split())] == command.split()
    group = typer.main.get_command(app)
    name, *arguments = words
    group.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]  # raises on an unknown option


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("cach list", "cache"), ("docter", "doctor"), ("doctor --jsn", "--json"), ("fuzz --sed 1", "seed")],
)
def test_a_misspelled_command_or_option_names_the_near_miss(wrong: str, near: str) -> None:
    result = runner.invoke(app, wrong.split())
    assert result.exit_code == 2
    assert near in plain(result.output)


def test_an_effcc_error_is_one_message_and_exit_code_2(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFCC_CACHE_LIMIT", "lots")
    result = runner.invoke(app, ["cache", "list"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("effcc: error: EFFCC_CACHE_LIMIT: a size is a number of bytes")
    assert "Traceback" not in result.stderr


def test_debug_lets_the_error_through(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFCC_CACHE_LIMIT", "lots")
    result = runner.invoke(app, ["--debug", "cache", "list"])
    assert isinstance(result.exception, CacheError)


def test_an_unknown_target_is_refused_before_anything_is_compiled(tmp_path: Path) -> None:
    output = tmp_path / "out.effcc"
    arguments = ["compile", str(tmp_path / "model.pt2"), "-o", str(output), "--target", "avx51"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert "did you mean 'avx512'" in result.stderr
    assert not output.exists()


def test_ops_lists_every_core_overload_once() -> None:
    result = runner.invoke(app, ["ops", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    names = [row["overload"] for row in found["overloads"]]
    core = set()
    for schema in torch._C._jit_get_all_schemas():
        packet = getattr(torch.ops.aten, schema.name.removeprefix("aten::"), None)
        overload = getattr(packet, schema.overload_name or "default", None)
        if schema.name.startswith("aten::") and overload and torch.Tag.core in overload.tags:
            core.add(str(overload))
    assert set(names) == core
    assert len(names) == len(set(names)) == sum(found["count"].values()) > 150
    by_name = {row["overload"]: row for row in found["overloads"]}
    assert by_name["aten.add.Tensor"]["status"] == "native"
    assert all(row["reason"] for row in found["overloads"] if row["status"] == "extern")


def test_ops_shows_one_status_and_refuses_an_unknown_one() -> None:
    native = json.loads(runner.invoke(app, ["ops", "--status", "native", "--json"]).stdout)
    assert {row["status"] for row in native["overloads"]} == {"native"}
    wrong = runner.invoke(app, ["ops", "--status", "natve"])
    assert (wrong.exit_code, "did you mean 'native'" in wrong.stderr) == (2, True)


def test_ops_lists_effccs_own() -> None:
    names = {row["op"] for row in json.loads(runner.invoke(app, ["ops", "--own", "--json"]).stdout)}
    assert names == set(TABLE)


def test_help_of_compile_names_every_step() -> None:
    assert f"The steps: {', '.join(STEPS)}." in plain(runner.invoke(app, ["compile", "--help"]).output)


def test_version_names_effcc_and_torch() -> None:
    assert runner.invoke(app, ["version"]).stdout.startswith("effcc 0.1.0, torch 2.")
    assert runner.invoke(app, ["--version"]).stdout == runner.invoke(app, ["version"]).stdout
    assert json.loads(runner.invoke(app, ["version", "--json"]).stdout)["effcc"] == "0.1.0"


def test_cache_lists_prunes_and_clears(cache_dir: Path) -> None:
    for number in range(3):
        CompileCache(cache_dir).load(f'extern "C" int f() {{ return {number}; }}', detect())
    listed = json.loads(runner.invoke(app, ["cache", "list", "--json"]).stdout)
    assert listed["folder"] == str(cache_dir)
    assert all(Path(entry["file"]).is_file() for entry in listed["entries"])
    assert len(listed["entries"]) == 3
    assert listed["entries"][0]["key"] in runner.invoke(app, ["cache", "list"]).stdout
    limit = listed["entries"][0]["bytes"] * 5 // 2
    pruned = json.loads(runner.invoke(app, ["cache", "prune", "--limit", str(limit), "--json"]).stdout)
    assert [entry["key"] for entry in pruned["removed"]] == [listed["entries"][2]["key"]]
    assert runner.invoke(app, ["cache", "clear"]).stdout.startswith("removed 2 libraries")
    assert json.loads(runner.invoke(app, ["cache", "list", "--json"]).stdout)["entries"] == []


def test_doctor_measures_the_machine(cache_dir: Path) -> None:
    result = runner.invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["problems"] == []
    assert found["target"]["measured"]
    assert found["target"]["peak_flops"] > 1e9
    assert found["openmp"]
    assert found["compiler"]["version"]
    assert found["cache"]["folder"] == str(cache_dir)
    text = plain(runner.invoke(app, ["doctor"]).stdout)
    assert re.search(r"peak \d+ GFLOP/s in float32, \d+ billion vector instructions/s, all cores \(measured\)", text)


def test_doctor_without_a_compiler_says_which_package_to_install(
    cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 2
    assert "assumed, not measured" in plain(result.stdout)
    assert "apt install g++" in result.stderr


def test_doctor_with_a_compiler_that_fails_shows_its_output(
    cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "cxx"
    script.write_text('#!/bin/sh\n[ "$1" = --version ] && echo fake 1.0 && exit 0\necho "no assembler" >&2; exit 1\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    result = runner.invoke(app, ["doctor", "--json"])
    assert result.exit_code == 2
    assert "no assembler" in json.loads(result.stdout)["problems"][0]


def test_hostile_packages_are_counted() -> None:
    result = runner.invoke(app, ["fuzz", "--packages", "--minutes", "0.02", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["trials"] == report["typed"] + report["loaded"] > 0
    assert report["failures"] == []


def test_a_hostile_package_that_crashes_fails_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("effcc.fuzz.packages.attempt", lambda _, seed, __: Outcome(seed, "bits", "crash", "signal 11"))
    monkeypatch.setattr("effcc.fuzz.packages.sample", lambda: None)
    result = runner.invoke(app, ["fuzz", "--packages", "--minutes", "0.0001", "-o", str(tmp_path)])
    assert result.exit_code == 1
    assert "seed 0, bits: crash: signal 11" in result.output
