"""The only modules that know redis-py: they move an operation's commands and replies, and decide nothing."""
