"""Polynomials: error bounds on every 997th float, and special values, for every instruction set of this processor.

The table over all floats is `benchmarks/ulp.md`; the bounds here are what that table found, rounded up.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.ulp import FUNCTIONS, build, measure, usable_isas
from effcc.runtime.toolchain import find_compiler

from .conftest import Compile, run

# Units in the last place: with FMA, without.
BOUNDS = {
    "exp": (1.05, 1.05),
    "exp2": (0.9, 1.15),
    "expm1": (1.5, 1.5),
    "log": (0.9, 0.9),
    "log2": (1.1, 2.1),
    "log10": (1.1, 2.1),
    "log1p": (1.5, 1.5),
    "tanh": (1.4, 1.4),
    "sigmoid": (2.5, 2.5),
    "erf": (1.15, 1.2),
    "erfc": (4.6, 5.4),
    "sin": (1.65, 2.7),
    "cos": (1.65, 2.7),
    "tan": (3.1, 3.7),
    "asin": (1.7, 1.7),
    "acos": (1.1, 1.1),
    "atan": (2.0, 2.0),
    "sqrt": (0.5, 0.5),
    "rsqrt": (1.5, 1.5),
    "pow": (1.0, 1.0),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The measuring program of benchmarks/ulp.py."""
    return build(tmp_path_factory.mktemp("ulp"), find_compiler().command[0])


@pytest.mark.parametrize("function", [*FUNCTIONS, "pow"])
def test_error_stays_within_its_bound(program: Path, function: str) -> None:
    fused, unfused = BOUNDS[function]
    for isa in usable_isas():
        worst = measure(program, function, isa, stride=997, threads=1)
        bound = unfused if worst.isa == "baseline" else fused
        found = f"{worst.isa}: {worst.ulp:.3f} units at {worst.at!r}: {worst.got!r}, not {worst.truth!r}"
        assert worst.ulp <= bound, found
        assert worst.ulp > 0.4, f"{worst.isa}: the measurement sees no rounding at all"
        assert worst.wrong == 0, f"{worst.isa}: {worst.wrong} special values wrong, first at {worst.wrong_at!r}"


def test_special_values_scalars_and_doubles_are_the_c_library_s(compiled: Compile, isa: str) -> None:
    run(compiled("math.cpp", isa))
