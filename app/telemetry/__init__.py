"""What the server counts and says of itself: metrics, counters, the log.

May import no other room of `app`. Imports no torch.
"""
