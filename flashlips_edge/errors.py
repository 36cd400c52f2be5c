"""The one error a user may see, a sentence; and other errors in a line."""


class UserError(Exception):
    """A mistake that the user can mend; ``str(error)`` is one sentence naming argument, value and what is allowed."""


def reason(error: Exception) -> str:
    """The error in one line; its kind too where it is not a sentence of ours."""
    words = " ".join(str(error).split())
    return words if isinstance(error, UserError) else f"{type(error).__name__}: {words}"
