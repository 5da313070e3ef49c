"""Programs that are a little smaller than a given one, the boldest first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from effcc.fuzz.programs.case import Case, Input


def smaller(case: Case) -> Iterator[Case]:
    """Fewer calls, results, lines, inputs; smaller sizes; plainer ways to call and plainer inputs."""
    for k in range(len(case.calls)):
        if len(case.calls) > 1:
            yield replace(case, calls=case.calls[:k] + case.calls[k + 1 :])
    for k in range(len(case.results)):
        if len(case.results) > 1:
            yield replace(case, results=case.results[:k] + case.results[k + 1 :])
    yield from (_tidied(c) for c in _without_a_line(case))
    for plain in (
        {"change": ""},
        {"mode": "no_grad", "learned": ()},
        {"dynamic": False},
        {"export": False},
        {"way": "traced"},
        {"way": "interpreted"},
        {"target": "host"},
    ):
        if "way" in plain and (case.export or case.way in ("traced", "recorded")):
            continue
        if any(getattr(case, name) != value for name, value in plain.items()):
            yield replace(case, **plain)
    if case.mode == "autocast_training":
        yield replace(case, mode="training")
    for k in range(len(case.learned)):
        yield replace(case, learned=case.learned[:k] + case.learned[k + 1 :])
    tidied = _tidied(case)
    if tidied != case:
        yield tidied
    for at, call in enumerate(case.calls):
        for k, (name, size) in enumerate(call):
            for less in dict.fromkeys((1, 2, 3, size // 2, size - 1)):
                if 0 < less < size:
                    changed = (*call[:k], (name, less), *call[k + 1 :])
                    yield replace(case, calls=(*case.calls[:at], changed, *case.calls[at + 1 :]))
    for k, given in enumerate(case.inputs):
        for pattern, plainly in (
            (r'laid\((tensor\(.*\)), "\w+"\)$', r"\1"),
            (r'"(?!whole)\w+", \d+\)$', '"whole", 0)'),
        ):
            text = re.sub(pattern, plainly, given.text)
            if text != given.text and "indices" not in text:
                yield replace(case, inputs=(*case.inputs[:k], Input(given.name, text), *case.inputs[k + 1 :]))


def _without_a_line(case: Case) -> Iterator[Case]:
    """A line is dropped; what it gave is the value that it was computed from, or is not returned."""
    for k in reversed(range(len(case.lines))):
        lines = case.lines[:k] + case.lines[k + 1 :]
        made = re.match(r"([a-z]\d*) = (.*)", case.lines[k])
        if made is None:
            names = re.match(r"([a-z]\d*(, (\*_|[a-z]\d*))*) = ", case.lines[k])
            dropped = set(re.findall(r"[a-z]\d*", names[1])) if names else set()
            results = tuple(r for r in case.results if r not in dropped)
            if results:
                yield replace(case, lines=lines, results=results)
            continue
        for other in dict.fromkeys(re.findall(r"\b(?:[a-h]\d*|[xyzuvw]\d*)\b(?!\()", made[2])):
            name = re.compile(rf"\b{made[1]}\b")
            changed = tuple(name.sub(other, line) if j >= k else line for j, line in enumerate(lines))
            results = tuple(dict.fromkeys(other if r == made[1] else r for r in case.results))
            yield replace(case, lines=changed, results=results)
        results = tuple(r for r in case.results if r != made[1])
        if results:
            yield replace(case, lines=lines, results=results)


def _tidied(case: Case) -> Case:
    """Without inputs and state that nothing reads."""
    text = " ".join((*case.lines, *case.results, case.change))
    inputs = list(case.inputs)
    for given in reversed(case.inputs):
        later = " ".join(i.text for i in inputs if i is not given)
        if len(inputs) > 1 and not re.search(rf"\b{given.name}\b", f"{text} {later}"):
            inputs.remove(given)
    kept = {i.name for i in inputs}
    state = tuple((n, t) for n, t in case.state if re.search(rf"\b{n}\b", text))
    return replace(case, inputs=tuple(inputs), state=state, learned=tuple(n for n in case.learned if n in kept))
