"""What an encoding means: which arrays a stored weight is, and the expression that makes numbers of them.

A scheme is a level (which elements are stored: `levels`), a kind of values (how a stored element becomes a number:
`values`), or a product of two factors (`sums`). `storage` composes a chain of them, `block(4,1) . int8`, or a sum of
chains, `low_rank(16) + int4`, for one weight: nothing else in effcc knows a combination.
"""

from effcc.ir.encodings.storage import Component, Storage, canonical, matrix_shape, storage, stored_as

__all__ = ["Component", "Storage", "canonical", "matrix_shape", "storage", "stored_as"]
