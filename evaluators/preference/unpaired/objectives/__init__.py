"""Known objectives of single labelled responses, one file each, in exactly the form a candidate has.

A file here is read as text, gated, probed and run in the oracle child like any candidate; it is never imported.
"""
