"""What can go wrong in training that is not a bug: each message is one line and says what to do."""


class TrainingError(Exception):
    """Expected trouble, in words for the person at the command line."""


class Interrupted(TrainingError):
    """Ctrl-C; the message says what stands and how to go on."""
