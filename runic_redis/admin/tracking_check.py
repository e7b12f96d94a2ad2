"""Verify the tracking records of a namespace. A damaged one cannot be derived from other data."""

from runic_redis.admin.workflow_check import Finding
from runic_redis.arguments import check_source
from runic_redis.context import Context
from runic_redis.errors import DecodeError, InvalidArgument
from runic_redis.operations.tracking import read_tracking
from runic_redis.protocol.effects import Batch, ErrorReply, Operation, key_command
from runic_redis.protocol.refusals import answer_or_foreign
from runic_redis.protocol.resp import pairs


def check_records(context: Context) -> Operation[list[Finding]]:
    """Return a finding for each damaged record."""
    key = context.keys.tracking
    command = key_command("HGETALL", key)
    (reply,) = yield Batch([command])
    found = answer_or_foreign(reply, command)
    if isinstance(found, ErrorReply):
        return [Finding("key", key, "another application has a value there")]
    findings = []
    for name, value in pairs(found):
        try:
            check_source(name.decode())
            read_tracking(value, key)
        except (UnicodeDecodeError, InvalidArgument, DecodeError):
            findings.append(
                Finding("key", key, f"it holds {value!r:.80} for {name!r:.80}, which is no tracking record")
            )
    return findings
