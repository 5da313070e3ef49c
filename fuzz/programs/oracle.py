"""What a program's results may be: how far rounding moves each, found by running it disturbed.

`Disturbed` runs PyTorch's operators and then changes their results by as many units in the last place as another order
of computation may: the bound of an operation is its number of roundings, of a sum that of the sum of its terms'
magnitudes. What an operator defines to the bit (moves, casts, comparisons, one correctly rounded operation, integers)
is left as it is; what depends on nothing else must come out bit for bit as eager's. Everything else may be off by the
spread of some disturbed runs. Where a comparison or a rounding hangs on the disturbance, a value may be any that
was seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten

_MOVES = """
clone copy_ copy _to_copy cat stack index index_select gather where masked_fill masked_fill_ scatter scatter_
index_fill index_fill_ index_copy index_copy_ masked_scatter masked_scatter_ masked_select take flip roll
repeat tril triu constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d put
put_ index_put index_put_ _index_put_impl_ repeat_interleave diag_embed slice_scatter select_scatter
diagonal_scatter as_strided_scatter embedding channel_shuffle pixel_shuffle pixel_unshuffle block_diag im2col
unfold_copy unsafe_split unsafe_split_with_sizes lift_fresh lift_fresh_copy detach split_with_sizes
_local_scalar_dense upsample_nearest1d upsample_nearest2d scalar_tensor fill fill_ zero_ zeros ones
full empty arange eye zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty new_empty_strided
"""
_COMPARISONS = """
neg neg_ abs abs_ sign sign_ sgn minimum maximum fmin fmax clamp clamp_ clamp_min clamp_max clamp_min_
clamp_max_ relu relu_ floor floor_ ceil ceil_ trunc trunc_ round round_ eq ne lt le gt ge eq_ ne_ lt_ le_ gt_
ge_ logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_not
bitwise_left_shift bitwise_right_shift max min amax amin argmax argmin aminmax sort argsort topk any all isnan
isinf isposinf isneginf cummax cummin _cummax_helper _cummin_helper hardtanh leaky_relu threshold nonzero
_unique2 unique_dim unique_consecutive bincount copysign equal nan_to_num signbit floor_divide remainder
remainder_ fmod fmod_ heaviside median kthvalue mode searchsorted bucketize isin max_pool2d_with_indices
max_pool3d_with_indices count_nonzero nextafter
"""
# No square root: MKL's, which eager takes, is the neighbour of the nearest number in a fifth of all cases.
_ROUNDED_ONCE = "add add_ sub sub_ mul mul_ div div_ rsub reciprocal"
_OF_INTEGERS = """
sum cumsum prod cumprod mm bmm mv dot addmm baddbmm index_add scatter_add pow gcd lcm addcmul scatter_reduce
square trace convolution
"""
_SUMS_OF_TERMS = """
sum mean cumsum mm bmm addmm baddbmm mv dot addmv convolution convolution_backward index_add index_add_
scatter_add scatter_add_ avg_pool1d avg_pool2d _adaptive_avg_pool2d trace nansum addbmm addr linear
index_put index_put_ _index_put_impl_ _unsafe_index_put put put_ addmm_ baddbmm_ addmv_ addbmm_ addr_
"""


def _packets(names: str) -> frozenset[Any]:
    return frozenset(getattr(aten, name) for name in names.split() if hasattr(aten, name))


ROUNDED_ONCE = _packets(_ROUNDED_ONCE)
"""Operators that are one operation, rounded correctly."""
EXACT = _packets(_MOVES) | _packets(_COMPARISONS) | ROUNDED_ONCE
"""Operators defined to the bit."""
OF_INTEGERS = _packets(_OF_INTEGERS)
"""Operators that are defined to the bit if their operands and results are integers."""
SUMS = _packets(_SUMS_OF_TERMS)
"""Operators that are sums of terms: how far off they may be goes by the terms' magnitudes, which may cancel out."""
SUMS_AS_STORED = {aten.convolution_backward}
"""Those whose partial sums PyTorch rounds to the results' dtype, be it of 16 bits."""
MEANS_WITHIN = _packets("var_mean std_mean var std native_layer_norm native_group_norm native_batch_norm")
"""Operators that subtract a running mean: what is an infinity in one order is NaN in another."""
EITHER_ZERO = _packets("""
maximum minimum fmax fmin clamp clamp_ clamp_min clamp_max clamp_min_ clamp_max_ hardtanh max min amax amin aminmax
max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d adaptive_max_pool3d
""")
"""Operators that choose one of their operands' elements, and of zeros of both signs either."""
ORDERING = _packets("sort argsort topk argmax argmin max min kthvalue median cummax cummin")
"""Operators whose results say which of their operand's elements are the larger ones: near ones may change places."""
_NEAR = 64
"""Units in the last place of a whole number within which a cast may find the next one."""
TRIALS = 5
_UNITS = {torch.float16: 2.0, torch.bfloat16: 2.0}


