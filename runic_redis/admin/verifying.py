"""Looking whether what a namespace keeps is whole and true, and setting right what can be derived from the rest.

Workflows are looked at many at once, each a page at a time, so that neither their number nor their length matters.
Writers may go on: what looks wrong in a workflow that has changed meanwhile is looked at again.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from zlib import crc32

from runic_redis.admin.keyspace import KeyScan
from runic_redis.admin.workflow_check import Finding, WorkflowCheck
from runic_redis.arguments import check_workflow_id
from runic_redis.codec import fact_matches
from runic_redis.context import Context, without_classes
from runic_redis.errors import InvalidArgument
from runic_redis.operations.settings import FORMAT, SETTINGS, count_call
from runic_redis.protocol.effects import Batch, Command, ErrorReply, Operation, call_script
from runic_redis.protocol.refusals import answer_or_foreign, ask, time_us
from runic_redis.protocol.resp import pairs
from runic_redis.protocol.scans import Scans

__all__ = ["Finding", "Verified", "Verifier"]

# How many workflows are looked at in one round trip, and how many bytes of events that aims at.
_AT_ONCE = 64
_BYTES = 8 * 1024 * 1024
# Of how many buckets facts are read in one round trip, and how many.
_BUCKETS = 8
_FACTS = 16

# What stands behind a namespace in the keys of facts, and in those of workflows and partitions.
_FACT_KEY = re.compile(r":fact:(\d{1,4})\}(?::times)?")
_KEY = re.compile(
    r":(\d{1,4})\}:(?:(events|meta|snapshot|log|commits|refs|import-[a-z]+):(.+)|index|leases|expiring|(config|partition:\d{1,4}))",
    re.DOTALL,
)


@dataclass(slots=True)
class Verified:
    """What came of looking at a part.

    Attributes:
        workflows: how many workflows were looked at.
        events: how many events were read.
        facts: how many facts were read.
        findings: what is wrong.
    """

    workflows: int = 0
    events: int = 0
    facts: int = 0
    findings: list[Finding] = field(default_factory=list)


class Verifier:
    """Looks at workflows, or at a whole namespace: its workflows, then all keys that there are, then its facts.

    Args:
        context: the store's.
        workflow_ids: the workflows; None for the whole namespace.
        repair: whether to set right what can be.
    """

    def __init__(self, context: Context, workflow_ids: Iterable[str] | None = None, *, repair: bool = False) -> None:
        self._context = without_classes(context)
        self._repair = repair
        self._named = None if workflow_ids is None else list(dict.fromkeys(map(check_workflow_id, workflow_ids)))
        self._now_ms = 0
        self._seen: set[str] = set()
        # The sorted sets in which something was found wrong: what they count is known to differ.
        self._wrong: set[str] = set()
        self._parts = self._everything() if self._named is None else self._some(self._named)

    def open(self) -> Operation[int]:
        """Read the server's time. Return about how many workflows there are to verify."""
        self._now_ms = time_us((yield from ask(Command(("TIME",), self._context.keys.config)))) // 1000
        if self._named is not None:
            return len(self._named)
        keys = self._context.keys.indexes()
        commands = [Command(("ZCARD", key), key) for key in keys]
        counts = map(answer_or_foreign, (yield Batch(commands)), commands)
        return sum(count for count in counts if not isinstance(count, ErrorReply))

    def next_part(self) -> Operation[Verified | None]:
        """Look at the next part; None when all is done."""
        part = next(self._parts, None)
        return None if part is None else (yield from part)

    def _some(self, workflow_ids: Sequence[str]) -> Iterator[Operation[Verified]]:
        for at in range(0, len(workflow_ids), _AT_ONCE):
            yield self._check(workflow_ids[at : at + _AT_ONCE])

    def _everything(self) -> Iterator[Operation[Verified]]:
        keys = self._context.keys
        # A scan shows whatever is there from its begin to its end, also what is written meanwhile.
        scored = Scans(
            Command(("ZSCAN", key, "0", "COUNT", str(_AT_ONCE)), key)
            for key in (*keys.indexes(), *keys.all_leases(), *keys.all_expiring())
        )
        found: list[str] = []
        while scored.more:
            yield self._read_scored(scored, found)
            yield from self._some(found)
        scan = KeyScan(self._context)
        while not scan.done:
            yield self._read_keys(scan, found)
            yield from self._some(found)
        yield self._check_partitions()
        buckets: list[int] = []
        yield self._find_buckets(buckets)
        for at in range(0, len(buckets), _BUCKETS):
            facts = Scans(
                Command(("HSCAN", bucket, "0", "COUNT", str(_FACTS)), bucket)
                for bucket in map(keys.bucket, buckets[at : at + _BUCKETS])
            )
            while facts.more:
                yield self._check_facts(facts)

    def _check(self, workflow_ids: Sequence[str]) -> Operation[Verified]:
        """Look at workflows."""
        checks = [
            WorkflowCheck(self._context, workflow_id, facts_too=self._named is not None) for workflow_id in workflow_ids
        ]
        at_work = checks
        while at_work:
            asked = [(check, check.commands(_BYTES // len(at_work))) for check in at_work]
            at_work = [check for check, commands in asked if commands]
            commands = [command for _, some in asked for command in some]
            replies = iter((yield Batch(commands)))
            for check, some in asked:
                if some:
                    check.receive([answer_or_foreign(next(replies), command) for command in some])
        if self._repair:
            for check in checks:
                if any(finding.repairs for finding in check.findings):
                    yield from check.repair()
        findings = [finding for check in checks for finding in check.findings]
        for finding in findings:
            of_it = self._context.keys.workflow(finding.name)
            kinds = {kind for kind, _ in finding.repairs}
            self._wrong.update(key for kind, key in (("index", of_it.index), ("leases", of_it.leases)) if kind in kinds)
        if self._named is not None:
            findings += [
                Finding("workflow", check.workflow_id, "there is no such workflow")
                for check in checks
                if not (check.there or check.findings)
            ]
        return Verified(
            workflows=sum(check.there for check in checks),
            events=sum(check.events for check in checks),
            findings=findings,
        )

    def _read_scored(self, scored: Scans, found: list[str]) -> Operation[Verified]:
        """Find workflows that stand in the partitions' sorted sets, and what stands there and should not."""
        ids: list[str] = []
        findings = []
        for command, page in (yield from scored.next_pages()):
            if isinstance(page, ErrorReply):
                findings.append(_unreadable(command.key, page))
                continue
            for member, _ in pairs(page):
                problem = ""
                try:
                    workflow_id = check_workflow_id(member.decode())
                except (UnicodeDecodeError, InvalidArgument):
                    problem = f"it holds {member!r:.80}, which is no workflow id"
                else:
                    ids.append(workflow_id)
                    keys = self._context.keys.workflow(workflow_id)
                    if command.key not in (keys.index, keys.leases, keys.expiring):
                        problem = f"it holds {workflow_id!r:.80}, which belongs to another partition"
                if problem:
                    findings.append((yield from self._take_out(command.key, member, problem)))
        found[:] = self._new(ids)
        return Verified(findings=findings)

    def _take_out(self, key: str, member: bytes, problem: str) -> Operation[Finding]:
        """Take a member out of a sorted set that it does not belong in, if it is to be repaired."""
        self._wrong.add(key)
        if self._repair:
            yield from ask(Command(("ZREM", key, member), key))
        return Finding("key", key, problem, (("member", ""),), self._repair)

    def _read_keys(self, scan: KeyScan, found: list[str]) -> Operation[Verified]:
        """Find workflows that stand in no index, and keys that belong to nobody."""
        ids: list[str] = []
        problems = []
        for key in (yield from scan.next_page()):
            workflow_id, problem = self._owner(key)
            if problem:
                problems.append(Finding("key", key.decode(errors="backslashreplace"), problem))
            elif workflow_id:
                ids.append(workflow_id)
        found[:] = self._new(ids)
        return Verified(findings=problems)

    def _new(self, workflow_ids: Iterable[str]) -> list[str]:
        """Those that have not come up before, each once."""
        new = [workflow_id for workflow_id in dict.fromkeys(workflow_ids) if workflow_id not in self._seen]
        self._seen.update(new)
        return new

    def _owner(self, key: bytes) -> tuple[str, str]:
        """The workflow that a key belongs to, if it does to one; and what is wrong with it."""
        keys = self._context.keys
        text = key.decode(errors="replace")
        fact = _FACT_KEY.fullmatch(text, len(keys.namespace) + 1)
        if text == keys.config or (fact and _is_number_below(fact[1], len(keys.bucket_numbers()))):
            return "", ""
        match = _KEY.fullmatch(text, len(keys.namespace) + 1)
        if match is None:
            return "", "it is not a key of this store"
        partition, kind, workflow_id = match[1], match[2] or "", match[3] or ""
        if match[4] and text not in {keys.config_copy, keys.partition(int(partition))}:
            return "", "it is of a namespace with another number of partitions"
        its_own = str(crc32(workflow_id.encode()) % keys.partitions) if workflow_id else partition
        if not _is_number_below(partition, keys.partitions) or partition != its_own:
            return "", "it is in the wrong partition, where nobody looks for it"
        if kind.startswith("import-"):
            return "", "it is of an import that was not finished; it goes by itself a day later, or import again"
        return workflow_id, ""

    def _check_partitions(self) -> Operation[Verified]:
        """Check that the partitions have counted what stands in their sorted sets, and that the settings are there."""
        keys = self._context.keys
        numbers = keys.partition_numbers()
        calls = [count_call(self._context, number) for number in numbers]
        findings = yield from self._check_settings()
        for number, call, reply in zip(numbers, calls, (yield Batch(calls)), strict=True):
            counts = answer_or_foreign(reply, call)
            if isinstance(counts, ErrorReply):
                findings.append(_unreadable(call.key, counts))
                continue
            made, workflows, indexed, unfinished, leased = counts
            if not (made or indexed or leased) or [workflows, unfinished] == [b"%d" % indexed, b"%d" % leased]:
                continue
            if self._repair:
                yield from ask(count_call(self._context, number, repair=True))
            if self._wrong & {keys.index(number), keys.leases(number)}:
                continue
            problem = (
                f"it counts {workflows.decode(errors='replace')} workflows and {unfinished.decode(errors='replace')} "
                f"unfinished ones, and {indexed} and {leased} are there"
            )
            findings.append(Finding("key", keys.partition(number), problem, (("count", ""),), self._repair))
        return Verified(findings=findings)

    def _check_settings(self) -> Operation[list[Finding]]:
        """Check that the namespace's settings and their copy are there and agree."""
        keys = self._context.keys
        wanted = [str(value).encode() for value in (FORMAT, keys.partitions)]
        commands = [Command(("HMGET", key, *SETTINGS), key) for key in (keys.config, keys.config_copy)]
        replies = [answer_or_foreign(*pair) for pair in zip((yield Batch(commands)), commands, strict=True)]
        if replies == [[None, None]] * 2:
            return []  # the namespace was never made, or is deleted
        findings = []
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, ErrorReply):
                findings.append(_unreadable(command.key, reply))
            elif reply == [None, None]:
                if self._repair:
                    yield from ask(call_script("make_namespace", [command.key], wanted))
                problem = "the namespace's settings are missing there"
                findings.append(Finding("key", command.key, problem, (("settings", ""),), self._repair))
            elif reply != wanted:
                findings.append(
                    Finding("key", command.key, f"its format and partitions are {reply!r:.80}, and not {wanted!r}")
                )
        return findings

    def _find_buckets(self, buckets: list[int]) -> Operation[Verified]:
        """Find the buckets that hold facts."""
        keys = self._context.keys.buckets()
        commands = [Command(("HLEN", key), key) for key in keys]
        findings = []
        for number, reply in enumerate((yield Batch(commands))):
            count = answer_or_foreign(reply, commands[number])
            if isinstance(count, ErrorReply):
                findings.append(_unreadable(keys[number], count))
            elif count:
                buckets.append(number)
        return Verified(findings=findings)

    def _check_facts(self, scans: Scans) -> Operation[Verified]:
        """Look at facts: are they true to their hashes, and is their age known?"""
        facts: list[tuple[bytes, bytes]] = []
        findings = []
        for scan, page in (yield from scans.next_pages()):
            if isinstance(page, ErrorReply):
                findings.append(_unreadable(scan.key, page))
                continue
            for fact, data in pairs(page):
                facts.append((fact, data))
                if self._context.keys.fact(fact)[0] != scan.key:
                    name = fact.decode(errors="backslashreplace")
                    findings.append(Finding("fact", name, f"it is in the bucket {scan.key}, where nobody looks for it"))
        commands = [
            Command(("ZSCORE", times, fact), times) for fact, _ in facts for _, times in [self._context.keys.fact(fact)]
        ]
        for (fact, data), command, reply in zip(facts, commands, (yield Batch(commands)), strict=True):
            age = answer_or_foreign(reply, command)
            name = fact.decode(errors="backslashreplace")
            if not fact_matches(fact, data):
                findings.append(Finding("fact", name, "it is damaged, or not what its hash stands for"))
            if isinstance(age, ErrorReply):
                findings.append(Finding("fact", name, f"its age, at {command.key}, cannot be read: {age.message}"))
            elif age is None:
                repaired = yield from self._give_age(fact)
                findings.append(
                    Finding("fact", name, "its age is not known: it is never collected", (("times", "now"),), repaired)
                )
        return Verified(facts=len(facts), findings=findings)

    def _give_age(self, fact: bytes) -> Operation[bool]:
        """Take a fact for written now."""
        if not self._repair:
            return False
        _, times = self._context.keys.fact(fact)
        yield from ask(Command(("ZADD", times, "NX", str(self._now_ms * 1000), fact), times))
        return True


def _unreadable(key: str, reply: ErrorReply) -> Finding:
    return Finding("key", key, f"it cannot be read: {reply.code} {reply.message}")


def _is_number_below(text: str, limit: int) -> bool:
    """Whether a part of a key is a number as keys have it."""
    return int(text) < limit and str(int(text)) == text
