"""What each step prints is taken up again and computes the same; bad files and names are said to be so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effcc
from effcc import steps
from effcc.ahead import compile_file
from effcc.errors import (
    CaptureError,
    EffccError,
    InputError,
    IRSyntaxError,
    IRTypeError,
    PackageError,
    ScheduleError,
    ToolchainError,
    UnknownNameError,
    UnsupportedError,
)
from effcc.runtime.objects import Making
from effcc.sources import GRAPH_STEPS, PROGRAM_STEPS
from effcc.steps import STEPS


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.LayerNorm(40), nn.Linear(40, 8)).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .pt2 file of `small_model`."""
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    torch.export.save(torch.export.export(small_model(), (torch.zeros(3, 24),)), path)
    return path


@pytest.fixture(scope="module")
def printed(exported: Path) -> dict[str, str]:
    """What every step prints."""
    return compile_file(exported, None, print_after=list(STEPS))


def without_comments(text: str) -> str:
    """The text without the places in the model, which are comments and so are not read again."""
    return re.sub(r"  #.*", "", text)


def test_every_step_prints(printed: dict[str, str]) -> None:
    assert list(printed) == list(STEPS)
    assert "graph @main" in printed["simplify"]
    assert "program @main" in printed["fuse"]
    assert "loops @" in printed["lower"]
    assert 'extern "C" int effcc_run' in printed["emit"]


def test_the_same_model_prints_the_same_source(exported: Path, printed: dict[str, str]) -> None:
    assert compile_file(exported, None, print_after=["emit"])["emit"] == printed["emit"]


