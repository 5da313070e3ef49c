"""Values: how a stored element becomes a number. `coded.Coded` is all of them; `schemes` names them."""

from effcc.ir.encodings.values import schemes
from effcc.ir.encodings.values.base import EPSILON, SMALLEST, Nearest, Term, Values
from effcc.ir.encodings.values.coded import Coded
from effcc.ir.encodings.values.parts import Factors, Parts
from effcc.ir.encodings.values.plain import Plain

__all__ = ["EPSILON", "SMALLEST", "Coded", "Factors", "Nearest", "Parts", "Plain", "Term", "Values", "schemes"]
