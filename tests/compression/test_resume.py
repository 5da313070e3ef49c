"""A run that was ended goes on where it stopped, and gives what it would have given."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import effcc
from effcc.compression import quantize as rounding
from effcc.errors import InputError

SCHEME = 'int4(group=16,scale="f16")'
GIVEN = {"method": "awq+gptq", "data": torch.randn(64, 32, generator=torch.Generator().manual_seed(3))}


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 16), nn.Linear(16, 16))


@pytest.fixture
def solves(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The weights that a method was applied to; the one called `end` there ends the run."""
    found: list[str] = []
    solved = rounding.solved

    def counted(weight: Any, *args: Any) -> Any:
        if found[:1] == ["end"] and weight.name == "2":
            raise KeyboardInterrupt
        found.append(weight.name)
        return solved(weight, *args)

    monkeypatch.setattr(rounding, "solved", counted)
    return found


def test_a_run_that_was_ended_goes_on_where_it_stopped(tmp_path: Path, solves: list[str]) -> None:
    whole = effcc.quantize(model(), SCHEME, **GIVEN)
    solves[:] = ["end"]
    started = model()
    before = copy.deepcopy(started.state_dict())
    with pytest.raises(KeyboardInterrupt):
        effcc.quantize(started, SCHEME, **GIVEN, resume=tmp_path)
    assert solves == ["end", "0"]
    torch.testing.assert_close(dict(started.state_dict()), dict(before), rtol=0, atol=0)
    solves.clear()
    resumed = effcc.quantize(started, SCHEME, **GIVEN, resume=tmp_path)
    assert solves == ["2", "3"]
    torch.testing.assert_close(dict(resumed.state_dict()), dict(whole.state_dict()), rtol=0, atol=0)
    assert [m.weight_error for m in (resumed[0], resumed[2])] == [m.weight_error for m in (whole[0], whole[2])]


def test_what_another_model_scheme_method_or_data_found_is_not_taken(tmp_path: Path, solves: list[str]) -> None:
    effcc.quantize(model(), SCHEME, **GIVEN, resume=tmp_path)
    for change in ({"method": "gptq"}, {"data": GIVEN["data"] * 2}, {"scheme": "int3(group=16)"}, {"model": True}):
        solves.clear()
        other = model()
        if change.pop("model", False):
            other[2].bias.data += 1  # what the third layer sees
        effcc.quantize(other, **({"scheme": SCHEME} | GIVEN | change), resume=tmp_path)
        assert solves == ["0", "2", "3"], change


def test_a_damaged_file_is_found_anew(tmp_path: Path, solves: list[str]) -> None:
    whole = effcc.quantize(model(), SCHEME, **GIVEN, resume=tmp_path)
    cut, turned, _ = sorted(tmp_path.iterdir())
    cut.write_bytes(cut.read_bytes()[:-5])
    turned.write_bytes(turned.read_bytes()[:-1] + bytes([turned.read_bytes()[-1] ^ 1]))
    solves.clear()
    again = effcc.quantize(model(), SCHEME, **GIVEN, resume=tmp_path)
    assert len(solves) == 2
    torch.testing.assert_close(dict(again.state_dict()), dict(whole.state_dict()), rtol=0, atol=0)


def test_pruning_goes_on_too_and_bad_data_are_refused(tmp_path: Path) -> None:
    pruned = [
        effcc.sparsify(model(), "nm(2,4)", method="wanda", data=GIVEN["data"], resume=folder)
        for folder in (None, tmp_path, tmp_path)
    ]
    for other in pruned[1:]:
        torch.testing.assert_close(dict(other.state_dict()), dict(pruned[0].state_dict()), rtol=0, atol=0)
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(InputError, match="NaN"):
        effcc.quantize(model(), method="gptq", data=torch.full((4, 32), torch.nan), resume=tmp_path)
