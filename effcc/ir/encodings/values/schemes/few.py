"""Two or three numbers: `binary` and `ternary`, with mean magnitudes as scales.

    binary       v = +-s, s = mean|w|                    (XNOR-Net, arXiv:1603.05279)
    ternary      v = q * s, q in -1, 0, 1, s = mean|w|   (BitNet b1.58, arXiv:2402.17764)

How far an element may be off depends on its magnitude alone: at most as many scales as elements share one.
"""

from __future__ import annotations

from typing import Any

from effcc.ir.encodings.registry import Declaration, declare
from effcc.ir.encodings.values.coded import Coded
from effcc.ir.encodings.values.codes import Signs, Trits
from effcc.ir.encodings.values.options import SCALES, SHARING, grid_of, settle_sharing, stored_of


def _binary(**given: Any) -> Coded:
    return Coded(Signs(), grid_of(given), stored_of(given))


def _ternary(**given: Any) -> Coded:
    return Coded(Trits(2, -1, 1), grid_of(given), stored_of(given))


for _name, _make, _summary in (("binary", _binary, "signs"), ("ternary", _ternary, "-1, 0 and 1, in 2 bits")):
    declare(
        Declaration(_name, "values", _make, _summary, (_name, f'{_name}(group=16,scale="f16")'),
                    options=(*SHARING, *SCALES), settle=settle_sharing())
    )  # fmt: skip
