"""The one exception that stands for a mistake of the user's."""


class UserError(Exception):
    """Something the user can put right: a bad file, value, preference or option.

    The message is one line that says what is wrong, where (file, column, row, value) and what to
    do. Command lines print it without a traceback and exit with code 2.
    """


class TrainingError(Exception):
    """Training can't go on (a loss that is not finite, a lost process); says at which step."""


class Preempted(BaseException):
    """SIGTERM came: what is done is saved, the same command goes on from it.

    As `KeyboardInterrupt`, no error: code that deals with any error must not take it for one.
    """
