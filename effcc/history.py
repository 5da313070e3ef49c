"""How the steps changed each kernel on its way from fusion to its loops."""

from __future__ import annotations

from effcc.ir.kernel import Kernel
from effcc.ir.printer import print_kernel
from effcc.steps import State, run_steps
from effcc.target import Target


class History:
    """Keeps the text of every kernel after each step that made or changed it; `see` is called after every step."""

    def __init__(self) -> None:
        self._last: dict[str, Kernel] = {}
        self._changes: dict[str, list[tuple[str, str]]] = {}

    def see(self, step: str, state: State) -> None:
        """Look at what came out of a step."""
        if state.program is None:
            return
        for name, kernel in state.program.kernels.items():
            if self._last.get(name) != kernel:
                self._changes.setdefault(name, []).append((step, print_kernel(kernel, locations=False)))
                self._last[name] = kernel

    def of(self, kernel: str) -> tuple[tuple[str, str], ...]:
        """A kernel's steps and texts, in order; a step that changed nothing of the text is left out."""
        found: list[tuple[str, str]] = []
        for step, text in self._changes.get(kernel, ()):
            if not found or found[-1][1] != text:
                found.append((step, text))
        return tuple(found)


def history_of(state: State, target: Target) -> History:
    """The history of a state that all steps have run on: its graph is fused and tiled once more."""
    history = History()
    if state.graph is not None:
        begun = State(
            graph=state.graph, prepare=state.prepare, fast_math=state.fast_math, prepare_once=state.prepare_once
        )
        run_steps(begun, target, "encode", history.see, "tile")
    return history
