"""Differences from eager that are documented, with the reason: failures of these are counted apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effcc.fuzz.programs.judge import Failure


@dataclass(frozen=True)
class Known:
    """A kind of failure, a pattern of the program's text and one of the message, and why that is not a bug."""

    kind: str
    text: str
    message: str
    reason: str


KNOWN: tuple[Known, ...] = (
    Known(
        "strides", r"batch_norm", "",
        "PyTorch's own trace takes the batch norm of a transposed tensor for transposed, its kernels give it row-major",
    ),
    Known(
        "strides", r"rounding_mode=.floor", "",
        "PyTorch's own trace takes floored quotients of an integer in channels_last and a float for contiguous",
    ),
)  # fmt: skip


def known(failure: Failure) -> str:
    """The reason why a failure is none; empty if it is one."""
    for entry in KNOWN:
        told = failure.message.splitlines()[0]
        if entry.kind == failure.kind and re.search(entry.text, failure.case.text) and re.search(entry.message, told):
            return entry.reason
    return ""
