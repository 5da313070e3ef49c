"""Modules whose weights are stored: a seed gives one module, right ones pass, planted bugs are found.

A plant names the module that shows it, as those of graphs do (`tests/fuzz/test_planted.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from effcc.compression import inputs, install, save
from effcc.fuzz.beside import Isolated, reduce
from effcc.fuzz.modules.campaign import MODULES
from effcc.fuzz.modules.case import Block, Case
from effcc.fuzz.modules.checks import Failure, judge
from effcc.fuzz.modules.draw import draw
from effcc.fuzz.modules.script import script
from effcc.ir.encodings import levels
from effcc.ir.encodings.values import Coded
from effcc.ir.encodings.values.codes import Integers
from effcc.ir.encodings.values.grid import Grid

Patch = pytest.MonkeyPatch
QUICK = ("numbers", "copies")
MOST = 60
LAYER = Case(
    seed=0,
    blocks=(Block((("a", "nn.Linear(7, 12)"),), ("x = F.relu(self.a(x))",)),),
    input="torch.randn(n, 7, generator=generator)",
    storing=("effcc.quantize(model, 'int4(group=3)')",),
    batches=(2, 3),
    dynamic=True,
)


@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_a_seed_gives_one_module_which_runs(seed: int) -> None:
    case = draw(seed)
    assert case == draw(seed)
    loaded = case.load()
    model = loaded.dense()
    with torch.no_grad():
        assert torch.equal(model(loaded.inputs(2)), model(loaded.inputs(2)))


def test_a_right_module_passes_all_checks() -> None:
    assert judge(replace(LAYER, checks=("copies", "package", "training", "damage"))) == ""


def test_a_failure_is_reduced_and_written_as_a_script() -> None:
    more = Block((("b", "nn.Linear(12, 12)"),), ("x = x + self.b(x)",))
    case = replace(LAYER, blocks=(*LAYER.blocks, more), setup=("model.b.weight.zero_()",), checks=("copies",))

    def fails_with_a(case: Case) -> Failure | str:
        return Failure(case, "numbers", "wrong") if "self.a" in case.text else ""

    small = reduce(MODULES, Failure(case, "numbers", "wrong"), fails_with_a, 10.0)
    assert (len(small.case.blocks), small.case.setup, small.case.checks, small.case.batches) == (1, (), (), (2,))
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(script(small), "script", "exec"), names)
    assert (
        isinstance(names["model"], torch.nn.Linear | torch.nn.Module) and names["model"].a.encoding == "int4(group=3)"
    )


def test_a_crash_is_a_failure_and_the_next_module_is_judged() -> None:
    crash = replace(LAYER.blocks[0], lines=("import os", "os._exit(3)"))
    with Isolated(MODULES) as isolated:
        found = isolated.judge(replace(LAYER, blocks=(crash,)))
        assert isinstance(found, Failure) and found.message == "crashed with exit code 3"
        assert isolated.judge(replace(LAYER, storing=("effcc.quantize(model, 'nonsense')",))) == "refused"


@dataclass(frozen=True)
class Bug:
    """A bug: what plants it, the seed of a module that shows it, and the checks that do."""

    plant: Callable[[Patch], None]
    seed: int
    checks: tuple[str, ...]


PLANTED: dict[str, Bug] = {}


def planted(seed: int, *checks: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a bug under the name of the function that plants it."""

    def register(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        PLANTED[plant.__name__.replace("_", " ")] = Bug(plant, seed, checks or QUICK)
        return plant

    return register


@planted(98)
def zero_points_are_those_of_other_rows(patch: Patch) -> None:
    def wrong(self: Coded, levels: Any, stored: Any, importance: Any = None) -> Any:
        found = original(self, levels, stored, importance)
        return [*found[:-1], np.roll(found[-1], 1, axis=0)] if self.zero else found

    original = Coded.fit
    patch.setattr(Coded, "fit", wrong)


@planted(2)
def codes_are_cut_off_and_not_rounded(patch: Patch) -> None:
    original = Integers.nearest
    patch.setattr(Integers, "nearest", lambda self, scaled, table: original(self, np.trunc(scaled), table))


@planted(6)
def short_groups_lose_their_last_element(patch: Patch) -> None:
    def wrong(self: Grid, rows: Any, fill: float | None = None) -> Any:
        if self.per == "group" and rows.shape[1] % self.group and fill is not None:
            rows = np.where(np.arange(rows.shape[1]) == rows.shape[1] - 1, 0, rows)
        return original(self, rows, fill)

    original = Grid.blocks
    patch.setattr(Grid, "blocks", wrong)


@planted(42)
def the_smallest_are_kept(patch: Patch) -> None:
    def plant(level: Any, original: Any) -> None:
        patch.setattr(level, "select", lambda self, w: original(self, 1 / (np.abs(w.astype(np.float64)) + 1e-3)))

    for level in (levels.Block, levels.Compressed, levels.Structured):
        plant(level, level.select)


@planted(29)
def modules_that_share_a_weight_get_one_each(patch: Patch) -> None:
    def wrong(module: Any, made: Any, components: Any, *rest: Any) -> None:
        original(module, made, {n: copy.deepcopy(t) for n, t in components.items()}, *rest)

    original = install.install
    patch.setattr(install, "install", wrong)


@planted(16)
def files_forget_what_changes_inputs(patch: Patch) -> None:
    patch.setattr(save, "InputChange", lambda scale, rotation: inputs.UNCHANGED)


@planted(16)
def files_take_weights_for_f32(patch: Patch) -> None:
    original = save._entry
    patch.setattr(save, "_entry", lambda module: replace(original(module), dtype="float32"))


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str, monkeypatch: Patch) -> None:
    PLANTED[bug].plant(monkeypatch)
    assert found(PLANTED[bug].seed, 1, PLANTED[bug].checks) or found(0, MOST, PLANTED[bug].checks)


def found(seed: int, most: int, checks: tuple[str, ...]) -> bool:
    """Whether one of so many modules from `seed` on fails, but for reasons of the plant itself."""
    for number in range(seed, seed + most):
        failure = judge(draw(number), checks)
        if isinstance(failure, Failure):
            assert " at test_modules.py" not in failure.message.splitlines()[0], f"the plant fails: {failure}"
            return True
    return False
