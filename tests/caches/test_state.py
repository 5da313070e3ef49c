"""A stored state is written at places, read as codes, and moves, copies and saves as a module's buffers do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import effcc
from effcc.caches.state import StoredState
from effcc.errors import InputError
from effcc.ir.program import Launch
from effcc.statistics import require_programs


class Attention(nn.Module):
    """Attention over a cache of 40 tokens, of two heads that four queries share."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = StoredState((2, 2, 40, 32), "int8")
        self.values = StoredState((2, 2, 40, 32), "int4(group=16)")

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        self.keys.write(2, at, k)
        self.values.write(2, at, v)
        mask = torch.arange(40) <= at[:, None]
        keys, values = self.keys.read(), self.values.read()
        return nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask, enable_gqa=True)


def test_compiled_attention_reads_codes_and_writes_them_in_place() -> None:
    torch.manual_seed(0)
    eager = Attention()
    module = copy.deepcopy(eager)
    compiled = torch.compile(module, backend="effcc", fullgraph=True, dynamic=False)
    memory = [a.data_ptr() for a in (*module.keys.arrays, *module.values.arrays)]
    with torch.no_grad():
        for first, count in ((0, 5), (5, 1), (6, 1)):
            at = torch.arange(first, first + count)
            q, k, v = torch.randn(2, 4, count, 32), torch.randn(2, 2, count, 32), torch.randn(2, 2, count, 32)
            torch.testing.assert_close(compiled(q, k, v, at), eager(q, k, v, at))
    for name, held in eager.state_dict().items():
        assert torch.equal(held, module.state_dict()[name]), name
    assert memory == [a.data_ptr() for a in (*module.keys.arrays, *module.values.arrays)]
    for one in require_programs(compiled):
        program = one.state.program
        codes = {b.name for b in program.buffers if b.type.dtype.bytes == 1 and b.type.shape[-2:-1] == (40,)}
        (attention,) = {s.kernel for s in program.steps if isinstance(s, Launch) and len(codes & set(s.arguments)) == 2}
        assert sum(p.type.dtype.bytes == 1 for p in program.kernels[attention].params) == 2
        assert not [b for b in program.buffers if b.space == "arena" and 40 in b.type.shape and 32 in b.type.shape]


def test_places_are_written_and_others_stay() -> None:
    state = StoredState((3, 8, 16), "int4(group=8)")
    rows = torch.randn(3, 2, 16)
    state.write(1, torch.tensor([5, 2]), rows)
    read = state.read()
    assert (read[:, [5, 2]] - rows).abs().max() <= rows.abs().max() / 7
    assert not read[:, [0, 1, 3, 4, 6, 7]].any() and state.bytes == 3 * 8 * (8 + 2 * 4)
    state.write(-2, torch.tensor([0]), rows[:, :1])
    assert torch.equal(state.read()[:, 0], read[:, 5]) and torch.equal(state.read()[:, 1:], read[:, 1:])
    state.clear()
    assert not state.read().any()


def test_selecting_reorders_codes() -> None:
    state = StoredState((3, 4, 16), "int4")
    state.write(1, torch.arange(4), torch.randn(3, 4, 16))
    read, memory = state.read(), state.values.data_ptr()
    state.select(0, torch.tensor([2, 0, 0]))
    assert torch.equal(state.read(), read[[2, 0, 0]]) and state.values.data_ptr() == memory
    state.select(0, torch.tensor([0, 0, 1, 1]))
    assert torch.equal(state.read(), read[[2, 2, 0, 0]]) and state.shape == (4, 4, 16)


def test_it_is_saved_copied_and_kept_as_it_is() -> None:
    state = StoredState((2, 4, 16), 'int8(scale="f16")')
    state.write(1, torch.tensor([1]), torch.randn(2, 1, 16))
    other = StoredState((2, 4, 16), 'int8(scale="f16")')
    other.load_state_dict(state.state_dict())
    assert torch.equal(other.read(), state.read()) and torch.equal(copy.deepcopy(state).read(), state.read())
    dense = StoredState((2, 4, 16), None, torch.bfloat16)
    rows = torch.randn(2, 1, 16).bfloat16()
    dense.write(1, torch.tensor([2]), rows)
    assert torch.equal(dense.read()[:, 2:3], rows) and dense.bytes == 2 * 4 * 16 * 2
    assert "int8" in repr(state) and "as it is" in repr(dense)


def test_rows_are_no_places() -> None:
    state = effcc.StoredState((2, 4, 16), "int8")
    with pytest.raises(InputError, match="dimensions 0 to 1"):
        state.write(2, torch.tensor([0]), torch.randn(2, 4, 1))
    with pytest.raises(InputError, match="two dimensions"):
        StoredState((16,), "int8")
