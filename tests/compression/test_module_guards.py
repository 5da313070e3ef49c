"""What torch.compile checks of modules with stored weights at every call."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import _debug_get_cache_entry_list

import effcc
from effcc.compression.modules import EncodedLinear


class Pair(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.second(self.first(x))
        return made


def stored_pair(scheme: str = 'int4(group=16,minimum=true,scale="f16")') -> Pair:
    torch.manual_seed(0)
    return effcc.quantize(Pair().eval(), scheme)


def checks(model: nn.Module, **config: bool) -> list[str]:
    """The lines of Dynamo's tree of checks for a call of the model."""
    torch._dynamo.reset()
    with torch.no_grad(), torch._dynamo.config.patch(**config):
        torch.compile(model, backend="eager", dynamic=False)(torch.ones(2, 32))
    (entry,) = _debug_get_cache_entry_list(type(model).forward.__code__)
    return str(entry.guard_manager).splitlines()


def test_beside_its_tensors_a_stored_weight_is_one_check() -> None:
    of_first = [line for line in checks(stored_pair()) if "+- EQUALS_MATCH" in line and "['first']" in line]
    assert len(of_first) == 1 and "weight_form" in of_first[0]


def test_recursive_dict_tags_can_spare_the_checks_of_stored_weights() -> None:
    roots = [line for line in checks(stored_pair(), use_recursive_dict_tags_for_guards=True) if "(True, True)" in line]
    assert any("Pair" in line or "EncodedLinear" in line for line in roots)


@pytest.mark.parametrize("spared", [False, True])
def test_another_weight_form_is_seen(spared: bool) -> None:
    model = stored_pair()
    x = torch.ones(2, 32)
    with torch.no_grad(), torch._dynamo.config.patch(use_recursive_dict_tags_for_guards=spared):
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="eager", dynamic=False)
        for scheme in ("int8", "nf4(group=16)", "binary"):
            for _ in range(3):
                torch.testing.assert_close(compiled(x), model(x), rtol=0, atol=0)
            vars(model.first).update(vars(stored_pair(scheme).first))


def test_modules_pickled_when_the_form_was_four_attributes_come_back() -> None:
    module: Any = stored_pair().first
    state = dict(vars(module))
    del state["weight_form"]
    for name in ("encoding", "weight_shape", "weight_components", "weight_dtype"):
        state[name] = getattr(module, name)
    older: Any = EncodedLinear.__new__(EncodedLinear)
    older.__setstate__(state)
    assert pickle.loads(pickle.dumps(older)).weight_form == module.weight_form
    assert torch.equal(older.weight, module.weight)
