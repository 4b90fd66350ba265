"""What a client may ask: the routes, how their requests are read, and how their answers are written.

May import `lifecycle`, `decoding`, `batching`, `http`, `admission`, `engine`, `telemetry` and `settings`.
Imports no torch.
"""
