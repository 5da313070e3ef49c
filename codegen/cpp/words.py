"""Names that generated functions may not choose: words of C++, and what the header library and the printers use."""

from __future__ import annotations

_WORDS = """
    alignas alignof and asm auto bool break case catch char class concept const constexpr continue default delete do dot
    dot_balanced dot_small double else enum explicit export extern false float for friend goto if inline int long
    mutable namespace new not operator or private protected public register requires return short signed sizeof static
    struct switch template this thread_local throw true try typedef typeid typename union unsigned using virtual void
    volatile while xor abs acos acosh all any asin asinh at_least atan atan2 atanh b8 b8x barrier bf16 bits broadcast
    ceil clamp convert copysign cos cosh detail element erf erf_plus_one erfc exp exp2 expm1 f16 f32 f32v f32x f64 f64v
    f64x fabs first_lanes float_of_bits floor floor_divide fma fmax fmin fmod from_bits from_mask gather gather_if high
    i16 i16v i16x i32 i32v i32x i64 i64v i64x i7 i7x i8 i8v i8x integer_pow iota is_finite is_inf is_nan join l8 l8x
    lane lanes lgamma load load_apart load_apart_if load_if load_mask load_mask_if load_mask_n load_n load_strided
    load_strided_n load_where log log10 log1p log2 lookup low mask_cast mask_not mask_of max maximum min minimum mul_add
    neg_mul_add parallel permute pow range reduce reduce_max reduce_min reduce_prod reduce_sum region remainder round
    round_to rsqrt saturate scatter scatter_fold scatter_if select set_lane share shift_left shift_right sigmoid sign
    sin sinh sqrt store store_if store_mask store_mask_if store_mask_n store_n store_rows store_spread store_strided
    store_strided_n tan tanh team thread to_mask trunc u16 u16v u16x u32 u64 u7 u7x u8 u8v u8x vec with_element
    check_place check_places checks claims crew describe fault faults me missed note note_lanes piece rarely record
    work worker Call call effcc std main arena buffers sizes threads context NULL EOF call_lanes
"""
RESERVED = frozenset(_WORDS.split())
"""Words of C++, functions of the header library, and names that every generated function has."""