class Disturbed(TorchDispatchMode):
    """Runs operators and disturbs their results; `tainted` says whether a tensor is not defined to the bit.

    strict: whether one correctly rounded operation is to be taken for exact (gradients may be added up in any order).
    noisy: whether to disturb at all.
    """

    def __init__(self, seed: int, strict: bool = True, noisy: bool = True) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)
        self._strict, self._noisy, self._wider, self._widest = strict, noisy, seed % 2 == 1, seed % 4 == 3
        self._tainted: dict[int, Any] = {}

    def tainted(self, value: Tensor) -> bool:
        """Whether another order of computation may give other numbers, in this tensor's memory."""
        return value.untyped_storage()._cdata in self._tainted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [a for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        tainted = any(self.tainted(t) for t in given)
        if _exact(func, args, kwargs, given, self._strict):
            shaken = self._noisy and func.overloadpacket in ORDERING and any(self.tainted(t) for t in given)
            changed = tree_map_only(Tensor, self._shaken, (args, kwargs)) if shaken else (args, kwargs)
            results = func(*changed[0], **changed[1])
            tainted |= self._leave_open(func, args, results) or self._leave_zeros_open(func, given, results)
        else:
            results = self._disturb(func, args, kwargs, given)
            tainted = True
        if tainted:
            written = [args[0]] if func._schema.is_mutable and args and isinstance(args[0], Tensor) else []
            written += _statistics(func, args)
            for out in (*tree_leaves(results), *written, *tree_leaves(kwargs.get("out"))):
                if isinstance(out, Tensor) and out.layout == torch.strided:
                    storage = out.untyped_storage()
                    self._tainted[storage._cdata] = storage
        return results

    def _leave_open(self, func: Any, args: Any, results: Any) -> bool:
        """Give any integers where floats that fit none were cast, which C++ leaves open; whether there are such."""
        if func.overloadpacket not in (aten._to_copy, aten.to, aten.type_as, aten.copy_, aten.copy):
            return False  # in inference mode, casts are seen before they are taken apart
        source = args[1] if func.overloadpacket in (aten.copy_, aten.copy) else args[0]
        if not isinstance(source, Tensor) or not source.is_floating_point():
            return False
        if results.is_floating_point() or results.is_complex() or results.dtype == torch.bool:
            return False
        info = torch.iinfo(results.dtype)
        wide = source.double()
        open_ = ~((wide > info.min - 1.0) & (wide < info.max + 1.0)).expand(results.shape)
        if self._noisy and self.tainted(source) and not _overlaps(results):
            whole = wide.round()
            near = (wide - whole).abs() <= _NEAR * torch.finfo(source.dtype).eps * whole.abs()
            below = whole - whole.sign() * torch.randint(0, 2, wide.shape, generator=self._generator)
            results.copy_(torch.where((near & (whole != 0)).expand(results.shape) & ~open_, below, results.double()))
        if not bool(open_.any()):
            return False
        if self._noisy and not _overlaps(results):
            drawn = torch.randint(0, 100, results.shape, generator=self._generator).to(results.dtype)
            results.copy_(torch.where(open_, drawn, results))
        return True

    def _leave_zeros_open(self, func: Any, given: Sequence[Tensor], results: Any) -> bool:
        """Give zeros any sign where an operator may choose it; whether there are such. (Eager's vectors and what is
        left of them choose differently.)"""
        if func.overloadpacket not in EITHER_ZERO:
            return False
        found = [r for r in tree_leaves(results) if isinstance(r, Tensor) and r.is_floating_point()]
        if not any(bool((r == 0).any()) for r in found):
            return False
        if not any(t.is_floating_point() and bool(((t == 0) & t.signbit()).any()) for t in given):
            return False
        for out in found:
            if self._noisy and not _overlaps(out):
                negative = torch.rand(out.shape, generator=self._generator) < 0.5
                out.copy_(torch.where(out == 0, torch.where(negative, -0.0, 0.0).to(out.dtype), out))
        return True

    def _disturb(self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor]) -> Any:
        if not self._noisy:
            return func(*args, **kwargs)
        mutable = func._schema.is_mutable
        largest = max((t.numel() for t in given), default=1)
        sizes: Any = None
        if func.overloadpacket in SUMS:
            if not mutable:
                sizes = _try(func, *tree_map_only(Tensor, _magnitude, (args, kwargs)))
            else:
                sizes = _try(func, *tree_map_only(Tensor, lambda t: _magnitude(t).clone(), (args, kwargs)))
        elif (
            not mutable and any(t.is_floating_point() for t in given) and not func._schema.name.startswith("aten::rand")
        ):
            kept = {id(t) for t in _statistics(func, args)}
            args, kwargs = tree_map_only(Tensor, lambda t: t if id(t) in kept else self._shaken(t), (args, kwargs))
        results = func(*args, **kwargs)
        if not mutable:
            self._widen(func, args, kwargs, given, results)
        wanted = tree_leaves(sizes) if sizes is not None else [None] * len(tree_leaves(results))
        for out, size in zip(tree_leaves(results), wanted, strict=True):
            if isinstance(out, Tensor) and out.is_floating_point() and out.numel() and not _overlaps(out):
                packet = func.overloadpacket
                self._move(out, size, largest, packet in SUMS_AS_STORED, packet in MEANS_WITHIN)
                self._add_bias_late(func, args, out)
        for held in _statistics(func, args):
            self._move(held, None, largest, False)
        vast = func.overloadpacket in MEANS_WITHIN and any(map(_is_vast, given))  # squares may be infinities, or not
        # Eager's attention skips NaN in its maxima, and gives numbers for rows that have some.
        lost = "scaled_dot_product" in func._schema.name and not all(_is_finite(t) for t in given)
        if self._wider and not (vast and self._widest) and (vast or lost):
            for out in (*tree_leaves(results), *_statistics(func, args)):
                if isinstance(out, Tensor) and out.dtype in (torch.float32, *_UNITS) and not _overlaps(out):
                    out.fill_(math.nan)
        return results

    def _widen(self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor], results: Any) -> None:
        """Make results those of wider operands, where such may be another number of digits: of 16 bits, as computed in
        f32 of operands that are shaken there (an operator that takes differences inside makes much of f32's own
        roundings, which operands of 16 bits cannot show); of f32, in every second run as computed in f64, in which
        squares do not overflow."""
        halves = any(t.dtype in _UNITS for t in given)
        floats = self._wider and any(t.dtype == torch.float32 for t in given)
        floats |= self._widest and any(map(_is_vast, given))
        random = func._schema.name.startswith("aten::rand")
        if func.overloadpacket in SUMS or random or not (halves or floats):
            return
        widened = _in_f64 if floats else lambda t: self._shaken(_in_f32(t))
        wide = _try(func, *tree_map_only(Tensor, widened, (args, kwargs)))
        for out, other in zip(tree_leaves(results), tree_leaves(wide), strict=False):
            both = isinstance(out, Tensor) and isinstance(other, Tensor) and other.shape == out.shape
            if both and (out.dtype in _UNITS or out.dtype == torch.float32) and not _overlaps(out):
                out.copy_(other)

    def _add_bias_late(self, func: Any, args: Any, out: Tensor) -> None:
        """Move what a convolution of 16 bits gives by a rounding of the sum without the bias, which PyTorch adds to
        what it has stored: the two may cancel out."""
        if func.overloadpacket is not aten.convolution or args[2] is None or out.dtype not in _UNITS:
            return
        bias = args[2].double().reshape(-1, *(1 for _ in args[3]))
        change = (out.double() - bias) * self._noise(out) * torch.finfo(out.dtype).eps
        out.copy_(torch.where(change.isfinite(), out.double() + change, out.double()))

    def _move(self, out: Tensor, size: Any, terms: int, as_stored: bool, means: bool = False) -> None:
        eps = torch.finfo(out.dtype).eps
        noise = self._noise(out)
        units = _UNITS.get(out.dtype, 4.0)
        if means and out.dtype == torch.float64:  # others are added up in wider numbers
            units += math.sqrt(terms)
        change = out.double() * noise * eps * units
        if size is not None:
            inner = max(eps if out.dtype == torch.float64 or as_stored else 2.0**-23, 1e-16)
            change = change + size.double() * noise * inner * (4 + math.sqrt(terms))
        if size is not None or means:
            # A sum that overflows on the way is an infinity in one order and NaN in another.
            kinds = torch.tensor([math.nan, math.inf, -math.inf], dtype=out.dtype)
            drawn = kinds[torch.randint(0, 3, out.shape, generator=self._generator)]
            out.copy_(torch.where(out.isfinite(), out, drawn))
        out.copy_(torch.where(change.isfinite(), out.double() + change, out.double()))

    def _shaken(self, t: Tensor) -> Tensor:
        if not t.is_floating_point() or not t.numel() or t.dtype in _UNITS:
            return t
        return t * (1 + self._noise(t).to(t.dtype) * torch.finfo(t.dtype).eps)

    def _noise(self, like: Tensor) -> Tensor:
        """Plus or minus a half to one."""
        drawn = torch.rand(like.shape, generator=self._generator, dtype=torch.float64) * 2 - 1
        return drawn.sign() * (0.5 + drawn.abs() / 2)


