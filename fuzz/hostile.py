"""Ways to harm a package: each makes a hostile one of a genuine one's files, from a seed. See `effcc.fuzz.packages`."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import stat
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effcc.fuzz.archives import ARCHIVES, write_archive
from effcc.runtime.manifest import LIBRARY, MANIFEST, WEIGHTS
from effcc.runtime.members import SUMS, seal_bytes, sealed, sums_of
from effcc.runtime.package import Package
from effcc.runtime.size_trees import evaluate

HOSTILE: list[Any] = [
    None, True, False, -1, 0, 1, 2, 7, 255, 2**31, 2**62, 2**63, 10**19, -(2**63), 1.5, -0.0, 1e308, 1e-320, "", "x",
    "x" * 100_000, "\0", "a\nb", "\u202e", "é", "\U0001f600", "../../etc/passwd", "/dev/zero", "10**10**10", "f32",
    "effcc_run", "c64", "input", "output", "folded", "prepared", "state", "s0", "__class__", "NaN", [], {}, [[]], [{}],
    {"": None}, [0] * 1000, ["mul", 2, 3], ["mul", 2**61, 2**61], ["floordiv", 1, 0], ["mod", "s0", 0], ["add"],
    ["pow", 10, 10], ["mul", *["s0"] * 3000], {"tuple": [0]}, {"constant": {"float": "nan"}}, {"dict": [[{}, 0]]},
    {"named": ["A", ["x", "x"], [0, 0]]}, {"named": ["import os", ["f"], [0]]}, "@raw:NaN", "@raw:Infinity",
    "@raw:-Infinity", "@raw:1e999", "@raw:" + "9" * 5000, "@raw:" + "[" * 2000 + "]" * 2000, "@raw:" + "[" * 100_000,
    '@raw:"\\ud800"', '@raw:{"a":1,"a":2}', "@raw:tru", "@raw:", "@raw:'x'", "@raw:01", "@raw:1.", '@raw:"\\x"',
    '@raw:{"tuple":[' * 40 + "0" + "]}" * 40, '@raw:["add",' * 50 + "1" + "]" * 50,
]  # fmt: skip
"""What a field may be replaced with; what begins with `@raw:` is written as it is."""


@dataclass(frozen=True)
class Genuine:
    """The package that others are made from: its files, and a call with what it gives."""

    files: Mapping[str, bytes]
    archive: bytes
    inputs: Mapping[str, np.ndarray]
    results: Mapping[str, np.ndarray]

    @staticmethod
    def of(path: Path) -> Genuine:
        """The package in an archive, called at the least sizes that it takes."""
        package = Package(path, threads=1)
        random_values = np.random.default_rng(0)
        sizes = {s.name: max(s.least, 2) for s in package.manifest.sizes}
        inputs = {}
        for name in package.manifest.inputs:
            buffer = package.manifest.by_name[name]
            shape = [evaluate(d, sizes) for d in buffer.shape]
            inputs[name] = random_values.uniform(0, 2, shape).astype(buffer.numpy)
        files = {}
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                files[member] = archive.read(member)
        return Genuine(files, path.read_bytes(), inputs, package.run(inputs))


Harm = Callable[[Genuine, random.Random, Path], tuple[Path, bool]]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Bytes as a bad disk, a cut transfer or a careless editor leaves them."""
    data = bytearray(content)
    match rng.randrange(7):
        case 0:
            for _ in range(rng.choice([1, 1, 2, 8, 64])):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            del data[rng.randrange(len(data)) :]
        case 2:
            start = rng.randrange(len(data))
            data[start : start + rng.randrange(1, 4096)] = bytes([rng.choice([0, 255])]) * 64
        case 3:
            start = rng.randrange(len(data))
            data[start:start] = rng.randbytes(rng.randrange(1, 64))
        case 4:
            start = rng.randrange(len(data))
            del data[start : start + rng.randrange(1, 64)]
        case 5:
            a, b, n = rng.randrange(len(data)), rng.randrange(len(data)), rng.randrange(1, 256)
            data[a : a + n] = data[b : b + n]
        case _:
            place = rng.randrange(len(data))
            data[place : place + 4] = rng.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]).to_bytes(4, "little")
    return bytes(data)


def _damage_archive(genuine: Genuine, rng: random.Random, folder: Path) -> tuple[Path, bool]:
    path = folder / "model.effcc"
    path.write_bytes(damaged(genuine.archive, rng))
    return path, True


