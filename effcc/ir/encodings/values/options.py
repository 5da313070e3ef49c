"""Options that schemes share: who shares a scale, and how scales are stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

from effcc.ir.dtypes import bf16, f16, f32
from effcc.ir.encoding import Argument
from effcc.ir.encodings.registry import Option
from effcc.ir.encodings.values.grid import Grid
from effcc.ir.encodings.values.parameters import Exponents, Floats, Stored, TwoLevel

FLOATS = {"f32": f32, "f16": f16, "bf16": bf16}
CODED = {f"{sign}{bits}": (bits, sign == "i") for bits in (4, 6, 7, 8) for sign in "ui"}
EXPONENT = "e8"
LARGEST_GROUP = 1 << 16
SUPER = 256
"""How many elements share a super-scale where nothing is said."""


def count(value: Argument) -> bool:
    """Whether a value can be a number of elements."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_GROUP


SHARING = (
    Option("per", None, ("channel", "tensor")),
    Option("group", None, count, f"1..{LARGEST_GROUP}"),
)
"""Who shares a scale: a channel where nothing is said."""

SCALES = (
    Option("scale", None, (*FLOATS, EXPONENT, *CODED)),
    Option("super", None, count, "a multiple of group"),
)
"""How scales are stored: in the weight's dtype where nothing is said; as integers times a number that `super` share."""

SWITCH = (True, False)


def settle_sharing(group: int | None = None) -> Callable[[dict[str, Any]], str | None]:
    """What holds of `SHARING` and `SCALES` together; `group` where neither a group nor `per` is said."""

    def settle(given: dict[str, Any]) -> str | None:
        if given["per"] is not None and given["group"] is not None:
            return "a scale is shared per tensor or channel, or by a group: say one of them"
        if given["per"] is None and given["group"] is None:
            given["per"], given["group"] = ("channel", None) if group is None else (None, group)
        if given.get("scale") in CODED:
            return _settle_super(given)
        return 'super says who shares the scale of scales such as scale="u6"' if given.get("super") else None

    return settle


def _settle_super(given: dict[str, Any]) -> str | None:
    if given["group"] is None:
        return f'scale="{given["scale"]}" is for scales of groups: say group=32, for example'
    if given["super"] is None:
        given["super"] = max(SUPER // given["group"], 1) * given["group"]
    return None if given["super"] % given["group"] == 0 else f"super must be a multiple of group ({given['group']})"


def grid_of(given: Mapping[str, Any]) -> Grid:
    """The grid that settled options say."""
    if given["group"] is not None:
        return Grid("group", int(given["group"]))
    return Grid(cast(Literal["tensor", "channel"], given["per"]))


def stored_of(given: Mapping[str, Any]) -> Stored:
    """How settled options say that scales are stored; super-scales are f16."""
    scale = given.get("scale")
    if scale in CODED:
        bits, signed = CODED[scale]
        return TwoLevel(bits, signed, given["super"] // given["group"], f16)
    return Exponents() if scale == EXPONENT else Floats(FLOATS[scale] if scale else None)