@pytest.mark.parametrize("step", [*GRAPH_STEPS, *PROGRAM_STEPS])
def test_what_a_step_prints_is_taken_up_again(step: str, printed: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "model.ir"
    path.write_text(printed[step])
    compile_file(path, tmp_path / "model.effcc", from_step=step)
    model, loaded, x = small_model(), effcc.load(tmp_path / "model.effcc"), torch.randn(3, 24)
    weights = {f"p{name}": tensor for name, tensor in model.state_dict().items()}
    given = {name: x if name == "input" else weights[name] for name in loaded.inputs}
    (y,) = loaded(**given)
    torch.testing.assert_close(y, model(x).detach())


@pytest.mark.parametrize("step", ["fuse", "arrange"])
def test_what_follows_a_printed_step_is_what_followed_it(step: str, printed: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "model.ir"
    path.write_text(printed[step])
    again = compile_file(path, None, print_after=["tile"], from_step=step)["tile"]
    assert without_comments(again) == without_comments(printed["tile"])


def test_schedules_are_followed_as_they_were_printed(printed: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "tiled.ir"
    path.write_text(printed["tile"])
    again = compile_file(path, None, print_after=["tile", "lower"], from_step="tile")
    assert without_comments(again["tile"]) == without_comments(printed["tile"])
    assert again["lower"] == printed["lower"]


def test_an_edited_schedule_is_followed(exported: Path, printed: dict[str, str], tmp_path: Path) -> None:
    schedules = printed["tile"][printed["tile"].index("schedule @") :]
    edited, count = re.subn(r"by \d+ unroll", "by 1 unroll", schedules)
    assert count and edited != schedules
    path = tmp_path / "edited.ir"
    path.write_text(edited)
    output = tmp_path / "model.effcc"
    followed = compile_file(exported, output, print_after=["tile"], schedules=path)["tile"]
    assert followed.endswith(edited)
    model, x = small_model(), torch.randn(3, 24)
    torch.testing.assert_close(effcc.load(output)(x), model(x).detach())


BAD_SCHEDULES = {
    "of no kernel": ("schedule @", "schedule @other_", UnknownNameError, "unknown kernel '@other_"),
    "of no axis": ("parallel n by", "parallel q by", ScheduleError, "has no axis 'q'"),
    "that packs what is no weight": ("pack w0 along", "pack x0 along", ScheduleError, "x0 cannot be packed"),
    "that does not parse": ("parallel n by", "parallel n of", IRSyntaxError, "unexpected 'of'; expected 'by'"),
    "that is none": ("schedule @", "kernel_of @", InputError, "expected schedules"),
}


@pytest.mark.parametrize("what", BAD_SCHEDULES)
def test_a_bad_schedule_says_where(what: str, exported: Path, printed: dict[str, str], tmp_path: Path) -> None:
    old, new, error, message = BAD_SCHEDULES[what]
    schedules = printed["tile"][printed["tile"].index("schedule @") :]
    assert old in schedules
    path = tmp_path / "edited.ir"
    path.write_text("# mine\n" + schedules.replace(old, new))
    with pytest.raises(error) as caught:
        compile_file(exported, tmp_path / "model.effcc", schedules=path)
    assert message in str(caught.value)
    if error is not InputError:
        first, line, caret = str(caught.value).splitlines()[-3:]
        assert first.startswith(f"{path}:") and int(first.split(":")[1]) > 1
        assert new.split()[0] in line or new.split("_")[0] in line
        assert caret.strip() == "^"
    assert not (tmp_path / "model.effcc").exists()


def test_a_graph_starts_at_the_first_step_and_a_program_where_programs_begin(
    printed: dict[str, str], tmp_path: Path
) -> None:
    for step in ("simplify", "fuse"):
        path = tmp_path / f"{step}.ir"
        path.write_text(printed[step])
        again = compile_file(path, None, print_after=["arrange"])["arrange"]
        assert without_comments(again) == without_comments(printed["arrange"])


@pytest.mark.parametrize("step", ["lower", "emit"])
def test_what_cannot_be_taken_up_again_says_so(step: str, printed: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "model.ir"
    path.write_text(printed[step])
    with pytest.raises(UnsupportedError, match=r"cannot be taken up again.*print after one of simplify, hoist"):
        compile_file(path, tmp_path / "model.effcc", from_step=step)


def test_text_of_another_step_is_refused(printed: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "model.ir"
    path.write_text(printed["simplify"])
    with pytest.raises(InputError, match="step 'fuse' gives a program, the file holds a graph"):
        compile_file(path, tmp_path / "model.effcc", from_step="fuse")
    with pytest.raises(InputError, match="nothing to print after 'simplify'"):
        compile_file(path, None, print_after=["simplify"], from_step="hoist")
    assert not (tmp_path / "model.effcc").exists()


def test_a_package_s_kernels_are_compiled_while_others_are_on_their_way(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    before_all_were_known: list[int] = []
    add, emit = Making.add, steps.emit_program

    def added(self: Making, text: str) -> None:
        begun.append(text)
        add(self, text)

    def emitted(*args: Any, **options: Any) -> Any:
        before_all_were_known.append(len(begun))
        return emit(*args, **options)

    monkeypatch.setattr(Making, "add", added)
    monkeypatch.setattr(steps, "emit_program", emitted)
    compile_file(exported, tmp_path / "file.effcc")
    begun.clear()
    effcc.export(small_model(), (torch.zeros(3, 24),), tmp_path / "module.effcc")
    assert len(before_all_were_known) == 2 and all(before_all_were_known)


BAD_FILES: dict[str, tuple[bytes, type[EffccError], str]] = {
    "syntax.ir": (b"graph @main(%x: f32[3]) {\n  %y = exp %x :: f32[3]\n  return %y\n}", IRSyntaxError, ":2:16"),
    "types.ir": (b"graph @main(%x: f32[3]) {\n  %y = exp %x : f32[4]\n  return %y\n}", IRTypeError, ":2:"),
    "op.ir": (b"graph @main(%x: f32[3]) {\n  %y = expp %x : f32[3]\n  return %y\n}", UnknownNameError, "'exp'"),
    "dtype.ir": (b"graph @main(%x: f23[3]) {\n  return %x\n}", UnknownNameError, "'f32'"),
    "binary.ir": (b"\xff\xfe\x00\x01 binary", CaptureError, "got bytes that begin"),
    "empty.ir": (b"", EffccError, ""),
    "not.pt2": (b"not a zip archive", CaptureError, "written by torch.export.save"),
    "kernel.ir": (b"kernel @k(x: f32[3]) -> (y: f32[3]) over i=3 {\n  y[i] = x[i]\n}", InputError, "got Kernel @k"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_with_its_place(name: str, tmp_path: Path) -> None:
    content, error, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error) as caught:
        compile_file(tmp_path / name, tmp_path / "model.effcc")
    assert message in str(caught.value)
    assert name in str(caught.value)
    assert [f.name for f in tmp_path.iterdir()] == [name]


def test_an_error_in_the_second_graph_of_a_file_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "model.ir"
    path.write_text(
        "graph @main_prepare(weight %w: f32[3]) {\n  %v = exp %w : f32[3]\n  return %v\n}\n"
        "graph @main(weight %w: f32[3], weight %v: f32[3]) {\n  %y = add %v %w : f32[3]\n  return %y\n}\n"
    )
    with pytest.raises(IRSyntaxError) as caught:
        compile_file(path, None, print_after=["fuse"], from_step="hoist")
    assert caught.value.line == 6
    assert "^" in str(caught.value)


def test_unknown_steps_and_targets_have_near_misses(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown step 'fus'; did you mean 'fuse'"):
        compile_file(exported, None, print_after=["fus"])
    with pytest.raises(UnknownNameError, match="unknown target 'axv2'; did you mean 'avx2'"):
        effcc.export(small_model(), (torch.zeros(3, 24),), tmp_path / "m.effcc", target="axv2")
    with pytest.raises(InputError, match="is for printed IR"):
        compile_file(exported, None, print_after=["fuse"], from_step="hoist")


def test_an_output_that_cannot_be_written_is_refused_before_compiling(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="there is no folder"):
        compile_file(exported, tmp_path / "no" / "model.effcc")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targt": "avx2"}, "unknown option 'targt'; did you mean 'target'"),
        ({"target": "avx51"}, "unknown target 'avx51'; did you mean 'avx512'"),
        ({"print_after": "fus"}, "unknown step 'fus'; did you mean 'fuse'"),
    ],
)
def test_options_have_near_misses(options: dict[str, str], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        effcc.compile(small_model(), **options)
    compiled = torch.compile(small_model(), backend="effcc", options=options)
    with pytest.raises(UnknownNameError, match=message), torch.no_grad():
        compiled(torch.zeros(3, 24))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 512}, "option 'target': expected a name or a Target, got 512"),
        ({"threads": 0}, "option 'threads': expected a whole number from 1 to 1024, got '0'"),
        ({"threads": "all"}, "option 'threads': expected a whole number"),
        ({"fast_math": 1}, "option 'fast_math': expected True or False, got 1"),
        ({"print_after": 3}, "option 'print_after': expected the name of a step or a list of names, got 3"),
    ],
)
def test_options_of_the_wrong_kind_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        effcc.compile(small_model(), **options)


def test_a_mode_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown mode 'reduce-overhead'; known: default, max-autotune"):
        effcc.compile(small_model(), mode="reduce-overhead")


class Sums(nn.Module):
    """Products, a softmax, sums over everything, a running sum and a sum by index: what threads could reorder."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(64, 48)

    def forward(self, x: Tensor, i: Tensor) -> tuple[Tensor, ...]:
        y = torch.softmax(self.project(x), -1)
        return y.sum(), y.sum(0), torch.cumsum(y, 0), torch.zeros(5, 48).index_add(0, i, y)


def test_results_are_the_same_bit_for_bit_for_any_number_of_threads() -> None:
    torch.manual_seed(0)
    model, x, i = Sums().eval(), torch.randn(203, 64), torch.randint(0, 5, (203,))
    expected: tuple[Tensor, ...] | None = None
    for threads in (1, 2, 3, 5):
        torch.compiler.reset()
        with torch.no_grad():
            found = effcc.compile(model, threads=threads)(x, i)
        expected = expected or found
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), threads


def test_torch_compile_prints_a_step_where_asked(capfd: pytest.CaptureFixture[str]) -> None:
    with torch.no_grad():
        effcc.compile(small_model(), print_after="fuse")(torch.zeros(3, 24))
    assert "program @main" in capfd.readouterr().err


def test_a_graph_computes_the_same_for_every_instruction_set_that_runs_here() -> None:
    from effcc.target import detect, generic

    x, expected = torch.randn(3, 24), None
    for isa in ("scalar", "avx2", "avx512"):
        target = generic(isa)  # type: ignore[arg-type]
        if not target.runs_here():
            continue
        torch.compiler.reset()
        with torch.no_grad():
            y = effcc.compile(small_model(), target=isa)(x)
            expected = small_model()(x)
        torch.testing.assert_close(y, expected)
    assert expected is not None
    assert detect().runs_here()


FOUR = """
import os, sys, traceback
import torch, torch._dynamo, effcc

def compiled_and_right():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(24, 40), torch.nn.GELU(), torch.nn.Linear(40, 8)).eval()
    x = torch.randn(3, 24)
    with torch.no_grad():
        torch.testing.assert_close(effcc.compile(model)(x), model(x))

children = []
for _ in range(4):  # forked once all is imported, which takes longer than what is tested
    children.append(os.fork())
    if not children[-1]:
        try:
            compiled_and_right()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
sys.exit([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] != [0, 0, 0, 0])
"""


@pytest.mark.slow
def test_four_processes_compile_one_model_at_once(tmp_path: Path) -> None:
    environment = os.environ | {"EFFCC_CACHE_DIR": str(tmp_path / "cache")}
    assert subprocess.run([sys.executable, "-c", FOUR], env=environment, timeout=600, check=False).returncode == 0
    entries = list((tmp_path / "cache" / "entries").iterdir())
    assert 1 <= len(entries) <= 3
    assert not list((tmp_path / "cache" / "staging").iterdir())


def test_a_damaged_cache_entry_is_built_again_at_the_next_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EFFCC_CACHE_DIR", str(tmp_path / "cache"))
    model, x = small_model(), torch.randn(3, 24)
    effcc.export(model, (x,), tmp_path / "model.effcc")
    libraries = list((tmp_path / "cache" / "entries").glob("*/library.so"))
    assert libraries
    for library in libraries:
        damaged = library.with_suffix(".damaged")
        damaged.write_bytes(library.read_bytes()[:1000])
        damaged.replace(library)
    effcc.export(model, (x,), tmp_path / "model.effcc")
    torch.testing.assert_close(effcc.load(tmp_path / "model.effcc")(x), model(x).detach())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("echo 'internal compiler error' >&2; exit 1", "internal compiler error"),
        ("kill -9 $$", "signal 9"),
        ("echo thinking; sleep 60 & wait", "(?s)did not finish within 2 s and was stopped.*thinking"),
    ],
)
def test_a_compiler_that_fails_or_hangs_in_the_middle_of_a_call_shows_its_output(
    body: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "cxx"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo fake 1.0 && exit 0\n{body}\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("EFFCC_COMPILE_TIMEOUT", "2")
    monkeypatch.setenv("EFFCC_CACHE_DIR", str(tmp_path / "cache"))
    torch.compiler.reset()
    model, x = small_model(), torch.randn(3, 24)
    with pytest.raises(ToolchainError, match=message), torch.no_grad():
        effcc.compile(model)(x)
    assert not list((tmp_path / "cache" / "entries").iterdir())
    with pytest.raises(EffccError, match=message):
        effcc.export(model, (x,), tmp_path / "model.effcc")
    assert not (tmp_path / "model.effcc").exists()
    monkeypatch.delenv("CXX")
    monkeypatch.delenv("EFFCC_COMPILE_TIMEOUT")
    torch.compiler.reset()
    with torch.no_grad():
        torch.testing.assert_close(effcc.compile(model)(x), model(x))
