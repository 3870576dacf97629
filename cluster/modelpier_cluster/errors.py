"""The one exception that the command line turns into a message and an exit status of 1."""


class ClusterError(Exception):
    """Something that the user can act on: the message names what is wrong and the remedy."""
