"""Mutated programs, after Tzer (Liu et al., "Coverage-Guided Tensor Compiler Fuzzing with Joint IR-Pass Mutation",
OOPSLA 2022, arXiv:2202.09947): graphs and passes are changed together, and what reaches something new is changed again.
"""
