"""The seam between HTTP and models: the protocol, the plain data that crosses it, and its errors.

May import `telemetry` and `settings`. Imports no torch.
"""
