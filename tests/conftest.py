"""What all tests share: a compile cache of their own, so that no test sees or fills the user's."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest

# A busy machine is no failure: no test is timed.
hypothesis.settings.register_profile("effcc", deadline=None)
hypothesis.settings.load_profile("effcc")

if os.environ.get("PYTEST_XDIST_WORKER"):
    # Tests already run side by side, one on each core; those about threads ask for theirs.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def _own_compile_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Point the cache at a temporary folder for the session, unless the caller has named one."""
    if os.environ.get("EFFCC_CACHE_DIR"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFCC_CACHE_DIR", str(tmp_path_factory.mktemp("effcc-cache")))
        yield
