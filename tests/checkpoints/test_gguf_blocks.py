"""Blocks of GGUF files: what effcc stores of them decodes to what gguf's own `dequantize` gives, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("gguf")

from effcc.checkpoints.gguf_blocks import FORMATS
from effcc.checkpoints.gguf_file import GgufTensor
from effcc.checkpoints.gguf_weights import PLAIN, decoded_tensor, stored_tensor
from effcc.errors import CheckpointError
from tests.checkpoints.gguf_models import blocks_of, drawn_blocks

every_format = pytest.mark.parametrize("type_", FORMATS)


def _same_bits(type_: str, blocks: np.ndarray, columns: int) -> None:
    tensor = GgufTensor("weight", type_, (len(blocks), columns), blocks)
    order = np.random.default_rng(1).permutation(len(blocks))
    stored = stored_tensor(tensor, order)
    found, wanted = stored.storage.decode(stored.arrays), decoded_tensor(tensor)[order]
    assert found.dtype == np.float32
    assert np.array_equal(found.view(np.int32), wanted.view(np.int32))


@every_format
def test_random_blocks_decode_to_the_same_bits(type_: str) -> None:
    _same_bits(type_, drawn_blocks(type_, 7, 768, np.random.default_rng(0)), 768)


@every_format
def test_a_weight_takes_the_bytes_that_it_takes_in_the_file(type_: str) -> None:
    blocks = drawn_blocks(type_, 6, 512, np.random.default_rng(0))
    stored = stored_tensor(GgufTensor("weight", type_, (6, 512), blocks), np.arange(6))
    table = 64 if type_.startswith("IQ4") else 0
    assert sum(a.nbytes for a in stored.arrays) == stored.storage.bytes == blocks.nbytes + table


@pytest.mark.parametrize("type_", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_quantized_weights_decode_to_the_same_bits(type_: str) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((5, 96)).astype(np.float32)
    weight[0], weight[1, :32], weight[2] = 0, 0, weight[2] * 1e-7
    blocks = blocks_of(weight, type_, rng)
    _same_bits(type_, blocks.view(np.uint8).reshape(5, -1), 96)


def test_plain_types_stay_half_as_large() -> None:
    assert set(PLAIN) == {"F32", "F16", "BF16"}
    blocks = np.zeros((3, 64), np.uint8)
    assert stored_tensor(GgufTensor("weight", "BF16", (3, 32), blocks), np.arange(3)).storage.bytes == blocks.nbytes


def test_other_types_are_refused_by_name() -> None:
    tensor = GgufTensor("blk.0.attn_q.weight", "IQ2_XXS", (2, 256), np.zeros((2, 66), np.uint8))
    for read in (decoded_tensor, lambda t: stored_tensor(t, np.arange(2))):
        with pytest.raises(CheckpointError, match=r"blk.0.attn_q.weight is stored as IQ2_XXS; known are F32, .*Q6_K"):
            read(tensor)
