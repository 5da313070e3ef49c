"""Whatever a file holds, loading it ends soon, in a model that computes what it should or in a PackageError."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

import effcc
from effcc.errors import PackageError
from effcc.fuzz import packages
from effcc.fuzz.archives import ARCHIVES
from effcc.fuzz.hostile import HARMS, Genuine
from effcc.fuzz.packages import PackageReport, attempt, run_packages, sample
from effcc.runtime.manifest import MANIFEST, WEIGHTS, read_manifest
from effcc.runtime.members import read_sums
from effcc.runtime.stored_tensors import read_tensors


@pytest.fixture(scope="module")
def genuine() -> Genuine:
    return sample()


def test_hostile_packages_end_in_typed_errors(genuine: Genuine) -> None:
    report = run_packages(genuine, seed=0, trials=10 * len(HARMS))
    assert not report.failures, report
    assert report.as_json()["typed"] > 7 * len(HARMS)


@pytest.mark.slow
def test_many_hostile_packages_end_in_typed_errors(genuine: Genuine) -> None:
    report = run_packages(genuine, seed=10_000, trials=5 * len(HARMS))
    assert not report.failures, report


@pytest.mark.parametrize("trick", ARCHIVES)
def test_an_archive_that_lies_is_refused(trick: str, genuine: Genuine, tmp_path: Path) -> None:
    path = tmp_path / "model.effcc"
    path.write_bytes(ARCHIVES[trick](dict(genuine.files), random.Random(0)))
    if trick in ("as it is", "a signature that is none", "no files said"):
        assert effcc.load(path).inputs
        return
    with pytest.raises(PackageError) as caught:
        effcc.load(path)
    assert str(path) in str(caught.value)


def test_a_planted_fault_is_seen(genuine: Genuine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The campaign itself: a loader that crashes, hangs or raises something else is told from one that refuses."""
    monkeypatch.setattr(packages, "TIMEOUT", 0.5)
    report = PackageReport()
    for fault in (
        lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL),
        lambda *_, **__: time.sleep(60),
        lambda *_, **__: {}["x"],
    ):
        monkeypatch.setattr(packages, "Package", fault)
        monkeypatch.setattr(packages, "examined", fault)
        report.add(attempt(genuine, 0, tmp_path))
    assert [o.kind for o in report.failures] == ["crash", "hang", "untyped"]


@hypothesis.given(st.binary(max_size=200))
def test_no_bytes_make_a_reader_raise_anything_else(content: bytes) -> None:
    for read in (read_manifest, read_sums, lambda c: read_tensors(c, WEIGHTS)):
        with pytest.raises(PackageError):
            read(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@hypothesis.given(data=st.data())
def test_no_value_of_a_field_makes_a_manifest_raise_anything_else(genuine: Genuine, data: st.DataObject) -> None:
    document = json.loads(genuine.files[MANIFEST])
    field = data.draw(st.sampled_from(sorted(document)))
    document[field] = data.draw(JSON)
    try:
        read_manifest(json.dumps(document).encode("utf-8", "surrogatepass"))
    except PackageError as error:
        assert MANIFEST in str(error)


@hypothesis.given(data=st.data())
def test_no_header_makes_tensors_raise_anything_else(data: st.DataObject) -> None:
    entry = st.fixed_dictionaries({"dtype": JSON, "shape": JSON, "data_offsets": JSON})
    header = json.dumps(data.draw(st.dictionaries(st.text(max_size=4), entry | JSON, max_size=3))).encode()
    content = len(header).to_bytes(8, "little") + header + data.draw(st.binary(max_size=16))
    try:
        read_tensors(content, WEIGHTS)
    except PackageError as error:
        assert WEIGHTS in str(error)
