"""Where instruction sets differ: what each node of the vector language is, in the header library and on each machine.

`function` is what the printer writes, from `header`; the header chooses by instruction set. The columns of machines say
what a register of it does the node with (`|`: one of these); a test looks for it in what the compiler makes. `loop`:
lane by lane, or as the compiler sees fit from C's own operators. NEON, WebAssembly and C99 are no targets yet
(`--target neon` is refused); the `scalar` column, plain C++, holds on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from effcc.ir.dtypes import DType, b8, bf16, f32, i7, i8, i16, i32, l8, u7, u8
from effcc.ir.vectors import (
    Any,
    Dot,
    FirstLanes,
    Fma,
    Iota,
    Load,
    Lookup,
    LookupCodes,
    Nearest,
    Permute,
    Prefetch,
    Reduce,
    Round,
    Select,
    Store,
    StoreRows,
    TileLoad,
    TileStore,
    Value,
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One node: the function of the header library, its header, and the instruction of each set that does it; with AMX,
    of nodes that only a matrix unit has registers for, `amx`.
    """

    function: str
    header: str
    scalar: str
    avx2: str
    avx512: str
    amx: str = ""


ROWS: Mapping[type, Row] = {
    Fma: Row("mul_add", "vec.h", "* and +, rounded twice", "vfmadd", "vfmadd"),
    Select: Row("select", "vec.h", "?:", "vblendv", "vblendm|{%k"),
    Any: Row("any", "vec.h", "loop", "vptest|vmovmskps", "vptestmd|vpcmpd|kortest"),
    Nearest: Row("nearest", "convert.h", "loop", "vcvtps2dq", "vcvtps2dq"),
    Round: Row("round_to", "guarded.h", "loop", "vcvtps2ph|vpsrld", "vcvtps2ph|vpsrld"),
    Iota: Row("iota", "vec.h", "loop", "vmovdqa|vpaddd", "vmovdqa|vpaddd"),
    FirstLanes: Row("first_lanes", "guarded.h", "loop", "vpcmpgtd", "vpcmpd|vpcmpgtd"),
    Reduce: Row("reduce", "vec.h", "loop", "vperm2f128|vextractf128", "vshuff32x4|vextractf64x4|vextractf32x8"),
    Permute: Row("permute", "permute.h", "loop", "vpermps|vperm2f128|vpermpd", "vpermps|vshuff"),
    Lookup: Row("lookup", "permute.h", "loop", "vpermps|vpermd", "vpermps|vpermd"),
    LookupCodes: Row("lookup_codes", "permute.h", "loop", "vpshufb", "vmovss|vinsertps|vpermi2ps"),
    Load: Row("load", "vec.h", "loop", "vmovups|vmaskmovps", "vmovups|vmovdqu"),
    Store: Row("store", "vec.h", "loop", "vmovups|vmaskmovps", "vmovups|vmovdqu"),
    StoreRows: Row("store_rows", "guarded.h", "loop", "vunpcklps|vshufps|vperm", "vunpcklps|vshufps|vperm"),
    Prefetch: Row("__builtin_prefetch", "vec.h", "prefetch", "prefetch", "prefetch"),
    Dot: Row("dot", "dot.h", "loop", "see DOTS", "see DOTS"),
    TileLoad: Row("load_tile", "tile.h", "loop", "loop", "loop", "tileloadd"),
    TileStore: Row("store_tile", "tile.h", "loop", "loop", "loop", "tilestored"),
}


@dataclass(frozen=True)
class DotRow:
    """One form of `dot`: the instruction of each set, `extended` of those with VNNI (also AVX2's) or BF16, and that of
    tiles, with AMX; everywhere else, a dot of tiles is a loop.
    """

    scalar: str
    avx2: str
    avx512: str
    extended: str
    tiles: str = ""


DOTS: Mapping[tuple[DType, DType, DType], DotRow] = {
    (i8, i8, i32): DotRow("loop", "vpsraw and vpmaddwd", "vpsraw and vpmaddwd", "vpdpbusd twice", "tdpbssd"),
    (u8, i8, i32): DotRow("loop", "vpsrlw and vpmaddwd", "vpsrlw and vpmaddwd", "vpdpbusd", "tdpbusd"),
    (u7, i8, i32): DotRow("loop", "vpmaddubsw and vpmaddwd", "vpmaddubsw and vpmaddwd", "vpdpbusd"),
    (u8, i7, i32): DotRow("loop", "vpmaddubsw and vpmaddwd", "vpmaddubsw and vpmaddwd", "vpdpbusd"),
    (b8, i8, i32): DotRow("loop", "vpsignb and vpmaddubsw and vpmaddwd", "vpsraw and vpmaddwd", "vpdpbusd twice"),
    (u8, l8, i32): DotRow("loop", "vpmaddubsw and vpmaddwd", "vpmaddubsw and vpmaddwd", "vpdpbusd"),
    (u8, l8, i16): DotRow("loop", "vpmaddubsw and vpaddw", "vpmaddubsw and vpaddw", "vpmaddubsw and vpaddw"),
    (i16, i16, i32): DotRow("loop", "vpmaddwd", "vpmaddwd", "vpdpwssd"),
    (bf16, bf16, f32): DotRow("loop", "vpslld and vfmadd", "vpslld and vfmadd", "vdpbf16ps", "tdpbf16ps"),
}
"""By the dtypes of a, b and c."""


def row_of(node: Value) -> Row:
    """The row of a node that is one function of the header library."""
    return ROWS[type(node)]
