"""Encoded weights: whether products read one as it is stored. How they do is `effcc.passes.fusion.encoded`."""

from effcc.passes.encodings.choose import Choice, encode

__all__ = ["Choice", "encode"]
