"""Encoded weights: from the notation in a type to what is stored, and whether products read one as it is stored.

How they read it is `effcc.passes.fusion.encoded`.
"""

from effcc.passes.encodings.by_groups import sum_by_groups
from effcc.passes.encodings.choose import Choice, encode
from effcc.passes.encodings.matrices import decode_matrices
from effcc.passes.encodings.spell_out import spell_out_encodings
from effcc.passes.encodings.sums import distribute

__all__ = ["Choice", "decode_matrices", "distribute", "encode", "spell_out_encodings", "sum_by_groups"]
