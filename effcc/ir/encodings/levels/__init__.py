"""Levels, one a file: which elements of a weight are stored. `base` says what each of them answers."""

from effcc.ir.encodings.levels.base import Levels
from effcc.ir.encodings.levels.block import Block
from effcc.ir.encodings.levels.compressed import Compressed
from effcc.ir.encodings.levels.dense import Dense
from effcc.ir.encodings.levels.flattened import Flattened
from effcc.ir.encodings.levels.reordered import Reordered
from effcc.ir.encodings.levels.structured import Structured

__all__ = ["Block", "Compressed", "Dense", "Flattened", "Levels", "Reordered", "Structured"]
