"""How weights are stored, drawn at random: notations from their declarations, and calls of `effcc` with them."""

from __future__ import annotations

from random import Random

from effcc.ir.encodings.registry import DECLARATIONS

METHODS = ("gptq", "quantease", "awq", "smoothquant", "hadamard", "awq+gptq", "hadamard+gptq")
EVERY = "where=lambda _, m: isinstance(m, (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d))"
MATRICES = "where=lambda _, m: isinstance(m, (nn.Linear, nn.Embedding))"
DATA = "data=[inputs(3, 1), inputs(2, 2)]"


def storing(random: Random, linear: bool) -> tuple[str, ...]:
    """Calls that store a model's weights, one after the other; for models without nn.Linear, those of any weights."""
    every = (_values, _integers, _trained)
    ways = (_values, _values, _values, _sparse, _sums, _integers, _trained, _budget) if linear else every
    calls = random.choice(ways)(random)
    return tuple(calls if linear else [c if "where=" in c else f"{c[:-1]}, {EVERY})" for c in calls])


def values(random: Random) -> str:
    """A notation of values: a sample of its declaration, or integers with options of any kind."""
    if random.random() < 0.5:
        found = random.choice([d for d in DECLARATIONS.values() if d.kind == "values"])
        return random.choice(found.samples)
    options = []
    group = random.choice((0, 0, 1, 3, 5, 8, 16, 32, 100))
    if group:
        options.append(f"group={group}")
    elif random.random() < 0.3:
        options.append(random.choice(('per="tensor"', 'per="channel"')))
    options += random.choice(((), (), ("zero=true",), ("minimum=true",)))
    scale = random.choice(("", "", "f16", "bf16", "f32", "e8", "u6", "i8", "u4"))
    if scale and (group or scale not in ("u6", "i8", "u4")):
        options.append(f'scale="{scale}"')
    name = f"int{random.randint(2, 8)}"
    return f"{name}({','.join(options)})" if options else name


def level(random: Random) -> str:
    """A notation of a level that leaves elements out."""
    found = random.choice([d for d in DECLARATIONS.values() if d.kind == "level" and not d.whole and d.name != "dense"])
    return random.choice([s for s in found.samples if not s.startswith("outliers")] or ["csr"])


def _values(random: Random) -> list[str]:
    scheme = values(random)
    how = random.random()
    if how < 0.1:
        return [f"effcc.quantize(model, {f'reorder . {scheme}'!r}, {MATRICES})"]
    if how < 0.4:
        return [f"effcc.quantize(model, {scheme!r}, {EVERY})"]
    if how < 0.6:
        return [f'effcc.quantize(model, {{"*a": {values(random)!r}, "*": {scheme!r}}}, {EVERY})']
    method = random.choice(METHODS)
    return [f"effcc.quantize(model, {scheme!r}, method={method!r}, {DATA})"]


def _sparse(random: Random) -> list[str]:
    density = random.choice((0.01, 0.2, 0.5, 1.0))
    how = random.choice(("", "", f", method='wanda', {DATA}", f", method='sparsegpt', {DATA}"))
    chosen = random.choice(("", f", {MATRICES}"))
    wanted = level(random)
    kept = "" if wanted.startswith("nm") else f", density={density}"
    pruned = f"effcc.sparsify(model, {wanted!r}{kept}{how}{chosen})"
    rounded = f"effcc.quantize(model, {values(random)!r}{chosen})"
    return random.choice(([pruned], [pruned, rounded], [rounded, pruned]))


def _sums(random: Random) -> list[str]:
    if random.random() < 0.4:
        scheme = random.choice(("low_rank(1)", f"low_rank(2) + {values(random)}"))
        return [f"effcc.factorize(model, {scheme!r}{random.choice(('', ', ' + DATA))})"]
    first = random.choice(("outliers(2)", "low_rank(1)", "csr(share=0.1)", "monarch(2)", "low_rank(1) . int8"))
    return [f"effcc.quantize(model, {f'{first} + {values(random)}'!r})"]


def _integers(random: Random) -> list[str]:
    per = random.choice(("", ', per="tensor"')).strip(", ")
    scheme = f"int8({per})" if per else "int8"
    bits = random.choice(("int8", "int8", "int7"))
    if random.random() < 0.4:
        return [f"effcc.quantize(model, {scheme!r}, activations='{bits}(per=\"token\")')"]
    how = random.choice(("", "(zero=true)", '(range="percentile")', '(zero=true,range="mse")'))
    return [f"effcc.quantize(model, {scheme!r}, activations={bits + how!r}, {DATA})"]


def _trained(random: Random) -> list[str]:
    scheme = values(random)
    return [f"effcc.quantize_aware(model, {scheme!r})", f"effcc.quantize(model, {scheme!r})"]


def _budget(random: Random) -> list[str]:
    wanted = [values(random) for _ in range(2)]
    solver = random.choice(("cp-sat", "dynamic", "evolutionary"))
    minutes = random.choice((0, 0.02))
    held = "sum(t.nbytes for t in model.state_dict().values())"
    return [
        f"effcc.compress(model, bytes={random.choice((0.7, 0.95))} * {held}, {DATA}, schemes={wanted}, "
        f"solver={solver!r}, minutes={minutes}, progress=False)"
    ]