def _damage_headers(genuine: Genuine, rng: random.Random, folder: Path) -> tuple[Path, bool]:
    """Damage where the archive says what is in it: there is most to go wrong."""
    content, path = genuine.archive, folder / "model.effcc"
    directory = content.rfind(b"PK\x01\x02", 0, len(content))
    start = content.find(b"PK\x01\x02") if rng.random() < 0.7 else max(directory - 200, 0)
    path.write_bytes(content[:start] + damaged(content[start:], rng))
    return path, True


def _damage_member(genuine: Genuine, rng: random.Random, folder: Path) -> tuple[Path, bool]:
    files = dict(genuine.files)
    name = rng.choice([*files, MANIFEST, SUMS])
    files[name] = damaged(files[name], rng)
    return _written(files, rng, folder), True


def _trick_archive(genuine: Genuine, rng: random.Random, folder: Path) -> tuple[Path, bool]:
    path = folder / "model.effcc"
    name = rng.choice(list(ARCHIVES))
    path.write_bytes(ARCHIVES[name](dict(genuine.files), rng))
    return path, True


def _lie_in_manifest(genuine: Genuine, rng: random.Random, folder: Path) -> tuple[Path, bool]:
    files = dict(genuine.files)
    document = json.loads(files[MANIFEST])
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        document = mutated(document, rng)
    files[MANIFEST] = raw_json(document)
    return _summed(files, rng, folder)


def _lie_in_weights(genuine: Genuine, rng: random.Random, folder: Path) -> tuple[Path, bool]:
    files = dict(genuine.files)
    content = files[WEIGHTS]
    length = int.from_bytes(content[:8], "little")
    header, rest = content[8 : 8 + length], content[8 + length :]
    match rng.randrange(4):
        case 0:
            header = raw_json(mutated(json.loads(header), rng))
            length = len(header)
        case 1:
            header = raw_json(_moved(json.loads(header), rng, len(rest)))
            length = len(header)
        case 2:
            length = rng.choice([0, 1, length - 1, length + 1, len(content), 2**31, 2**63, 2**64 - 1])
        case _:
            rest = damaged(rest, rng)
    files[WEIGHTS] = length.to_bytes(8, "little") + header + rest
    return _summed(files, rng, folder)


def _moved(header: dict[str, Any], rng: random.Random, end: int) -> dict[str, Any]:
    """A header whose tensors stand elsewhere, or have other shapes."""
    entry = header[rng.choice([n for n in header if n != "__metadata__"])]
    numbers = [-1, 0, 1, 4, end - 1, end, end + 1, 2**31, 2**62, 2**64]
    if rng.random() < 0.6:
        entry["data_offsets"][rng.randrange(2)] = rng.choice(numbers)
    else:
        entry["shape"] = [rng.choice(numbers) for _ in range(rng.choice([0, 1, 2, 40]))]
    if rng.random() < 0.3:
        entry["dtype"] = rng.choice(["F64", "BOOL", "F4", "U8", "I64", "BF16", "x"])
    return header


def _damage_sums(genuine: Genuine, rng: random.Random, folder: Path) -> tuple[Path, bool]:
    files = dict(genuine.files)
    lines = files[SUMS].decode().splitlines()
    rng.choice(
        [
            lambda: lines.pop(rng.randrange(len(lines))),
            lambda: lines.append(rng.choice(lines)),
            lambda: lines.append("0" * 64 + "  " + rng.choice(["../x", "/etc/passwd", "a" * 500, "x", ".", SUMS, ""])),
            lambda: lines.extend(f"{k:064x}  file{k}" for k in range(1000)),
            lambda: lines.__setitem__(0, rng.choice(["", "x", "\0" * 64, "  ", lines[0].upper(), lines[0][1:]])),
            lambda: lines.reverse(),
        ]
    )()
    files[SUMS] = "\n".join(lines).encode() + rng.choice([b"\n", b"", b"\r\n", b"\xff\n"])
    return _written(files, rng, folder), True


def _damage_library(genuine: Genuine, rng: random.Random, folder: Path) -> tuple[Path, bool]:
    """A library that is damaged, with digests that agree; or with a seal as well, when it may only be looked at."""
    files = dict(genuine.files)
    code = files[LIBRARY][: -seal_bytes()]
    head = rng.randrange(len(code)) if rng.random() < 0.3 else rng.choice([64, 512, 4096])
    files[LIBRARY] = damaged(code[:head], rng) + code[head:] if rng.random() < 0.7 else code[:head]
    if rng.random() < 0.5:
        files[LIBRARY] += genuine.files[LIBRARY][-seal_bytes() :]
        return _summed(files, rng, folder, seal=False)
    return _summed(files, rng, folder, seal=True)


