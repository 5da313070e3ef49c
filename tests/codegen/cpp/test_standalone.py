"""Generated code under the address and undefined-behaviour sanitizers, as an executable of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effcc.codegen.cpp.program import pointer_table
from effcc.codegen.cpp.standalone import emit_standalone, separated
from effcc.errors import UnsupportedError
from effcc.ir.dtypes import f32
from effcc.ir.expr import Const, add
from effcc.ir.loops import LoopNest, Tile
from effcc.ir.program import Extern, Program
from effcc.runtime.toolchain import INCLUDE_DIR, compile_flags, find_compiler
from effcc.target import Target
from tests.codegen.cpp.running import at, axes, index, names, param, program_of
from tests.codegen.cpp.test_guards import convolution
from tests.codegen.cpp.test_products import matmul
from tests.codegen.cpp.test_reductions import softmax

(j,) = names("j")


def run_sanitized(
    program: Program, nest: LoopNest, arrays: Mapping[str, np.ndarray[Any, Any]], target: Target, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Build the program with sanitizers and run it; outputs are read back into `arrays`."""
    source, executable = folder / "main.cpp", folder / "main"
    source.write_text(emit_standalone(program, {nest.name: nest}, target))
    flags = [f for f in compile_flags(target) if f not in ("-shared", "-fPIC", "-O3")]
    command = [*find_compiler().command, str(source), "-o", str(executable), f"-I{INCLUDE_DIR}", "-O1", *flags]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    built = subprocess.run([*command, *checks], capture_output=True, text=True, check=False)
    if "cannot find" in built.stderr and "san" in built.stderr:
        pytest.skip("the compiler has no sanitizer libraries")
    assert built.returncode == 0, built.stderr
    table = pointer_table(separated(program))
    for name in table:
        (folder / name).write_bytes(arrays[name].tobytes())
    given = [part for name in table for part in (str(folder / name), str(arrays[name].nbytes))]
    done = subprocess.run([str(executable), "2", *given], capture_output=True, text=True, check=False)
    for name in program.outputs:
        arrays[name][...] = np.fromfile(folder / name, arrays[name].dtype).reshape(arrays[name].shape)
    return done


def test_a_product_a_softmax_and_a_convolution_are_clean(target: Target, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = [
        (matmul(28, 64, 48, 14, 32), {"A": (28, 48), "B": (2, 48, 32), "O": (28, 64)}),
        (softmax(3, 77), {"X": (3, 77), "P": (3, 77)}),
        (convolution(2, 9), {"X": (2, 9, 9), "W": (2, 2, 3, 3), "O": (2, 9, 9)}),
    ]
    for nest, shapes in cases:
        folder = tmp_path / nest.name
        folder.mkdir()
        arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        before = {o.name: arrays[o.name].copy() for o in nest.outputs}
        done = run_sanitized(program_of(nest), nest, arrays, target, folder)
        assert done.returncode == 0, done.stderr
        for output in nest.outputs:
            assert np.isfinite(arrays[output.name]).all()
            assert not np.array_equal(arrays[output.name], before[output.name])


def test_a_read_beyond_a_buffer_is_caught(target: Target, tmp_path: Path) -> None:
    body = (Tile(axes(("j", 16, "lanes")), "O", (j,), "set", at("X", add(j, index(1)))),)
    nest = LoopNest("beyond", (param("X", f32, 16),), (param("O", f32, 16),), body)
    arrays = {"X": np.ones(16, np.float32), "O": np.ones(16, np.float32)}
    done = run_sanitized(program_of(nest), nest, arrays, target, tmp_path)
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr


def test_a_program_that_calls_pytorch_cannot_stand_alone(target: Target) -> None:
    body = (Tile((), "O", (), "set", Const(0.0, f32)),)
    nest = LoopNest("zero", (), (param("O", f32),), body)
    program = program_of(nest).with_steps((Extern("rand", (), ("O",)),))
    with pytest.raises(UnsupportedError, match="calls PyTorch"):
        emit_standalone(program, {"zero": nest}, target)
