"""Importers of pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from effcc.frontend.importer import Import, Importer, NotNative, aten, imports
from effcc.ir.graph import Value


def _per_axis(values: Any, spatial: int) -> tuple[int, ...]:
    """A window attribute for every axis; one number stands for all."""
    listed = (values,) if isinstance(values, int) else tuple(values)
    return listed * spatial if len(listed) == 1 else listed


def _window(kernel: Any, stride: Any, padding: Any, ceil: bool, spatial: int) -> dict[str, Any]:
    size = _per_axis(kernel, spatial)
    return {
        "kernel": size,
        "stride": size if not isinstance(stride, int) and len(stride) == 0 else _per_axis(stride, spatial),
        "padding": _per_axis(padding, spatial),
        "ceil": ceil,
    }


def _max_pool(spatial: int) -> Import:
    def importer(
        m: Importer, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False
    ) -> tuple[Value, Value]:
        attrs = {**_window(kernel, stride, padding, ceil, spatial), "dilation": _per_axis(dilation, spatial)}
        return m.emit("max_pool", x, **attrs), m.emit("argmax_pool", x, **attrs)

    return importer


imports(aten.max_pool2d_with_indices.default)(_max_pool(2))
imports(aten.max_pool3d_with_indices.default)(_max_pool(3))


def _avg_pool(spatial: int) -> Import:
    def importer(
        m: Importer, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, ceil: bool = False,
        count_padding: bool = True, divisor: int | None = None,
    ) -> Value:  # fmt: skip
        if not x.type.dtype.is_float:
            raise NotNative("an average of integers, which PyTorch cuts")
        attrs = _window(kernel, stride, padding, ceil, spatial)
        return m.emit("avg_pool", x, **attrs, count_padding=count_padding, divisor=divisor)

    return importer


imports(aten.avg_pool1d.default)(_avg_pool(1))
imports(aten.avg_pool2d.default)(_avg_pool(2))
imports(aten.avg_pool3d.default)(_avg_pool(3))


def _even_windows(x: Value, sizes: Sequence[int]) -> dict[str, Any] | None:
    """The windows of an ordinary pooling that gives these sizes; None where adaptive ones differ in width."""
    given = x.type.shape[x.type.rank - len(sizes) :]
    if not all(isinstance(n, int) for n in (*given, *sizes)):
        raise NotNative("adaptive pooling of sizes that are not known")
    if any(m <= 0 or n % m for n, m in zip(given, sizes, strict=True)):
        return None
    width = tuple(n // m for n, m in zip(given, sizes, strict=True))
    return {"kernel": width, "stride": width, "padding": (0,) * len(sizes)}


def _adaptive(spatial: int) -> Import:
    def importer(m: Importer, x: Value, sizes: Sequence[int]) -> Value:
        windows = _even_windows(x, sizes)
        if windows is not None:
            return m.emit("avg_pool", x, **windows)
        if math.prod(sizes) == 0:
            raise NotNative("adaptive pooling to nothing")
        return m.emit("adaptive_avg_pool", x, sizes=tuple(sizes))

    return importer


imports(aten.adaptive_avg_pool1d.default)(_adaptive(1))
imports(aten._adaptive_avg_pool2d.default)(_adaptive(2))
imports(aten._adaptive_avg_pool3d.default)(_adaptive(3))


def _adaptive_max(m: Importer, x: Value, sizes: Sequence[int]) -> tuple[Value, Value]:
    windows = _even_windows(x, sizes)
    if windows is None or 0 in windows["kernel"]:
        raise NotNative("adaptive pooling in windows of different widths")
    attrs = {**windows, "dilation": (1,) * len(sizes)}
    return m.emit("max_pool", x, **attrs), m.emit("argmax_pool", x, **attrs)


imports(aten.adaptive_max_pool2d.default)(_adaptive_max)
imports(aten.adaptive_max_pool3d.default)(_adaptive_max)
