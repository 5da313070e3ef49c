"""Encoded weights: whether a product reads one as it is stored (`choose`), and how (`read`)."""

from effcc.passes.encodings.choose import Choice, encode
from effcc.passes.encodings.read import read_encoded

__all__ = ["Choice", "encode", "read_encoded"]
