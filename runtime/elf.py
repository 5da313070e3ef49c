"""A look at a shared library's headers before the system's loader trusts them: a cut file would be a bus error."""

from __future__ import annotations

import struct
import sys

from effcc.errors import PackageError

_MACHINES = {"x86_64": 62, "aarch64": 183, "riscv64": 243, "ppc64le": 21, "s390x": 22}
_SHARED, _LOADED = 3, 1


def require_loadable(library: bytes, platform: str) -> None:
    """Raises PackageError where bytes are no 64-bit ELF library for `platform`, or end before what they say they hold.

    platform: `linux-x86_64` and the like; on systems of another format nothing is looked at.
    """
    system, _, machine = platform.partition("-")
    if system != "linux":
        return
    if len(library) < 64 or library[:4] != b"\x7fELF":
        raise PackageError(f"library.so: expected an ELF library, got {len(library)} bytes that begin {library[:8]!r}")
    order = 1 if sys.byteorder == "little" else 2
    if library[4] != 2 or library[5] != order:
        raise PackageError("library.so: expected a 64-bit ELF library in this machine's byte order")
    kind, found, _, _, segments, _, _, _, width, count = struct.unpack_from("=HHIQQQIHHH", library, 16)
    if kind != _SHARED:
        raise PackageError(f"library.so: expected a shared library (type {_SHARED}), got an ELF file of type {kind}")
    if machine in _MACHINES and found != _MACHINES[machine]:
        raise PackageError(f"library.so: expected code for {machine} ({_MACHINES[machine]}), got {found}")
    if width != 56 or not 0 < count <= 64 or segments + count * width > len(library):
        raise PackageError("library.so: its program headers are damaged")
    for number in range(count):
        role, _, offset, _, _, stored, held = struct.unpack_from("=IIQQQQQ", library, segments + number * width)
        if offset + stored > len(library) or (role == _LOADED and (stored > held or held > 1 << 40)):
            raise PackageError(f"library.so: segment {number} ends at byte {offset + stored} of {len(library)}")
