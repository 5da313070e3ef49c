"""GGUF files: what is written is read, and what is damaged is refused with what, and where."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from effcc.checkpoints.gguf_file import read_gguf
from effcc.errors import CheckpointError

gguf = pytest.importorskip("gguf")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A file of every kind of entry, and two tensors."""
    path = tmp_path / "written.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 3)
    writer.add_float32("llama.rope.freq_base", 0.5)
    writer.add_bool("llama.flag", True)
    writer.add_bool("llama.mark", False)
    writer.add_array("llama.sizes", [1, 2, 3])
    writer.add_token_list(["a", "bc", ""])
    writer.add_tensor("firsts", np.arange(12, dtype=np.float32).reshape(3, 4))
    blocks = gguf.quantize(np.ones((2, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("second", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_entries_and_tensors_are_what_was_written(written: Path) -> None:
    file = read_gguf(written)
    assert file.architecture == "llama"
    assert file.metadata["llama.block_count"] == 3
    assert file.metadata["llama.rope.freq_base"] == 0.5
    assert file.metadata["llama.flag"] is True
    assert file.metadata["llama.sizes"] == [1, 2, 3]
    assert file.metadata["tokenizer.ggml.tokens"] == 3
    first, second = file.tensors.values()
    assert (first.name, first.type, first.shape) == ("firsts", "F32", (3, 4))
    assert np.array_equal(first.blocks.view(np.float32), np.arange(12).reshape(3, 4))
    assert (second.type, second.shape, second.blocks.shape) == ("Q8_0", (2, 64), (2, 68))


def test_a_file_cut_anywhere_is_refused(written: Path) -> None:
    whole = written.read_bytes()
    last = len(whole.rstrip(b"\0"))
    for length in (*range(0, last, 7), last - 1):
        written.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut short|expected a GGUF file"):
            read_gguf(written)


def _at(marker: bytes, offset: int, new: bytes) -> Callable[[bytes], bytes]:
    """Bytes replaced at a distance from the first place of a marker."""

    def damage(whole: bytes) -> bytes:
        place = whole.index(marker) + offset
        return whole[:place] + new + whole[place + len(new) :]

    return damage


def _u32(n: int) -> bytes:
    return struct.pack("<I", n)


def _u64(n: int) -> bytes:
    return struct.pack("<Q", n)


SECOND = len(b"second")
DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "magic": (_at(b"GGUF", 0, b"GGML"), "begins with b'GGUF', got b'GGML'"),
    "version": (_at(b"GGUF", 4, _u32(1)), "expected GGUF version 2 or 3, got 1"),
    "big-endian": (_at(b"GGUF", 4, struct.pack(">I", 3)), "big-endian"),
    "number of tensors": (_at(b"GGUF", 8, _u64(1 << 60)), "cut short|axes|UTF-8"),
    "number of entries": (_at(b"GGUF", 16, _u64(1 << 60)), "unknown type|cut short|UTF-8"),
    "type of an entry": (_at(b"llama.flag", 10, _u32(77)), "entry llama.flag has unknown type 77"),
    "length of an array": (_at(b"llama.sizes", 15 + 4, _u64(1 << 61)), "numbers of .* cut short"),
    "type of an array": (_at(b"llama.sizes", 15, _u32(9)), "nested type 9"),
    "number of axes": (_at(b"second", SECOND, _u32(9)), "tensor second has 9 axes"),
    "sizes that do not fill blocks": (_at(b"second", SECOND + 4, _u64(65)), "filled blocks of 32"),
    "sizes beyond the file": (_at(b"second", SECOND + 12, _u64(1 << 50)), "tensor second .* the file is cut short"),
    "no elements": (_at(b"second", SECOND + 12, _u64(0)), "tensor second"),
    "unknown type": (_at(b"second", SECOND + 20, _u32(99)), "tensor second has unknown type 99"),
    "an offset between": (_at(b"second", SECOND + 24, _u64(7)), "offset 7 is no multiple of 32"),
    "overlapping tensors": (_at(b"second", SECOND + 24, _u64(32)), "second at offset 32 overlaps firsts, up to 48"),
    "a tensor twice": (_at(b"second", 0, b"firsts"), "tensor firsts stands there twice"),
    "an entry twice": (_at(b"llama.mark", 0, b"llama.flag"), "entry llama.flag stands there twice"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_refused_by_name(written: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    written.write_bytes(damage(written.read_bytes()))
    with pytest.raises(CheckpointError, match=message):
        read_gguf(written)


def test_random_bytes_change_a_file_or_are_refused(written: Path) -> None:
    whole = written.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(0, 256)
        written.write_bytes(damaged)
        try:
            file = read_gguf(written)
        except CheckpointError:
            continue
        for tensor in file.tensors.values():
            tensor.blocks.sum()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_gguf(tmp_path / "none.gguf")