def _magnitude(t: Tensor) -> Tensor:
    """In doubles, where a sum of magnitudes does not overflow."""
    return t.abs().double() if t.is_floating_point() else t


def _statistics(func: Any, args: Any) -> list[Tensor]:
    """The running statistics that a batch norm writes, which its schema does not say."""
    name = func._schema.name
    if "batch_norm" not in name or "backward" in name or not (len(args) > 5 and (args[5] is True or "update" in name)):
        return []
    return [t for t in args[3:5] if isinstance(t, Tensor) and t.is_floating_point() and not _overlaps(t)]


def _is_vast(t: Tensor) -> bool:
    """Whether squares of its numbers overflow in f32."""
    return t.dtype in (torch.float32, torch.bfloat16) and t.numel() > 0 and bool((t.abs() > 1e18).any())


def _is_finite(t: Tensor) -> bool:
    return not t.is_floating_point() or bool(t.isfinite().all())


def _in_f64(t: Tensor) -> Tensor:
    return t.double() if t.dtype in _UNITS or t.dtype == torch.float32 else t


def _in_f32(t: Tensor) -> Tensor:
    return t.float() if t.dtype in _UNITS else t


def _try(func: Any, args: Any, kwargs: Any) -> Any:
    try:
        return func(*args, **kwargs)
    except RuntimeError:
        return None


