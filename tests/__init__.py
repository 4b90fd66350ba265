"""The specification: `app/`, `classifier/`, `training/` and `benchmarks/` mirror the packages, file for file.

`system/` tests several parts together, `support/` is what tests share.
"""
