"""Bytes become pixels.

May import `batching`, `http`, `admission`, `engine`, `telemetry` and `settings`. Imports no torch.
"""
