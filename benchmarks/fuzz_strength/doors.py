"""A trial door by door: so many cases of each as a campaign of some minutes has on two quiet cores, however slow this
machine is, without the start of a campaign. It says which doors see a plant, for a tenth of a campaign's time.

A process that has imported PyTorch and nothing of effcc (`python -m benchmarks.fuzz_strength.doors`) forks another for
every trial, which imports the copy of the package that has the plant in it.
"""

from __future__ import annotations

import compileall
import contextlib
import importlib
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.fuzz_strength.plants import Plant, StaleError
from benchmarks.fuzz_strength.trial import PARTS, ROOT, UNTOUCHED, Result

EACH_MINUTE = {
    "sizes": 550, "encoders": 130, "rules": 275, "traced": 180, "compiled": 180, "packages": 100, "graphs": 88,
    "modules": 6,
}  # fmt: skip
"""Cases that a campaign has in a minute, by door, on two quiet cores. traced, compiled: programs, of which the one door
judges those that are traced, the other those that are called in other ways; graphs: an eighth of them deployed, too."""
SHARES = (0.1, 0.4, 1.0)
"""A first share of each door's cases comes before the second of any: most of what is found shows early."""
FIRST_GRAPHS = 16  # whose processes end before the next are drawn, three times as many each time
NEAREST = (
    ("effcc/frontend/sizes", "sizes traced"), ("effcc/frontend/conditions", "sizes traced"),
    ("effcc/frontend", "traced compiled modules"), ("effcc/ir/encodings", "encoders modules graphs"),
    ("effcc/compression", "modules compiled"), ("passes/rules", "rules traced graphs"),
    ("passes/hoist", "compiled graphs"), ("passes", "graphs traced"), ("effcc/ir", "traced graphs"),
    ("runtime/include/effcc/digest", "graphs modules compiled"), ("runtime/include", "graphs traced"),
    ("runtime/c", "sizes graphs"), ("runtime", "graphs modules compiled packages"), ("codegen", "graphs traced"),
    ("effcc", "compiled graphs modules"),
)  # fmt: skip
"""By the beginning of a plant's file: the doors that come first, as they reach it soonest."""
HANGS = 1200.0  # seconds of a trial, after which it is ended
_IMPORTED = (
    "numpy", "torch", "torch._dynamo", "torch._functorch.aot_autograd", "torch.export", "torch._higher_order_ops",
    "torch.fx.experimental.proxy_tensor", "sympy", "lark", "rich.progress", "scipy.sparse", "triton",
)  # fmt: skip


def chosen_doors(plant: Plant | None, asked: str) -> tuple[str, ...]:
    """The doors asked for: `all`, the nearest to the plant first, `near`, these alone, or by name, with commas.

    Raises SystemExit for a door that is none.
    """
    file = plant.file if plant is not None else ""
    near = next((tuple(doors.split()) for begin, doors in NEAREST if file.startswith(begin)), ())
    if asked == "near":
        return near
    if asked == "all":
        return (*near, *(d for d in EACH_MINUTE if d not in near))
    named = tuple(asked.split(","))
    unknown = [d for d in named if d not in EACH_MINUTE]
    if unknown:
        raise SystemExit(f"no door is called {unknown[0]!r}; doors: {', '.join(EACH_MINUTE)}")
    return named


