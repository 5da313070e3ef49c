"""What asks a process of its own learns that it crashed or hung, and the next request finds another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from effcc.runtime.worker import LostError, Worker

ANSWERING = """
import os, time
from effcc.runtime.worker import answer_requests

def answer(request):
    print("this is no answer")
    if request == "crash":
        os.abort()
    if request == "end":
        os._exit(3)
    if request == "hang":
        time.sleep(60)
    return os.environ["WORKER_TEST"], request

def serve():
    answer_requests(answer)
"""


def test_an_answer_comes_from_a_process_until_that_is_lost(tmp_path: Path) -> None:
    (tmp_path / "answering.py").write_text(ANSWERING)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with Worker("answering:serve", {"WORKER_TEST": "set", "PYTHONPATH": path}) as worker:
        assert worker.ask([1, 2], 60) == ("set", [1, 2])
        with pytest.raises(LostError, match="crashed with signal 6"):
            worker.ask("crash", 60)
        with pytest.raises(LostError, match="crashed with exit code 3"):
            worker.ask("end", 60)
        with pytest.raises(LostError, match=r"did not return within 0.2 s"):
            worker.ask("hang", 0.2)
        assert worker.ask("again", 60) == ("set", "again")
