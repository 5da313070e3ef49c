"""Functions of sizes: one table, the same numbers from Python, from text read back, from packages' trees and from C."""

from __future__ import annotations

import ctypes
import inspect
import math
import pickle
import subprocess
from pathlib import Path
from typing import Any

import pytest
import sympy
from torch._dynamo.source import ConstantSource
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.utils._sympy import functions as torch_functions

from effcc.errors import IRTypeError
from effcc.frontend import sizes
from effcc.ir.dims import dim, number, show, symbol
from effcc.ir.parser import parse_graph
from effcc.ir.size_functions import FUNCTIONS, compute, is_real
from effcc.ir.size_table import TABLE, Entry
from effcc.runtime.size_trees import check_number, evaluate_number
from effcc.runtime.spell_manifest import spell_size

N, M = symbol("s0"), symbol("s1")
WHOLE = (0, 1, 2, 3, 5, 7, 8, 17, 100)
REALS = (-2.5, -0.5, 0.0, 0.3, 0.5, 1.0, 1.5, 2.5, 7.49)
NO_FORM = {"IsNonOverlappingAndDenseIndicator"}
"""What asks for strides, and is no function of a number."""


def operands(entry: Entry) -> list[tuple[Any, ...]]:
    """Arguments to try: small integers and doubles of both signs."""
    choices = [WHOLE if kind == "i" else REALS for kind in entry.takes]
    found: list[tuple[Any, ...]] = [()]
    for values in choices:
        found = [(*given, v) for given in found for v in values]
    return [g for g in found if entry.name != "fround" or g[1] < 4]


def outcome(entry: Entry, given: tuple[Any, ...]) -> Any:
    """The function's value; None where Python raises."""
    try:
        return entry.compute(*given)
    except (ArithmeticError, ValueError):
        return None


def test_every_function_of_torchs_has_a_form() -> None:
    theirs = {
        name
        for name, f in vars(torch_functions).items()
        if inspect.isclass(f) and issubclass(f, sympy.Basic) and f.__module__ == torch_functions.__name__
    }
    abstract = {"MinMaxBase", "CeilDiv"}  # a base, and one that makes the others
    known = {f.__name__ for f in sizes._FUNCTIONS}
    assert theirs - abstract - NO_FORM <= known


def test_c_computes_what_python_does(tmp_path: Path) -> None:
    header = Path(sizes.__file__).parents[1] / "runtime" / "include" / "effcc" / "sizes.h"
    kinds = {"i": "int64_t", "f": "double"}
    lines = [f'#include "{header.resolve()}"']
    for entry in TABLE:
        declared = ", ".join(f"{kinds[kind]} a{k}" for k, kind in enumerate(entry.takes))
        passed = ", ".join(f"a{k}" for k in range(entry.arity))
        result = "double" if entry.real else "int64_t"
        lines.append(f"{result} call_{entry.name}({declared}) {{ return size_{entry.name}({passed}); }}")
    (tmp_path / "all.c").write_text("\n".join(lines))
    built = tmp_path / "all.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", built, tmp_path / "all.c", "-lm"], check=True)
    library = ctypes.CDLL(str(built))
    types = {"i": ctypes.c_int64, "f": ctypes.c_double}
    for entry in TABLE:
        native = getattr(library, f"call_{entry.name}")
        native.argtypes = [types[kind] for kind in entry.takes]
        native.restype = types["f" if entry.real else "i"]
        for given in operands(entry):
            expected = outcome(entry, given)
            if expected is not None and abs(expected) < 2**63:
                assert native(*given) == expected, f"{entry.name}{given}"


@pytest.mark.parametrize("entry", TABLE, ids=lambda e: e.name)
def test_text_and_package_trees_give_the_same_numbers(entry: Entry) -> None:
    a_double = FUNCTIONS["fadd"](FUNCTIONS["real"](M), sympy.Float(-0.75))
    made = FUNCTIONS[entry.name](*(N if kind == "i" else a_double for kind in entry.takes))
    assert is_real(made) == entry.real
    text = f"graph @g(%x: f32[s0,s1]) {{\n  %c = constant {{dtype=f64, value={show(made)}}} : f64[]\n  return %c\n}}"
    read: Any = parse_graph(text).nodes[0].attrs["value"]
    assert read == made
    for n, m in ((0, 0), (1, 2), (3, 1), (5, 5)):
        try:
            expected = compute(made, {"s0": n, "s1": m})
        except (ArithmeticError, ValueError):
            continue
        assert compute(read, {"s0": n, "s1": m}) == expected
        tree = spell_size(made)
        assert evaluate_number(check_number(tree), {"s0": n, "s1": m}) == expected


def test_doubles_keep_all_their_digits_and_their_order() -> None:
    tenth = FUNCTIONS["fmul"](FUNCTIONS["real"](N), sympy.Float(0.1))
    made = FUNCTIONS["fadd"](FUNCTIONS["fadd"](tenth, sympy.Float(1e16)), sympy.Float(-1e16))
    assert show(made) == "fadd(fadd(fmul(real(s0),0.1),1e+16),-1e+16)"
    assert compute(made, {"s0": 7}) == 7 * 0.1 + 1e16 - 1e16


def test_constants_are_folded_to_pythons_own() -> None:
    assert dim(FUNCTIONS["trunc"](FUNCTIONS["fmul"](FUNCTIONS["real"](sympy.Integer(10)), sympy.Float(0.7)))) == 7
    assert number(FUNCTIONS["sqrt"](sympy.Float(2.0))) == math.sqrt(2)


def test_sizes_within_numbers_are_in_normal_form_too() -> None:
    assert show(number(FUNCTIONS["ratio"](sympy.ceiling(N / 2), N))) == "ratio(s0-floor(s0/2),s0)"


@pytest.mark.parametrize("text", ["trunc(s0)", "bitand(real(s0),1)", "power(s0)", "lt(1.5,s0)"])
def test_operands_of_another_kind_are_refused(text: str) -> None:
    with pytest.raises(IRTypeError, match="the function of sizes"):
        parse_graph(f"graph @g(%x: f32[s0]) {{\n  %c = constant {{dtype=f64, value={text}}} : f64[]\n  return %c\n}}")


def test_a_rounded_double_that_is_exact_is_a_floor() -> None:
    """`n * 1.5` has no rounding error, `n * 0.7` has."""
    environment = ShapeEnv()
    s = environment.create_unspecified_symbol(8, ConstantSource("n"), DimDynamic.DYNAMIC)
    environment.constrain_symbol_range(s, compiler_min=2, compiler_max=2**40)
    conversion = sizes._Conversion(environment)
    half = torch_functions.TruncToInt(sympy.Float(1.5) * torch_functions.ToFloat(s))
    other = torch_functions.TruncToInt(sympy.Float(0.7) * torch_functions.ToFloat(s))
    own = sizes.parts(s, environment).whole
    assert conversion.convert(half) == sympy.floor(3 * own / 2)
    assert conversion.convert(other) == FUNCTIONS["trunc"](FUNCTIONS["fmul"](sympy.Float(0.7), FUNCTIONS["real"](own)))


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_sizes_may_cross_to_other_processes(entry: Entry) -> None:
    made = FUNCTIONS[entry.name](*[symbol(f"s{k}") for k in range(entry.arity)])
    again = pickle.loads(pickle.dumps(made))
    assert again == made and type(again) is type(made) and hash(again) == hash(made)
