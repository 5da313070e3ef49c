"""Importers of recurrent layers, which capture keeps whole as `effcc::recurrent`."""

from __future__ import annotations

from collections.abc import Sequence

from effcc.frontend import recurrent as operators
from effcc.frontend.importer import Importer, NotNative, imports
from effcc.ir.graph import Value

_WEIGHTS = (2, 4)  # with w_hr, the projection of an LSTM, there are three or five


@imports(operators.recurrent._opoverload)
def recurrent(
    m: Importer, cell: str, x: Value, state: Sequence[Value], weights: Sequence[Value], reverse: bool
) -> tuple[Value, ...]:
    if len(weights) not in _WEIGHTS:
        raise NotNative("an LSTM that projects its output")
    if x.type.shape[0] == 0:
        raise NotNative("a recurrent layer over no steps")
    operands = (x, *state, *weights)
    if cell in ("lstm", "gru"):
        return m.node(cell, *operands, reverse=reverse).results
    return m.node("rnn", *operands, activation=cell.removeprefix("rnn_"), reverse=reverse).results
