"""PyTorch programs: drawn at random as text, called through `torch.compile` in every way that users call them.

`case` is a program as a text, `draw` makes one from a seed out of the calls of `table`, with inputs of `values`; where
it is asked for (`effcc fuzz --operators`), every third one has operators that `effcc.fuzz.learned` knows by their rules
(`learned`), chained with those calls;
`calling` calls it and writes down all that a caller sees, `oracle` says what that must be, `judge` compares;
`campaign` goes on for some time, each case in a process of its own, and writes what fails as a script.
"""
