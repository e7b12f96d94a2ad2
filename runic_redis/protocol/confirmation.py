"""What confirms a write to be as durable as was asked for, and what the replies to it mean.

`WAIT` and `WAITAOF` tell whether replicas and disk have what their own connection wrote last. A write that was stored
by an earlier try over another connection has written nothing on this one, and they would confirm it whatever the
replicas have. Where that may be, something is written first: see lua/touch.lua.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runic_redis.protocol.effects import TRANSIENT, Argument, Confirmation, ErrorReply
from runic_redis.protocol.scripts import load_script

__all__ = ["Confirming", "unlike_settings"]

_SETTINGS = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}


@dataclass(frozen=True, slots=True)
class Confirming:
    """What is sent behind the commands of a round, on the same connection, and what the replies to it mean.

    Attributes:
        by: what has to confirm them.
        wait_ms: how long the server is to wait for that.
        touch: whether some of them may have written nothing.
    """

    by: Confirmation
    wait_ms: int
    touch: bool

    def commands(self, key: str) -> list[tuple[Argument, ...]]:
        """What is sent; `key` is that of one of the commands, and decides about the slot."""
        if self.by.by_settings:
            return [("CONFIG", "GET", "*append*")]
        touches: list[tuple[Argument, ...]] = []
        if self.touch:
            touches.append(("EVAL", load_script("touch").text, "1", key.partition("}")[0] + "}:touch"))
        if self.by.fsync:
            return [*touches, ("WAITAOF", "1", str(self.by.replicas), str(self.wait_ms))]
        return [*touches, ("WAIT", str(self.by.replicas), str(self.wait_ms))]

    def shortfall(self, replies: Sequence[Any]) -> tuple[str, bool]:
        """What is missing, or '' if nothing is; and whether asking again may help.

        Args:
            replies: to what was sent: values, and `ErrorReply`s.
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
    """Which settings are not those of a server that syncs every write to disk before it answers."""
    pairs = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
    found = {_text(name): _text(value) for name, value in pairs}
    wrong = [f"{name} is {found.get(name)!r}" for name, value in _SETTINGS.items() if found.get(name) != value]
    return " and ".join(wrong)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")
