"""What ends a scoring and is one line for the person."""


class ScoringError(Exception):
    """Something must be put right first. The message is one line and says what to do."""
