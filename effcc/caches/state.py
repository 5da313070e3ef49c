"""`StoredState`: a tensor that a model keeps between calls, stored as codes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from effcc.caches.rows import row_codes
from effcc.errors import InputError
from effcc.frontend.decode import decode
from effcc.ir.encoding import Encoding


class StoredState(nn.Module):
    """A tensor of `shape` whose rows (the last dimension) are stored as codes with scales of their own.

    A row is encoded when it is written, by its elements alone, so writing some rows leaves all others as they are:
    compiled, they are written in place, and products read the codes. All of it is 0 at first.

    scheme: `int8` (a scale for each row), `int4(group=32)`, ... to `int2`; also with `zero=true` or `minimum=true`, and
        `scale="f16"` or `"bf16"`. None: rows are kept as they are.
    dtype: what is read, and of scales where the scheme says nothing.

    Its components are buffers called `values`, `scale`, ...: `state_dict`, `deepcopy` and `to` work as for any module.

    Raises EncodingError for a scheme whose rows depend on each other, or whose groups do not fill a row.

        >>> state = StoredState((2, 8, 16), "int4(group=16)")
        >>> state.write(1, torch.tensor([3]), torch.ones(2, 1, 16))
        >>> state.read()[0, 2:5, 0].abs().tolist(), state
        ([0.0, 1.0, 0.0], StoredState(shape=(2, 8, 16), int4(group=16), 192 bytes))
    """

    def __init__(
        self,
        shape: Sequence[int],
        scheme: str | Encoding | None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if len(shape) < 2 or min(shape) < 1:
            raise InputError(f"StoredState: expected at least two dimensions of 1 and more, got {list(shape)}")
        self.shape, self.dtype = tuple(shape), dtype
        self.codes = None if scheme is None else row_codes(scheme, shape[-1], dtype)
        if self.codes is None:
            self.components: tuple[str, ...] = ("values",)
            self.register_buffer("values", torch.zeros(self.shape, dtype=dtype, device=device))
            return
        self.components = self.codes.names
        for name, own, width in zip(self.components, self.codes.dtypes, self.codes.widths, strict=True):
            self.register_buffer(name, torch.zeros((*shape[:-1], *width), dtype=own, device=device))

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.arrays[0].device

    @property
    def arrays(self) -> list[Tensor]:
        """The components."""
        return [getattr(self, name) for name in self.components]

    @property
    def bytes(self) -> int:
        """Of all components."""
        return sum(a.numel() * a.element_size() for a in self.arrays)

    def write(self, dim: int, places: Tensor, rows: Tensor) -> None:
        """Encode `rows` and put them at `places` (i64, one for each) along `dim`, as `Tensor.index_copy_` does.

        A group that holds NaN or an infinity is read as NaN.
        """
        dim = self._dimension(dim)
        parts = [rows.to(self.dtype)] if self.codes is None else self.codes.encode(rows.to(self.dtype))
        for array, part in zip(self.arrays, parts, strict=True):
            array.index_copy_(dim, places, part)

    def read(self) -> Tensor:
        """All of it, decoded: of `shape` and `dtype`. Compiled, products read the codes, and this is never made."""
        if self.codes is None:
            return self.arrays[0]
        count = prod(self.shape[:-1])
        lead = len(self.shape) - 1
        matrices = [a.reshape(count, *a.shape[lead:]) for a in self.arrays]
        made: Tensor = decode(self.codes.encoding, [count, self.shape[-1]], matrices, self.dtype)
        return made.reshape(self.shape)

    def clear(self) -> None:
        """Make all of it 0."""
        for array in self.arrays:
            array.zero_()

    def select(self, dim: int, places: Tensor) -> None:
        """Keep what lies at `places` along `dim`, in that order, as `Tensor.index_select` does, without decoding it.

        Where as many are kept, it is the same memory.
        """
        dim = self._dimension(dim)
        for name in self.components:
            old: Tensor = getattr(self, name)
            new = old.index_select(dim, places.to(old.device))
            if new.shape == old.shape:
                old.copy_(new)
            else:
                setattr(self, name, new)
        self.shape = (*self.shape[:dim], len(places), *self.shape[dim + 1 :])

    def _dimension(self, dim: int) -> int:
        found = dim + len(self.shape) if dim < 0 else dim
        if not 0 <= found < len(self.shape) - 1:
            raise InputError(
                f"StoredState: expected one of the dimensions 0 to {len(self.shape) - 2}, by which rows are chosen, "
                f"got {dim}"
            )
        return found

    def extra_repr(self) -> str:
        scheme = "as it is" if self.codes is None else self.codes.encoding
        return f"shape={self.shape}, {scheme}, {self.bytes:,} bytes"
