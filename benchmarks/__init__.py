"""Measurements of the system itself: `python -m benchmarks.NAME`. Ratios within one run; never part of the tests."""
