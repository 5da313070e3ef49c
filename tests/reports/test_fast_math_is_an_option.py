"""What moves factors into weights is off unless asked for, wherever models are compiled, and `explain` says so."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import effcc
from effcc.cli import app


class Scaled(nn.Module):
    """A scale behind a product: in the weights, 1e-30 * 1e-20 is nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4, bias=False)
        nn.init.constant_(self.layer.weight, 1e-30)

    def forward(self, x):
        return self.layer(x) * 1e-20


X = torch.full((2, 8), 1e30)


@pytest.mark.parametrize("options", [{}, {"fast_math": False}, {"fast_math": True}])
def test_compiled_models_move_factors_with_fast_math_only(options):
    torch.compiler.reset()
    model = Scaled().eval()
    compiled = effcc.compile(model, **options)
    with torch.no_grad():
        found, expected = compiled(X), model(X)
    asked = options.get("fast_math", False)
    assert torch.equal(found, torch.zeros(2, 4)) if asked else torch.allclose(found, expected, atol=0)
    told = str(effcc.explain(compiled, measure=False))
    assert ("fast_math: on" in told and "scale_linear x1" in told) if asked else "fast_math: off" in told


@pytest.mark.parametrize("options", [{}, {"fast_math": True}])
def test_packages_move_factors_with_fast_math_only(options, tmp_path):
    path = effcc.export(Scaled().eval(), (X,), tmp_path / "scaled.effcc", **options)
    found = torch.as_tensor(effcc.load(path)(X))
    assert bool(found.any()) is not bool(options)


@pytest.mark.parametrize("options", [[], ["--fast-math"]])
def test_commands_move_factors_with_fast_math_only(options, tmp_path):
    torch.export.save(torch.export.export(Scaled().eval(), (X,)), tmp_path / "scaled.pt2")
    made = CliRunner().invoke(
        app, ["compile", str(tmp_path / "scaled.pt2"), "-o", str(tmp_path / "scaled.effcc"), *options]
    )
    assert made.exit_code == 0, made.output
    found = torch.as_tensor(effcc.load(tmp_path / "scaled.effcc")(X))
    assert bool(found.any()) is not bool(options)
    told = CliRunner().invoke(app, ["explain", str(tmp_path / "scaled.pt2"), "--no-measure", "--json", *options])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["programs"][0]["fast_math"] is bool(options)
