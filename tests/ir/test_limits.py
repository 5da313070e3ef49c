"""Text that is made to harm is refused soon, with an error of effcc's that says where."""

from __future__ import annotations

import pytest

from effcc.errors import EffccError, IRSyntaxError, IRTypeError
from effcc.ir.dims import symbol
from effcc.ir.parser import parse_any, parse_type

SIZES = {
    "a power of powers": "10**10**10",
    "a power of 2": "2**64",
    "a number of many digits": "9" * 5000,
    "a number of 65 bits": "18446744073709551616",
    "a product of 65 bits": "9223372036854775808*2",
    "a symbol to a symbol": "s0**s0",
    "a power of a sum": "(s0+s1+s2)**50",
    "powers of powers of sums": "((((s0+s1+s2+s3)**3)**8)**8)",
    "a product of sums": "*".join(["(s0+s1+s2+s3+s4)"] * 30),
    "a division by zero": "s0/0",
    "zero to a negative power": "0**(-1)",
    "a remainder by zero": "Mod(s0,0)",
    "one operand": "Mod(s0)",
    "three operands": "floor(1,2,3)",
    "a long sum": "1" + "+s0" * 5000,
    "many signs": "-" * 3000 + "1",
}


@pytest.mark.parametrize("size", SIZES)
def test_a_hostile_size_is_refused(size: str) -> None:
    with pytest.raises((IRTypeError, IRSyntaxError)) as caught:
        parse_type(f"f32[{SIZES[size]}]", "model.ir")
    assert str(caught.value).startswith("model.ir:1:")


def test_sizes_that_models_have_are_read() -> None:
    s0, s1 = symbol("s0"), symbol("s1")
    assert parse_type("f32[2**40,s0**2,(s0+1)**3,9223372036854775807]").shape[0] == 2**40
    assert parse_type("f32[(s0+1)*(s1+2)*(s0+3)*(s1+4)]").shape[0].subs({s0: 1, s1: 1}) == 2 * 3 * 4 * 5


@pytest.mark.parametrize(
    "attribute", ["shape=[f32,3]", 'shape="x"', "shape=[[1]]", "shape=1.5", "shape=null", 'shape="\\x"', "shape=inf"]
)
def test_an_attribute_of_another_kind_is_refused(attribute: str) -> None:
    with pytest.raises(IRTypeError):
        parse_any(
            f"graph @main(%x: f32[2,3]) {{\n  %y = reshape %x {{{attribute}}} : f32[6]\n  return %y\n}}", "model.ir"
        )


@pytest.mark.parametrize("text", ["graph @main(%x: f32[10**10**10]) {\n  return %x\n}", "graph" * 10_000, "(" * 10_000])
def test_a_hostile_file_is_refused(text: str) -> None:
    with pytest.raises(EffccError):
        parse_any(text, "model.ir")
