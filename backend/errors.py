"""The one exception whose text a visitor reads. Any other exception that reaches the runner is our bug."""


class UserError(Exception):
    """One sentence for the user: what was asked, what was found, what to do."""
