"""Pixels become rows. The only room with torch.

May import `lifecycle`, `decoding`, `batching`, `http`, `admission`, `engine`, `telemetry` and `settings`.
"""
