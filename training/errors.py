"""Defines what can go wrong in training without a bug. Each message is one line and says what to do."""


class TrainingError(Exception):
    """Something went wrong that can be expected; the message is for the person at the command line."""


class Interrupted(TrainingError):
    """Ctrl-C was pressed; the message says what is kept and how to go on."""


class SaidElsewhere(TrainingError):
    """Another process of the same run has said already what went wrong."""


def shortened(text: str) -> str:
    """Returns a text as one printable line of at most 300 characters."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:300]


def one_line(error: BaseException) -> str:
    """Returns what an error says, shortened; its type where it says nothing."""
    return shortened(str(error)) or type(error).__name__


def type_and_line(error: BaseException) -> str:
    """Returns the type of an error and, where it says something, what it says, shortened."""
    return f"{type(error).__name__}: {shortened(str(error))}".removesuffix(": ")
