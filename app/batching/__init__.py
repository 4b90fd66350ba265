"""Queues become batches.

May import `engine`, `telemetry` and `settings`. Imports no torch.
"""
