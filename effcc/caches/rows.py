"""Rows stored as codes, by PyTorch's operators alone: what a model does at every call, and a compiler sees through.

The numbers are, bit for bit, those that `effcc.ir.encodings` gives for a matrix of these rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from effcc.errors import EncodingError
from effcc.frontend.importer import DTYPES, dtype_of
from effcc.ir.dtypes import DType
from effcc.ir.encoding import Encoding, Scheme
from effcc.ir.encodings import canonical, storage
from effcc.ir.encodings.packing import Plane
from effcc.ir.encodings.values.base import SMALLEST
from effcc.ir.encodings.values.codes import Integers
from effcc.ir.parser import encoding_of

FITS = "int2 to int8, with a scale for each row (int8) or for groups of it (int4(group=32))"


@dataclass(frozen=True)
class RowCodes:
    """How rows of `length` numbers of `dtype` are stored.

    encoding: the notation, in full, for a matrix of such rows. dtypes, widths: of each component, and how many elements
    of it a row has (none: one number). group: how many elements share a scale, which is of scale_dtype, where the
    smallest and largest are as said.
    """

    encoding: str
    length: int
    dtype: torch.dtype
    names: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    widths: tuple[tuple[int, ...], ...]
    code: Integers
    planes: tuple[Plane, ...]
    group: int
    zero: bool
    minimum: bool
    scale_dtype: torch.dtype
    smallest: float
    largest: float

    @property
    def by_group(self) -> bool:
        """Whether rows have scales for groups, in a dimension of their own."""
        return bool(self.widths[len(self.planes)])

    @property
    def bytes(self) -> int:
        """Of a row."""
        widths = [w[0] if w else 1 for w in self.widths]
        return sum(w * d.itemsize for w, d in zip(widths, self.dtypes, strict=True))

    def encode(self, rows: Tensor) -> list[Tensor]:
        """The components of rows, which are the last dimension.

        A group that holds NaN or an infinity, or needs a scale that its dtype does not have, is decoded as NaN.
        """
        shape = rows.shape[:-1]
        blocks = rows.float().reshape(*shape, -1, self.group)
        if self.minimum:
            return self._from_minimum(blocks)
        if self.zero:
            return self._from_zero(blocks)
        stored = self._stored_scale(self._reaching(blocks))
        codes = _whole(torch.round(blocks / stored.float()[..., None]), self.code.low, self.code.high)
        return [*self._packed(codes), self._parameters(stored)]

    @property
    def _steps(self) -> int:
        return (1 << self.code.bits) - 1

    def _reaching(self, blocks: Tensor) -> Tensor:
        """The scale of smallest magnitude by which no element leaves the codes; it may be negative."""
        low, high = float(self.code.low), float(self.code.high)
        if low == -high:
            return blocks.abs().amax(-1) / high
        least, most = blocks.amin(-1).clamp_max(0.0), blocks.amax(-1).clamp_min(0.0)
        upright, turned = torch.maximum(most / high, least / low), torch.maximum(most / -low, least / -high)
        return torch.where(upright <= turned, upright, -turned)

    def _stored_scale(self, scale: Tensor) -> Tensor:
        away = torch.copysign(scale.abs().clamp_min(self.smallest), scale)
        stored = torch.where(scale != 0, away, 1.0).to(self.scale_dtype)
        return torch.where(stored.abs() <= self.largest, stored, torch.nan)

    def _from_zero(self, blocks: Tensor) -> list[Tensor]:
        least, most = blocks.amin(-1).clamp_max(0.0), blocks.amax(-1).clamp_min(0.0)
        stored = self._stored_scale((most - least) / self._steps)
        scale = stored.float()
        zero = _whole(torch.round(-least / scale), 0, self._steps)
        codes = _whole(torch.round(blocks / scale[..., None]) + zero[..., None], 0, self._steps)
        zeros = [_pack(zero.to(torch.uint8), p) for p in self.planes]
        return [*self._packed(codes), self._parameters(stored), *zeros]

    def _from_minimum(self, blocks: Tensor) -> list[Tensor]:
        least, most = blocks.amin(-1), blocks.amax(-1)
        minimum = least.to(self.scale_dtype)
        start = minimum.float()
        lowered = (least - start).clamp_min(0.0)
        stored = self._stored_scale((most - least).clamp_min(0.0) / self._steps + lowered / self._steps)
        codes = torch.round((blocks - start[..., None]) / stored.float()[..., None])
        codes = _whole(codes, 0, self._steps)
        return [*self._packed(codes), self._parameters(stored), self._parameters(minimum)]

    def _packed(self, codes: Tensor) -> list[Tensor]:
        whole = codes.flatten(-2)
        if self.code.packed.signed:
            return [whole.to(torch.int8)]
        offset = 0 if self.zero or self.minimum else self.code.offset
        unsigned = (whole + offset if offset else whole).to(torch.uint8)
        return [_pack(unsigned, p) for p in self.planes]

    def _parameters(self, numbers: Tensor) -> Tensor:
        """Scales of groups as they are; of whole rows one each."""
        return numbers if self.by_group else numbers.squeeze(-1)


def _whole(codes: Tensor, low: int, high: int) -> Tensor:
    return codes.clamp(float(low), float(high))


def _pack(codes: Tensor, plane: Plane) -> Tensor:
    """A plane of unsigned codes (u8), of which a row fills whole bytes, or the last one's rest is 0."""
    part = (codes >> plane.low) & plane.mask if plane.width < 8 else codes
    if plane.each == 1:
        return part
    missing = -part.shape[-1] % plane.each
    if missing:
        part = torch.nn.functional.pad(part, (0, missing))
    by_byte = part.reshape(*part.shape[:-1], -1, plane.each)
    total = by_byte.select(-1, 0)
    for i in range(1, plane.each):
        total = total | (by_byte.select(-1, i) << (i * plane.width))
    return total


