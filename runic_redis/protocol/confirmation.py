"""Confirms that a write is as durable as its caller requires.

`WAIT` and `WAITAOF` report whether replicas and disk have the last write of the same connection. If an earlier try over
another connection stored a commit, the retry writes nothing on this one, and the server would confirm it in any case.
So where that is possible, the retry writes something first: see lua/touch.lua.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from runic_redis.protocol.effects import TRANSIENT, Argument, Confirmation, ErrorReply
from runic_redis.protocol.resp import pairs
from runic_redis.protocol.scripts import load_script

_SETTINGS = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}


class Confirming(NamedTuple):
    """The commands that confirm a round, sent behind it on the same connection, and the meaning of their replies.

    Attributes:
        by: what has to confirm the round.
        wait_ms: the longest time that the server waits for that.
        touch: whether some commands of the round may have written nothing.
    """

    by: Confirmation
    wait_ms: int
    touch: bool

    def commands(self, key: str) -> list[tuple[Argument, ...]]:
        """Return the commands to send. `key` is that of one command of the round, and decides the slot."""
        if self.by.by_settings:
            return [("CONFIG", "GET", "*append*")]
        touches: list[tuple[Argument, ...]] = []
        if self.touch:
            touches.append(("EVAL", load_script("touch").text, "1", key.partition("}")[0] + "}:touch"))
        if self.by.fsync:
            return [*touches, ("WAITAOF", "1", str(self.by.replicas), str(self.wait_ms))]
        return [*touches, ("WAIT", str(self.by.replicas), str(self.wait_ms))]

    def shortfall(self, replies: Sequence[Any]) -> tuple[str, bool]:
        """Return what is missing, or '' if nothing is; and whether a retry may help.

        Args:
            replies: those to `commands`: values, and `ErrorReply`s.
        """
        for reply in replies:
            if isinstance(reply, ErrorReply):
                return reply.text, reply.code in TRANSIENT
        if self.by.by_settings:
            return unlike_settings(replies[-1]), False
        wanted = self.by.replicas
        synced, replicas = replies[-1] if self.by.fsync else (1, replies[-1])
        if not synced:
            return f"the server did not sync its append-only file within {self.wait_ms} ms", True
        if replicas < wanted:
            have = "had it on disk" if self.by.fsync else "had it"
            return f"after {self.wait_ms} ms {replicas} of {wanted} replicas {have}", True
        return "", True


def unlike_settings(reply: Any) -> str:
    """Return the settings that a server needs to sync each write to disk before its reply, and does not have."""
    found = {_text(name): _text(value) for name, value in pairs(reply)}
    wrong = [f"{name} is {found.get(name)!r}" for name, value in _SETTINGS.items() if found.get(name) != value]
    return " and ".join(wrong)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")