def _overlaps(t: Tensor) -> bool:
    return any(s == 0 and n > 1 for s, n in zip(t.stride(), t.shape, strict=True))


def _exact(func: Any, args: Any, kwargs: Any, given: Sequence[Tensor], strict: bool) -> bool:
    """Whether an operator, called so, is defined to the bit."""
    if not isinstance(func, torch._ops.OpOverload):
        return False
    packet, schema = func.overloadpacket, func._schema
    if bool(schema.returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns):
        return True  # a view
    if not any(t.is_floating_point() for t in given):
        return packet in EXACT or schema.is_mutable or _keeps_integers(func, args, kwargs)
    if packet in ROUNDED_ONCE:
        return strict and kwargs.get("alpha", 1) == 1
    adds_up = kwargs.get("accumulate") or (len(args) > 3 and args[3] is True) or "reduce" in schema.overload_name
    return packet in EXACT and not adds_up and "reduce" not in kwargs


def _keeps_integers(func: Any, args: Any, kwargs: Any) -> bool:
    dtype = kwargs.get("dtype")
    numbers = any(isinstance(a, float) for a in tree_leaves((args, kwargs)))
    return func.overloadpacket in OF_INTEGERS and not numbers and not (dtype is not None and dtype.is_floating_point)


def same_bits(a: Tensor, b: Tensor) -> Tensor:
    """Where two tensors hold the same numbers; any NaN is any NaN, and the two zeros are two."""
    if not a.is_floating_point():
        return a == b
    return (a.isnan() & b.isnan()) | ((a == b) & (a.signbit() == b.signbit()))


def within(got: Tensor, want: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Where `got` is a value that another order of computation may give, by disturbed runs beside eager's own."""
    if any(o.shape != want.shape for o in others):
        return torch.ones_like(want, dtype=torch.bool)
    if not want.is_floating_point():
        stable = torch.ones_like(want, dtype=torch.bool)
        for o in others:
            stable &= o == want
        return (got == want) | ~stable
    mine, eager = got.double(), want.double()
    spread, stable = torch.zeros_like(eager), torch.ones_like(eager, dtype=torch.bool)
    for o in others:
        other = o.double()
        both = other.isfinite() & eager.isfinite()
        stable &= both | (other == eager) | (other.isnan() & eager.isnan())
        spread = torch.maximum(spread, torch.where(both, (other - eager).abs(), 0.0))
    info = torch.finfo(want.dtype)
    bound = 4 * spread + 2 * info.eps * eager.abs() + 2 * info.smallest_normal
    near = (mine - eager).abs() <= bound
    end = (
        info.max / 16
    )  # where numbers overflow depends on the order of computation, and on how well functions are done
    near |= (mine.abs() > end) & (eager.abs() > end) & (mine.sign() == eager.sign())
    near |= (
        ~mine.isfinite() & ~eager.isfinite()
    )  # sums that overflow either way are infinities in one order, NaN in others
    return (mine == eager) | (mine.isnan() & eager.isnan()) | ~stable | near
