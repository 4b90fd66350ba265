"""The error that a person has to put right before the server can start."""


class CannotStart(Exception):
    """The server cannot start. The message says in one line what has to be put right."""
