"""The process that runs calls: tasks come in as lines of JSON, outcomes go out; `null` ends a task."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import warnings

from benchmarks.op_database.calls import calls, operators
from benchmarks.op_database.outcome import Outcome, outcome
from benchmarks.op_database.workers import Task
from effcc.errors import FaultWarning

_LEFT_TO_PYTORCH = ("linalg.", "fft.", "sparse.")  # one sample says as much as many


def main() -> None:
    """Serve tasks until the input ends. What operators print goes to standard error."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", FaultWarning)  # a part that PyTorch runs for a fault of effcc's is no success
    logging.getLogger("torch").setLevel(logging.CRITICAL)  # a call that must be refused is no news
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    known = operators()

    def answer(found: Outcome | None) -> None:
        answers.write(json.dumps(dataclasses.asdict(found) if found else None) + "\n")
        answers.flush()

    for line in sys.stdin:
        task = Task(**json.loads(line))
        try:
            made = calls(known[task.name], task.kind, task.dtype, task.limit)
        except Exception as error:  # the database's own samples need what is not here
            answer(Outcome(f"{task.name} {task.kind} {task.dtype}", "skipped", f"no samples: {error}"))
            made = []
        for call in made[:1] if task.name.startswith(_LEFT_TO_PYTORCH) else made:
            answer(outcome(call))
        answer(None)


if __name__ == "__main__":
    main()