class Doors:
    """Tries plants; use it as a context manager, which ends its process and removes its files."""

    def __init__(self, root: Path = ROOT) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="effcc-doors-", ignore_cleanup_errors=True)
        self._untouched = Path(self._scratch.name) / "untouched"
        for part in PARTS:
            left = shutil.ignore_patterns("__pycache__")
            shutil.copytree(root / part, self._untouched / part, symlinks=True, ignore=left)
        shutil.copy(root / "pyproject.toml", self._untouched)
        compileall.compile_dir(self._untouched, quiet=2)
        command = [sys.executable, "-W", "ignore", "-m", __name__]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root
        )

    def __enter__(self) -> Doors:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._scratch.cleanup()

    def attempt(self, plant: Plant | None, seed: int, minutes: float, doors: str = "all") -> Result:
        """Try a plant, or the package as it is, at the doors that `chosen_doors` gives."""
        name, room, digest = (plant.name, plant.room, plant.digest) if plant else (UNTOUCHED, UNTOUCHED, "")
        blank = Result(name, room, digest, seed, minutes, "stale", 0.0, doors=doors)
        with tempfile.TemporaryDirectory(prefix="plant-", dir=self._scratch.name, ignore_cleanup_errors=True) as made:
            folder = Path(made)
            for part in PARTS:
                shutil.copytree(self._untouched / part, folder / part, symlinks=True)
            shutil.copy(self._untouched / "pyproject.toml", folder)
            try:
                if plant is not None:
                    plant.apply(folder)
            except StaleError as error:
                return replace(blank, message=str(error))
            asked = {"folder": made, "seed": seed, "minutes": minutes, "doors": chosen_doors(plant, doors)}
            assert self._process.stdin is not None and self._process.stdout is not None
            print(json.dumps(asked), file=self._process.stdin, flush=True)
            return replace(blank, **json.loads(self._process.stdout.readline()))


# In its process -------------------------------------------------------------------------------------------------------


def main() -> None:
    """Fork a process for every trial that is asked for, until the input ends."""
    for name in _IMPORTED:
        with_torch = importlib.util.find_spec(name.partition(".")[0])
        if with_torch is not None:
            importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(_forked(json.loads(line))), flush=True)


def _forked(asked: dict[str, Any]) -> dict[str, Any]:
    """A trial in a process of its own: what is told last of it."""
    told = Path(asked["folder"]) / "told.json"
    child = os.fork()
    if child == 0:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        os.dup2(os.open(f"{asked['folder']}/errors.txt", os.O_CREAT | os.O_WRONLY), 2)
        code = 1
        try:
            _try(asked, told)
            code = 0
        except BaseException as error:  # the package with the plant in it may raise anything
            _tell(told, outcome="crash", message=f"{type(error).__name__}: {error}"[:300])
        finally:
            os._exit(code)
    end = time.monotonic() + HANGS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        _tell(told, outcome="hang")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it left running
    said: dict[str, Any] = json.loads(told.read_text()) if told.exists() else {"outcome": "crash"}
    if os.WIFSIGNALED(status) and said["outcome"] == "missed":
        alone = said["door"] in ("traced", "compiled", "modules", "packages")  # of which a campaign loses but a process
        said |= {"outcome": "found" if alone else "crash", "message": f"signal {os.WTERMSIG(status)}"}
    return said


def _tell(file: Path, **facts: Any) -> None:
    before = json.loads(file.read_text()) if file.exists() else {"outcome": "missed"}
    file.write_text(json.dumps({**before, **facts}))


