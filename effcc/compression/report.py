"""How the weights of a model are stored, a line a layer: encoding, bytes, error, predicted time beside dense."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import nn

from effcc.compression.install import Stored, held_by
from effcc.compression.modules import encoded_class
from effcc.frontend.importer import dtype_of
from effcc.ir.encoding import Encoding
from effcc.ir.encodings import Storage, storage
from effcc.passes.encodings.choose import Homes, dense_seconds, homes, read_seconds
from effcc.target import Target

ROWS = (1, 128)
"""Rows of the products whose times are predicted."""

DENSE = Encoding(((),))


@dataclass(frozen=True)
class LayerReport:
    """One module with a weight that is or could be stored.

    bytes: of what is stored; dense_bytes: of the weight as it was. error: of the output (of the weight, where no data
    were given) when it was stored, over its norm. seconds, dense_seconds: predicted for a product with as many rows as
    `ROWS` says. note: why it is dense, or read as if it were.
    """

    name: str
    encoding: str
    bytes: int
    dense_bytes: int
    error: float | None
    seconds: tuple[float, ...]
    dense_seconds: tuple[float, ...]
    note: str


def layer_reports(model: nn.Module, target: Target) -> tuple[LayerReport, ...]:
    """The model's layers, or none where nothing is stored."""
    layers = [(n, m, held_by(m)) for n, m in model.named_modules() if encoded_class(m) is not None]
    if not any(held for _, _, held in layers):
        return ()
    dense = [_dense(module, held) for _, module, held in layers]
    stored = [held.storage.bytes if held else d.bytes for (_, _, held), d in zip(layers, dense, strict=True)]
    machine = homes(sum(stored), sum(d.bytes for d in dense), target)
    return tuple(_report(*layer, d, machine) for layer, d in zip(layers, dense, strict=True))


def _dense(module: Any, held: Stored | None) -> Storage:
    """The module's weight as it was before it was stored."""
    if held is not None:
        return storage(DENSE, held.storage.shape, held.storage.dtype)
    return storage(DENSE, module.weight.shape, dtype_of(module.weight.dtype))


def _report(name: str, module: Any, held: Stored | None, dense: Storage, machine: Homes) -> LayerReport:
    as_dense = tuple(dense_seconds(dense, rows, machine.decoded) for rows in ROWS)
    if held is None:
        why = str(getattr(module, "dense_because", "not chosen"))
        return LayerReport(name, "dense", dense.bytes, dense.bytes, None, as_dense, as_dense, why)
    as_stored = tuple(read_seconds(held.storage, rows, machine.stored) for rows in ROWS)
    pairs = list(zip(ROWS, as_stored, as_dense, strict=True))
    slow = " or ".join(str(rows) for rows, stored, dense_ in pairs if stored > dense_)
    return LayerReport(
        name=name,
        encoding=str(held.storage.encoding),
        bytes=module.weight_bytes,
        dense_bytes=dense.bytes,
        error=held.error,
        seconds=tuple(min(stored, dense_) for _, stored, dense_ in pairs),
        dense_seconds=as_dense,
        note=f"decoded once where products have {slow} rows: dense is predicted faster" if slow else "",
    )


def layers_text(reports: Sequence[LayerReport]) -> str:
    """A table of the layers, and their sum."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    headings = ("layer", "stored as", "bytes", "of dense", "error", *(f"us, {r} rows (dense)" for r in ROWS), "note")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("layer", "stored as", "note") else "right")
    for r in reports:
        times = [f"{s * 1e6:.1f} ({d * 1e6:.1f})" for s, d in zip(r.seconds, r.dense_seconds, strict=True)]
        error = "-" if r.error is None else f"{100 * r.error:.2f} %"
        share = f"{100 * r.bytes / r.dense_bytes:.1f} %"
        cells = [r.name or "(the model)", r.encoding, f"{r.bytes:,}", share, error, *times, r.note]
        table.add_row(*map(Text, cells))
    target = io.StringIO()
    Console(file=target, width=200, highlight=False, color_system=None).print(table)
    stored, dense = sum(r.bytes for r in reports), sum(r.dense_bytes for r in reports)
    lines = [line.rstrip() for line in target.getvalue().splitlines()]
    return "\n".join([*lines, f"weights: {stored:,} bytes, {100 * stored / dense:.1f} % of {dense:,} as dense"])
