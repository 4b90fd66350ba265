"""Why the container cannot be tried here."""


class CannotCheck(Exception):
    """This machine lacks something. The message is one line that says what."""
