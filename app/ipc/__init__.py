"""The seam over a unix socket: frames, connections, and the engine that lives in another process.

May import `lifecycle`, `decoding`, `batching`, `http`, `admission`, `engine`, `telemetry` and `settings`.
Imports no torch.
"""
