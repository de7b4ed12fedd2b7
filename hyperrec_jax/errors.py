"""The one exception that stands for a mistake of the user's."""


class UserError(Exception):
    """Something the user can put right: a bad file, value, preference or option.

    The message is one line that says what is wrong, where (file, column, row, value) and what to
    do. Command lines print it without a traceback and exit with code 2.
    """


class TrainingError(Exception):
    """Training can't go on (a loss that is not finite, a lost process); says at which step."""


class Preempted(Exception):  # noqa: N818 - an order to stop, no error
    """SIGTERM came: the state is saved, the same command goes on from it."""