def row_codes(scheme: str | Encoding, length: int, dtype: torch.dtype = torch.float32) -> RowCodes:
    """How a scheme stores rows of `length`. Raises EncodingError for one that cannot be written row by row, or whose
    groups do not fill a row; IRSyntaxError and UnknownNameError as `effcc.quantize`.

        >>> row_codes("int4(group=16)", 64).bytes, row_codes('int8(scale="f16")', 64).bytes
        (48, 66)
    """
    encoding = canonical(_of_rows(encoding_of(scheme), length))
    made = storage(encoding, (1, length), dtype_of(dtype))
    form = made.values.integer_form
    if form is None:
        raise EncodingError(f"{encoding}: what is written row by row is stored as {FITS}, with floating scales")
    group = made.values.group_size(length)
    if length % group:
        fitting = [d for d in range(1, length + 1) if length % d == 0 and d >= 8]
        shown = ", ".join(map(str, fitting)) or str(length)
        raise EncodingError(f"{encoding}: groups of {group} do not fill rows of {length}; {shown} would")
    scale_dtype = _torch_dtype(form.scale_dtype or made.dtype)
    return RowCodes(
        encoding=str(encoding),
        length=length,
        dtype=dtype,
        names=tuple(name for name, _, _ in made.named),
        dtypes=tuple(_torch_dtype(d) for _, d, _ in made.named),
        widths=tuple(tuple(shape[1:]) for _, _, shape in made.named),
        code=form.code,
        planes=form.code.packed.planes,
        group=group,
        zero=form.zero,
        minimum=made.values.has_minimum,
        scale_dtype=scale_dtype,
        smallest=SMALLEST[dtype_of(scale_dtype)],
        largest=torch.finfo(scale_dtype).max,
    )


def _torch_dtype(dtype: DType) -> torch.dtype:
    return next(t for t, d in DTYPES.items() if d == dtype)


def _of_rows(encoding: Encoding, length: int) -> Encoding:
    """A scheme in which every row has parameters of its own: `per="token"` and what says nothing are per row."""
    chains = encoding.terms
    if len(chains) != 1 or len(chains[0]) != 1:
        raise EncodingError(f"{encoding}: what is written row by row is stored as {FITS}")
    (scheme,) = chains[0]
    options = dict(scheme.options)
    per = options.pop("per", "token")
    if options.get("zero") and "group" not in options:
        options["group"] = length  # zero points of rows would share bytes, those of groups fill bytes of their row
    if per != "token":
        raise EncodingError(
            f"{encoding}: a scale that is shared by rows would change with each of them; a scale for each row is "
            f'{scheme.name} (or {scheme.name}(per="token")), for parts of a row {scheme.name}(group={min(32, length)})'
        )
    return Encoding(((Scheme(scheme.name, scheme.args, tuple(options.items())),),))
