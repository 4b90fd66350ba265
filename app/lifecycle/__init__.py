"""Which versions there are, which are loaded, and which answer.

May import `batching`, `http`, `admission`, `engine`, `telemetry` and `settings`. Imports no torch.
"""
