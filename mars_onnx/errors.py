"""What can go wrong, as exceptions that carry the exit code of the command line.

Every message is for a person: the file, the place in it, what is wrong and what would be right. User errors are
raised as one of these; anything else that escapes is a bug in mars_onnx.
"""


class MarsError(Exception):
    """Base of all errors with a message for the user.

    Attributes:
        exit_code: What the command line exits with.
    """

    exit_code = 1


class InputError(MarsError):
    """A model, pool, mapping or partition folder is missing, malformed or not supported."""


class UsageError(MarsError):
    """The command was called wrongly: an option, its value, or the output folder."""

    exit_code = 2


class CapacityError(MarsError):
    """The model does not fit the pool."""

    exit_code = 3


class VerificationError(MarsError):
    """The partitions do not compute what the original computes."""

    exit_code = 4


class RunError(MarsError):
    """A partition failed while running; the message names accelerator and node."""


class InvariantError(MarsError):
    """A stage of the pipeline left something illegal: a bug in a pass, named in the message."""
