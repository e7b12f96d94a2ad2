"""What can go wrong with the demonstration itself."""


class DemoError(Exception):
    """The demonstration could not be carried out as it should."""
