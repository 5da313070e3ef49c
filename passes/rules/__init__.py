"""Algebraic simplification by rules that are text: `*.rules`, one theme a file, each with its reason and its claim.

    # Two views are one.
    rule merge_reshapes [exact]:
        reshape(reshape(%x) {shape=s}) {shape=t}  =>  reshape(%x) {shape=t}

To add a rule, write it in its theme's file with a line saying why. `python -m effcc.passes.rules.check` then draws
instances of it and holds it to its claim; nobody writes a test. If its conditions need a new name, add it with a
proposal to `tensor_conditions` or `attribute_conditions`; if an attribute must be computed, add a function to
`functions`; if an op is written in terms of others, say so in an `order:` line, which is what makes rewriting end
(`termination`).

A claim says what holds for all finite inputs, from the smallest denormal to the largest number:

    exact               the same arithmetic, so the same bits
    approximate(n ulp)  within n units in the last place of the pattern in exact arithmetic
    reorders            the same products, summed in another order: the difference is at most as many roundings of the
                        sum of their magnitudes as there are terms; where that sum is finite, so is the result
    reassociates        the same in exact arithmetic only: an intermediate value may overflow, underflow or be rounded
                        where the pattern's does not, or no longer (`(x + 1e8) + -1e8` would become `x`)

The last kind waits for the option `fast_math`; the others always run.
"""
