"""What is written of a failure: the module, how it is stored, and a few lines that show what is wrong."""

from __future__ import annotations

import re

from effcc.fuzz.modules.checks import Failure

_BEGIN = '''"""{title}

    python {name}

Found by `effcc fuzz`, module {seed}.
"""

'''
_STORE = """

if __name__ == "__main__":
    model = dense()
    before = copy.deepcopy(model)
    for store in STORING:
        store(model)
"""
_COMPILED = """
    compiled = torch.compile(model, backend="effcc", dynamic={dynamic}, options={{"target": "{target}"}})
    with torch.no_grad():
        for number, n in enumerate({batches}):
            x = inputs(n, number)
            got, want = compiled(x), model(x)
            print(f"batch of {{n}}: off by {{(got - want).abs().max():.3g}} of {{want.abs().max():.3g}}")
"""
_PACKAGE = """
    x = inputs({batch})
    batch = {{0: torch.export.Dim("n", min=2, max=4096)}}
    with torch.no_grad():
        path = effcc.export(model, (x,), "module.effcc", dynamic_shapes={shapes})
        got, want = effcc.load(path)(x), model(x)
    print(f"off by {{(got - want).abs().max():.3g}} of {{want.abs().max():.3g}}")
"""
_TRAINING = """
    x = inputs({batch})
    other = copy.deepcopy(model)
    model(x).double().square().mean().backward()
    torch.compile(other, backend="effcc", dynamic={dynamic})(x).double().square().mean().backward()
    for (name, want), got in zip(model.named_parameters(), other.parameters()):
        if want.grad is not None:
            print(f"{{name}}: off by {{(got.grad - want.grad).abs().max():.3g}} of {{want.grad.abs().max():.3g}}")
"""
_NUMBERS = """
    for (name, module), dense_one in zip(model.named_modules(), before.modules()):
        if hasattr(module, "encoding"):
            off = (module.weight - dense_one.weight).abs().max()
            print(f"{name}: {module.encoding}: off by {off:.3g} of {dense_one.weight.abs().max():.3g}")
"""
_ANY = """
    from effcc.fuzz.modules.checks import judge
    from effcc.fuzz.modules.case import Block, Case

    print(judge({case!r}))
"""


def script(failure: Failure) -> str:
    """A script that shows the failure without the fuzzer, where a few lines can."""
    case = failure.case
    sizes = [n for n in case.batches if n > 1] or [2]
    shapes = "(batch,)" if case.dynamic is True else "None"
    endings = {
        "compiled": _COMPILED.format(dynamic=case.dynamic, target=case.target, batches=case.batches),
        "package": _PACKAGE.format(batch=sizes[0], shapes=shapes),
        "training": _TRAINING.format(batch=max(case.batches[0], 2), dynamic=case.dynamic),
        "numbers": _NUMBERS,
        "store": "",
    }
    title = re.sub(r'[\\"]', "'", str(failure))
    told = "".join(f"# {line}\n" for line in failure.message.splitlines()[1:25])
    ending = endings.get(failure.step, _ANY.format(case=case))
    begin = _BEGIN.format(title=title, name=f"module_{case.seed}.py", seed=case.seed)
    return f"{begin}import copy\n\n{case.text}{_STORE}{ending}\n{told}"
