"""Defines what can go wrong in training without a bug. Each message is one line and says what to do."""


class TrainingError(Exception):
    """Something went wrong that can be expected; the message is for the person at the command line."""


class Interrupted(TrainingError):
    """Ctrl-C was pressed; the message says what is kept and how to go on."""
