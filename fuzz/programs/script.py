"""What is written of a failure: the program, its inputs by formula, how it is called, and lines that show the rest."""

from __future__ import annotations

import re

from effcc.fuzz.programs.case import Case
from effcc.fuzz.programs.judge import Failure

_SCRIPT = '''"""{title}

    python {name}

Found by `effcc fuzz`, program {seed}.
"""

import effcc
{text}

if __name__ == "__main__":
    program, other = Program(), Program()
{compiled}
    wrong = False
    for sizes in {calls}:
        mine, theirs = inputs(**sizes), inputs(**sizes)
        with {mode}:
            want = program(*theirs)
            got = compiled(*mine)
{backward}        for name, a, b in [("result", got, want), ("input", mine, theirs)]:
            for number, (mine_now, theirs_now) in enumerate(zip(a, b)):
                same = torch.equal(mine_now.nan_to_num(), theirs_now.nan_to_num())
                print(name, number, "equal" if same else f"expected\\n{{theirs_now}}\\ngot\\n{{mine_now}}")
                wrong |= not same
{change}    raise SystemExit(wrong)

{message}'''

_BACKWARD = """        for results in (want, got):
            sum((r.double() * tensor(r.shape, torch.float64, "positive", k)).sum() for k, r in enumerate(results)
                if r.requires_grad).backward()
        for number, (a, b) in enumerate(zip(mine, theirs)):
            if b.grad is not None:
                print("gradient of input", number, "expected", b.grad, "got", a.grad, sep="\\n")
"""


def script(failure: Failure) -> str:
    """A script that shows the failure without the fuzzer: both results and inputs, where they differ."""
    case = failure.case
    options = f'backend="effcc", dynamic={case.dynamic}, options={{"target": "{case.target}"}}'
    how = f"    compiled = torch.compile(other, {options})"
    if case.export:
        calls = dict(case.calls[0])
        how = f'    compiled = effcc.load(effcc.export(other, inputs(**{calls}), "program.effcc"))'
    return script_of(case, str(failure), failure.message, how, f"program_{case.seed}.py")


def script_of(case: Case, title: str, message: str, how: str, name: str) -> str:
    """A script that shows how a program differs from eager. how: its lines that make `compiled` of the program `other`.
    name: the script's."""
    between = ""
    if case.change:
        changes = [case.change, re.sub(r"\bprogram\b", "other", case.change)]
        between = "        with torch.no_grad():\n" + "".join(f"            {c}\n" for c in changes)
    return _SCRIPT.format(
        title=re.sub(r'[\\"]', "'", title),
        name=name,
        seed=case.seed,
        text=case.text,
        compiled=how,
        calls=[dict(c) for c in case.calls],
        mode=_mode(case),
        backward=_BACKWARD if case.trains else "",
        change=between,
        message="".join(f"# {line}\n" for line in message.splitlines()[:40]),
    )


def _mode(case: Case) -> str:
    gradients = (
        "torch.enable_grad()"
        if case.trains
        else "torch.inference_mode()"
        if case.mode == "inference"
        else "torch.no_grad()"
    )
    return f'{gradients}, torch.autocast("cpu", torch.bfloat16)' if case.mode.startswith("autocast") else gradients
