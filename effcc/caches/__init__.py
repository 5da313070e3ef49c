"""Tensors that are stored as codes and written piece by piece: what a decoder keeps of the tokens that it has seen.

rows.py    a row of numbers as codes, by operators that models are captured with
state.py   `StoredState`: a buffer of such rows, written at places and read decoded
cache.py   `StoredCache`: transformers' keys and values in such buffers
"""
