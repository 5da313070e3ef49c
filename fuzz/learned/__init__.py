"""Operators learned from calls: what they ask of sizes and what sizes their results have, inferred from examples.

After Liu et al., "NeuRI: Diversifying DNN Generation via Inductive Rule Inference" (ESEC/FSE 2023). `sources` runs
PyTorch's operator samples and models and writes down which operators they call; `explore` calls each again with sizes,
numbers and dtypes changed and sees what eager accepts; `record` is such a call, `record_file` a file of them. `infer`
finds preconditions and shapes as small expressions (`candidates`, `shapes`) and keeps what holds on records that it has
not seen; `rule` is the outcome, `rule_file` its text, `solve` finds sizes that a rule accepts. `operators.txt` is what
the command below learned; `effcc fuzz --operators shipped` draws programs with it (`effcc.fuzz.programs.learned`).

    effcc fuzz trace --from opdb,models -o calls.trace --operators operators.txt
"""
