"""The one exception that the command line turns into a clear line instead of a traceback."""


class SsahError(Exception):
    """Bad input or a missing thing; the message names the remedy."""
