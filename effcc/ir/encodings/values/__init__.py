"""Values: how a stored element becomes a number. `coded.Coded` is all of them; `schemes` names them."""

from effcc.ir.encodings.values import schemes
from effcc.ir.encodings.values.base import EPSILON, SMALLEST, Nearest, Term, Values
from effcc.ir.encodings.values.coded import Coded
from effcc.ir.encodings.values.listed import SmallFloats
from effcc.ir.encodings.values.parameters import Exponents
from effcc.ir.encodings.values.parts import Factors, Parts
from effcc.ir.encodings.values.plain import Plain
from effcc.ir.encodings.values.schemes.halves import Halves

__all__ = [
    "EPSILON",
    "SMALLEST",
    "Coded",
    "Exponents",
    "Factors",
    "Halves",
    "Nearest",
    "Parts",
    "Plain",
    "SmallFloats",
    "Term",
    "Values",
    "schemes",
]
