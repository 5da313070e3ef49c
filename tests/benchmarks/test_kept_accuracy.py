"""What a run of the accuracy table keeps for the next one."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import effcc
from benchmarks.accuracy.kept import Kept


def test_a_line_that_was_cut_short_loses_no_other(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.add("a", ["a", "1"])
    with (tmp_path / "rows.jsonl").open("a") as lines:
        lines.write('\n{"of": "b", "row": ["b"')
    kept.add("c", ["c", "3"])
    assert Kept(tmp_path).rows() == {"a": ["a", "1"], "c": ["c", "3"]}


def test_layers_given_the_same_tensor_share_a_matrix_afterwards_too(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.a(x), self.b(x)], -1)

    seen = effcc.calibrate(Two(), torch.randn(5, 4)).seen
    kept = Kept(tmp_path)
    assert kept.calibration("two") is None
    kept.keep("two", seen)
    found = kept.calibration("two")
    assert found is not None and found.seen["a"].gram is found.seen["b"].gram
    assert torch.equal(found.seen["b"].gram, seen["b"].gram) and found.seen["a"].rows == 5


def test_without_a_folder_nothing_is_kept() -> None:
    kept = Kept(None)
    kept.add("a", ["a"])
    assert kept.rows() == {} and kept.inside("stored") is None