def _odd_folder(genuine: Genuine, rng: random.Random, folder: Path) -> tuple[Path, bool]:
    """A folder where something stands in the place of a file."""
    path = folder / "model"
    path.mkdir()
    for name, content in genuine.files.items():
        (path / name).write_bytes(content)
    victim = path / rng.choice([*genuine.files, MANIFEST, WEIGHTS])
    victim.unlink()
    match rng.randrange(9):
        case 0:
            os.mkfifo(victim)
        case 1:
            victim.symlink_to(rng.choice(["/dev/zero", "/etc/passwd", victim.name, "nowhere", "."]))
        case 2:
            victim.mkdir()
        case 3:
            with socket.socket(socket.AF_UNIX) as bound, contextlib.suppress(OSError):
                bound.bind(str(victim))
        case 4:
            with open(victim, "wb") as file:
                file.truncate(rng.choice([0, 1, 1 << 32, 1 << 42]))
        case 5:
            victim.write_bytes(genuine.files[rng.choice([*genuine.files])])
        case 6:
            (folder / "elsewhere").write_bytes(genuine.files[victim.name])
            victim.symlink_to(folder / "elsewhere")
        case 7:
            with contextlib.suppress(OSError):  # only a superuser may
                os.mknod(victim, stat.S_IFCHR | 0o600, os.makedev(1, 5))
        case _:
            pass
    return path, True


HARMS: dict[str, Harm] = {
    "damaged archive": _damage_archive,
    "lying manifest": _lie_in_manifest,
    "damaged directory": _damage_headers,
    "archive tricks": _trick_archive,
    "lying weights": _lie_in_weights,
    "damaged file": _damage_member,
    "odd folder": _odd_folder,
    "lying manifest again": _lie_in_manifest,
    "damaged sums": _damage_sums,
    "damaged library": _damage_library,
}


def _summed(files: dict[str, bytes], rng: random.Random, folder: Path, seal: bool | None = None) -> tuple[Path, bool]:
    """Write files whose digests agree; half of them with a seal that agrees as well."""
    seal = rng.random() < 0.5 if seal is None else seal
    if seal:
        code = files[LIBRARY]
        known = code[: -seal_bytes()] if b"effcc-seal:" in code[-seal_bytes() :] else code
        files[LIBRARY] = sealed(known, files)
        if rng.random() < 0.5:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                document = json.loads(files[MANIFEST])
                document["files"] = {LIBRARY: len(files[LIBRARY]), WEIGHTS: len(files[WEIGHTS])}
                files[MANIFEST] = raw_json(document)
                files[LIBRARY] = sealed(known, files)
    files[SUMS] = sums_of({n: c for n, c in files.items() if n != SUMS})
    return _written(files, rng, folder), not seal


def _written(files: Mapping[str, bytes], rng: random.Random, folder: Path) -> Path:
    """As an archive or a folder."""
    if rng.random() < 0.5:
        path = folder / "model.effcc"
        path.write_bytes(write_archive(files))
        return path
    path = folder / "model"
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def mutated(document: Any, rng: random.Random) -> Any:
    """A JSON value with one place in it changed."""
    places = list(_places(document))
    path = rng.choice(places)
    if not path:
        return rng.choice(HOSTILE)
    holder = document
    for step in path[:-1]:
        holder = holder[step]
    key = path[-1]
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(["x", "", "bytes", "name", "\0", key + "s"])] = holder.pop(key)
        case 1 | 2 if isinstance(holder, list):
            holder.insert(key, holder[key])
        case 3:
            holder[key] = json.loads(json.dumps(_value(document, rng.choice(places))))
        case 4 if type(holder[key]) is int:
            holder[key] = rng.choice([holder[key] + 1, holder[key] - 1, -holder[key], holder[key] * 1000, 0])
        case _:
            holder[key] = rng.choice(HOSTILE)
    return json.loads(json.dumps(document))  # nothing is held twice


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if len(path) < 12:
        for key, part in items:
            yield from _places(part, (*path, key))


def _value(document: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


def raw_json(document: Any) -> bytes:
    """The text of a value, in which strings that begin with `@raw:` stand as they are."""
    parts: list[str] = []

    def keep(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("@raw:"):
            parts.append(value[5:])
            return f"@{len(parts) - 1}@"
        if isinstance(value, dict):
            return {k: keep(v) for k, v in value.items()}
        return [keep(v) for v in value] if isinstance(value, list) else value

    text = json.dumps(keep(document))
    for number, part in enumerate(parts):
        text = text.replace(f'"@{number}@"', part)
    return text.encode("utf-8", "surrogatepass")
