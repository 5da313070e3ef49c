"""What `compress` chose, a line a layer, and what else it could have been: the Pareto front as a table and a plot."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from effcc.errors import UnsupportedError


@dataclass(frozen=True)
class LayerReport:
    """One layer: how it is stored, beside dense. `error` is the model's with this layer alone stored so."""

    name: str
    scheme: str
    bytes: int
    dense_bytes: int
    seconds: float
    dense_seconds: float
    layer_error: float
    error: float
    measured: bool


@dataclass(frozen=True)
class Point:
    """One choice of the Pareto front: bytes of the model, seconds of its products, error (the layers' added up)."""

    bytes: int
    seconds: float
    error: float
    schemes: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Report:
    """The model as it is stored now.

    bytes: of all parameters and buffers. seconds: predicted, of the products with the chosen weights, in one call.
    error: measured, by `measure`, with all layers as chosen; expected_error: the sum of the layers' own.
    """

    layers: tuple[LayerReport, ...]
    bytes: int
    dense_bytes: int
    seconds: float
    dense_seconds: float
    error: float
    expected_error: float
    measure: str
    solver: str
    front: tuple[Point, ...]

    def table(self) -> Table:
        """A line a layer."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("layer", "scheme"):
            table.add_column(heading)
        for heading in ("bytes", "of dense", "us", "of dense", "layer's error", "model's error"):
            table.add_column(heading, justify="right")
        for row in self.layers:
            table.add_row(
                row.name,
                row.scheme,
                f"{row.bytes:,}",
                _share(row.bytes, row.dense_bytes),
                f"{row.seconds * 1e6:.1f}",
                _share(row.seconds, row.dense_seconds),
                f"{row.layer_error:.2e}",
                f"{row.error:.2e}{'' if row.measured else ' (estimated)'}",
            )
        return table

    def front_table(self) -> Table:
        """The Pareto front: a line a choice."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("bytes", "of dense", "us", "of dense", f"error ({self.measure}, added up)"):
            table.add_column(heading, justify="right")
        table.add_column("layers")
        for p in self.front:
            schemes = ", ".join(f"{count} {name}" for name, count in p.schemes)
            shares = _share(p.bytes, self.dense_bytes), _share(p.seconds, self.dense_seconds)
            table.add_row(f"{p.bytes:,}", shares[0], f"{p.seconds * 1e6:.1f}", shares[1], f"{p.error:.3e}", schemes)
        return table

    def plot(self, file: str | Path) -> None:
        """Write the Pareto front, and what was chosen, as an HTML page. Needs plotly: pip install 'effcc[budget]'."""
        try:
            graphs: Any = importlib.import_module("plotly.graph_objects")
        except ModuleNotFoundError as error:
            raise UnsupportedError(f"the plot needs {error.name}: pip install 'effcc[budget]'") from error
        texts = ["<br>".join(f"{count} {name}" for name, count in p.schemes) for p in self.front]
        figure = graphs.Figure(
            [
                graphs.Scatter(
                    x=[p.bytes for p in self.front],
                    y=[p.error for p in self.front],
                    customdata=[p.seconds * 1e6 for p in self.front],
                    text=texts,
                    hovertemplate="%{x:,} bytes<br>error %{y:.3e}<br>%{customdata:.1f} us<br>%{text}",
                    mode="lines+markers",
                    name="Pareto front, errors added up",
                ),
                graphs.Scatter(x=[self.bytes], y=[self.error], mode="markers", name="chosen, measured"),
            ]
        )
        figure.update_layout(xaxis_title="bytes of the model", yaxis_title=f"error ({self.measure})", yaxis_type="log")
        figure.write_html(Path(file))

    def __str__(self) -> str:
        text = StringIO()
        console = Console(file=text, width=200, highlight=False)
        console.print(self.summary())
        console.print(self.table())
        console.print(self.front_table())
        return text.getvalue()

    def summary(self) -> str:
        """Bytes, time and error in a sentence."""
        return (
            f"{self.bytes:,} of {self.dense_bytes:,} bytes; products {self.seconds * 1e6:.1f} of "
            f"{self.dense_seconds * 1e6:.1f} us predicted; error ({self.measure}) {self.error:.3e} measured, "
            f"{self.expected_error:.3e} by adding up ({self.solver})"
        )


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.2f}" if whole else ""
