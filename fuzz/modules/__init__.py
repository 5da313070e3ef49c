"""PyTorch modules whose weights are stored: drawn at random, stored, called in every way that users call them.

`case` is a module as a text, `draw` makes one from a seed (`storing` draws how its weights are stored), `checks` says
how it is wrong, `campaign` goes on for some time, each case in a process of its own, and writes what fails as a script.
"""