def _used() -> float:
    """Seconds of processors that this process and those that it waited for have used."""
    return sum(
        u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _try(asked: dict[str, Any], told: Path) -> None:
    folder = asked["folder"]
    os.chdir(folder)
    os.environ |= {"PYTHONPATH": folder, "EFFCC_CACHE_DIR": f"{folder}/cache", "TMPDIR": folder}
    tempfile.tempdir = None
    sys.path[:] = [folder, *(p for p in sys.path if p not in ("", str(ROOT)))]
    _tell(told, outcome="import")
    importlib.import_module("effcc.fuzz.campaign")
    importlib.import_module("effcc.backend")
    begin_forked = importlib.import_module("effcc.fuzz.nursery").begin_forked
    if not str(sys.modules["effcc"].__file__).startswith(folder):
        raise RuntimeError(f"effcc was imported from {sys.modules['effcc'].__file__}")
    begin_forked()  # as everything is imported here already
    wanted = {door: round(EACH_MINUTE[door] * asked["minutes"]) for door in asked["doors"]}
    cases = {door: enumerate(_DOORS[door](asked["seed"], count), 1) for door, count in wanted.items()}
    done = dict.fromkeys(wanted, 0)
    for share in SHARES:
        for door, count in wanted.items():
            _tell(told, outcome="missed", door=door, seconds=_used())
            for number, found in islice(cases[door], max(0, math.ceil(share * count) - done[door])):
                done[door] = number
                if found:
                    step, message = found
                    _tell(told, outcome="found", seconds=_used(), step=step, message=message[:300], programs=number)
                    return
    _tell(told, door="", seconds=_used())


Found = tuple[str, str]  # the kind or step of a failure, and its message


def _each(judge: Callable[[int], Any], seeds: Iterable[int]) -> Iterator[Found | None]:
    for seed in seeds:
        found = judge(seed)
        told = "" if isinstance(found, str) else getattr(found, "kind", "") or found.step
        yield (told, f"seed {seed}: {found.message}") if told else None


def _checks(name: str, at_once: int) -> Callable[[int, int], Iterator[Found | None]]:
    def checked(seed: int, count: int) -> Iterator[Found | None]:
        module, kind = name.split(":")
        some = getattr(importlib.import_module(module), kind)(seed).some
        for _ in range(0, count, at_once):
            wrong: list[Found | None] = [(f.step, f"{f.kind}: {f.message}") for f in some(at_once)]
            yield from wrong[:1] or [None] * at_once

    return checked


def _programs(traced: bool) -> Callable[[int, int], Iterator[Found | None]]:
    def judged(seed: int, count: int) -> Iterator[Found | None]:
        from effcc.fuzz.programs.draw import WAYS, draw
        from effcc.fuzz.programs.judge import judge

        seeds = [n for n in range(seed, seed + count) if (WAYS[n % len(WAYS)] in ("traced", "recorded")) is traced]
        return _each(lambda n: judge(draw(n)), seeds)

    return judged


def _modules(seed: int, count: int) -> Iterator[Found | None]:
    from effcc.fuzz.modules.checks import judge
    from effcc.fuzz.modules.draw import draw

    return _each(lambda n: judge(draw(n)), range(seed, seed + count))


def _packages(seed: int, count: int) -> Iterator[Found | None]:
    from effcc.fuzz.damaged import AT_A_TIME, Trials, judge

    for found in _each(lambda n: judge(Trials(n)), range(seed, seed + count // AT_A_TIME)):
        yield from [None] * (AT_A_TIME - 1)
        yield found


def _graphs(seed: int, count: int) -> Iterator[Found | None]:
    from effcc.fuzz.campaign import Pace, run
    from effcc.fuzz.journal import Before, Begun

    pace = Pace(modules=False, programs=False, packages=False, rules=0, encoders=0, sizes=0)
    done, more = 0, FIRST_GRAPHS
    while done < count:
        more = min(more, count - done)
        so_far = {"next": seed + done, "batches": -(-done // pace.batch), "ops": {}, "found": None}
        before = Before(Begun(seed, 0), 0, graphs=so_far | dict.fromkeys(("graphs", "nodes", "compiled", "mutants"), 0))
        report = run(
            1e6, seed, most=more, progress=False, reduce_seconds=0, stop_after=1, pace=pace, before=before,
            others=done > 0,  # Triton's interpreter takes seconds to start
        )  # fmt: skip
        yield from [None] * (more - 1)
        yield next(((f.step, f"seed {f.case.seed}, {f.kind}: {f.message}") for f in report.failures), None)
        done, more = done + more, 3 * more


_DOORS: dict[str, Callable[[int, int], Iterator[Found | None]]] = {
    "sizes": _checks("effcc.fuzz.sizes:SizeChecks", 50), "encoders": _checks("effcc.fuzz.encoders:EncoderChecks", 12),
    "rules": _checks("effcc.fuzz.rules:RuleChecks", 10), "traced": _programs(True), "compiled": _programs(False),
    "packages": _packages, "graphs": _graphs, "modules": _modules,
}  # fmt: skip

if __name__ == "__main__":
    main()
