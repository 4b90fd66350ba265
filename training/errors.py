"""Defines what can go wrong in training without a bug. Each message is one line and says what to do."""


class TrainingError(Exception):
    """Something went wrong that can be expected; the message is for the person at the command line."""


class Interrupted(TrainingError):
    """Ctrl-C was pressed; the message says what is kept and how to go on."""


def one_line(error: object) -> str:
    """Returns what an error says as one printable line of at most 300 characters; its type where it says nothing."""
    printable = "".join(each if each.isprintable() else " " for each in str(error))
    return " ".join(printable.split())[:300] or type(error).__name__


def type_and_line(error: BaseException) -> str:
    """Returns the type of an error and, where it says something, what it says in one line."""
    name = type(error).__name__
    return f"{name}: {one_line(error)}" if str(error).strip() else name
