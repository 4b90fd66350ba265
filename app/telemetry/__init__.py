"""What the server counts and reports about itself: metrics, counters, the log.

May import no other room of `app`. Imports no torch.
"""
