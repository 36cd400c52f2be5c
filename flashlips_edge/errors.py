"""The one error a user may see: a sentence."""


class UserError(Exception):
    """A mistake that the user can mend; ``str(error)`` is one sentence naming argument, value and what is allowed."""
