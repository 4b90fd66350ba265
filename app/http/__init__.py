"""HTTP below the API: connections, exchanges, deadlines and problem documents. It knows no model and no image.

May import `engine`, `telemetry` and `settings`. Imports no torch.
"""
