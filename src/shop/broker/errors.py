"""The one error of this package."""


class BrokerError(Exception):
    """What went wrong and what to do about it, in one line that can be shown to a user as it is."""
