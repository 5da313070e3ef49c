"""Algebraic simplification by rules that are text: `*.rules`, one theme a file, each with its reason and its claim.

    # Two views are one.
    rule merge_reshapes [exact]:
        reshape(reshape(%x) {shape=s}) {shape=t}  =>  reshape(%x) {shape=t}

To add a rule, write it in its theme's file with a line saying why. `python -m effcc.passes.rules.check` then draws
instances of it and holds it to its claim; nobody writes a test. If its conditions need a new name, add it with a
proposal to `tensor_conditions` or `attribute_conditions`; if an attribute must be computed, add a function to
`functions`; if an op is written in terms of others, say so in an `order:` line, which is what makes rewriting end
(`termination`).

A claim is `exact` (the same bits), `approximate(n ulp)` (nearer to the pattern in exact arithmetic than n units in the
last place) or `reassociates` (the same in exact arithmetic; the rounding is that of another order).
"""
