"""A candidate's formula: read from its source where that is straight-line arithmetic, checked by numbers, written out.

`reader.read_formula` gives a `tree.Formula` or says why there is none; `tree.evaluate` computes it without running the
candidate, so that it can be compared with what the candidate computes; `writer` writes it as LaTeX and as plain text.
"""
