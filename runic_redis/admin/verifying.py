"""Verify that the data of a namespace is complete and consistent, and repair what can be derived from other data.

Many workflows are verified at a time, each a page at a time, so that neither their number nor their length matters.
Writers may be active: a workflow that changed while it was read is read again before it is judged. If the server fails
over meanwhile, the run may miss something, because the cursor of a scan fits one server only. Verify again then.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from runic_redis.admin.feed_check import FeedCheck
from runic_redis.admin.index_check import IndexCheck
from runic_redis.admin.keyspace import KeyScan
from runic_redis.admin.label_check import check_members
from runic_redis.admin.tracking_check import check_records
from runic_redis.admin.workflow_check import Finding, WorkflowCheck, queue_name, set_key
from runic_redis.arguments import check_workflow_id
from runic_redis.codec import fact_matches
from runic_redis.context import Context, without_classes
from runic_redis.errors import InvalidArgument
from runic_redis.operations.settings import FORMAT, SETTINGS, PartitionCounts, count_call, make_call
from runic_redis.protocol.effects import Batch, Command, ErrorReply, Operation, call_script, key_command
from runic_redis.protocol.refusals import answer_or_foreign, ask, server_us
from runic_redis.protocol.resp import pairs
from runic_redis.protocol.scans import Scans

# How many workflows are read in one round trip, and about how many bytes of events.
_AT_ONCE = 64
_BYTES = 8 * 1024 * 1024
# How many buckets are read in one round trip, and how many facts of each.
_BUCKETS = 8
_FACTS = 16

# The sorted sets whose members are counted.
_COUNTED = frozenset({"index", "completed", "parked"})
# The keys of facts, and those of workflows and partitions, behind the name of the namespace.
_FACT_KEY = re.compile(r":fact:(\d{1,4})\}(?::times)?")
_KEY = re.compile(
    r":(\d{1,4})\}:(?:(events|meta|snapshot|log|commits|refs|inbox|messages|tags|import-[a-z]+):(.+)"
    r"|index|leases|queues|queue:([^ ]+)|parked|expiring|completed|(config|feed|tags|partition:\d{1,4}(?::feed)?)"
    r"|(?P<label>attribute:[^=]+=.*|children:.+)"
    r"|(?:subscription|parked):[^:]+|projection:[^:]+(?::next)?)",
    re.DOTALL,
)


@dataclass(slots=True)
class Verified:
    """The result of verifying a part of a namespace.

    Attributes:
        workflows: how many workflows were read.
        events: how many events were read.
        facts: how many facts were read.
        findings: the damage that was found.
    """

    workflows: int = 0
    events: int = 0
    facts: int = 0
    findings: list[Finding] = field(default_factory=list)


class Verifier:
    """A verification of some workflows, or of a whole namespace: its workflows, all of its keys, its feed, its facts.

    Args:
        context: the store's.
        workflow_ids: the workflows; None for the whole namespace.
        repair: whether to repair what can be derived from other data.
    """

    def __init__(self, context: Context, workflow_ids: Iterable[str] | None = None, *, repair: bool = False) -> None:
        self._context = without_classes(context)
        self._repair = repair
        self._named = None if workflow_ids is None else list(dict.fromkeys(map(check_workflow_id, workflow_ids)))
        self._now_ms = 0
        self._seen: set[str] = set()
        # The sorted sets with damage. Their sizes differ from the partition's counts, which is not reported again.
        self._wrong: set[str] = set()
        # The names of the queues of partitions, by the partitions' numbers.
        self._queues: dict[int, list[str]] = {}
        # The keys of queues that were found, and that no partition counts.
        self._unlisted: set[str] = set()
        # The names of the queues in which workflows were found although their meta hashes do not name them.
        self._strays: dict[str, list[str]] = {}
        # The keys of the sets of workflows with attributes and with parents that were found.
        self._label_keys: list[str] = []
        self._parts = self._everything() if self._named is None else self._some(self._named)

    def open(self) -> Operation[int]:
        """Read the server's time. Return about how many workflows there are to verify."""
        self._now_ms = (yield from server_us(self._context.keys.config)) // 1000
        if self._named is not None:
            return len(self._named)
        keys = self._context.keys.indexes()
        replies = yield from _replies([key_command("ZCARD", key) for key in keys])
        return sum(count for _, count in _readable(replies, []))

    def next_part(self) -> Operation[Verified | None]:
        """Verify the next part; return None after the last."""
        part = next(self._parts, None)
        return None if part is None else (yield from part)

    def _some(self, workflow_ids: Sequence[str]) -> Iterator[Operation[Verified]]:
        for at in range(0, len(workflow_ids), _AT_ONCE):
            yield self._check(workflow_ids[at : at + _AT_ONCE])

    def _everything(self) -> Iterator[Operation[Verified]]:
        keys = self._context.keys
        # A scan returns every member that is present from its start to its end, however much is written meanwhile,
        # unless the server fails over.
        found: list[str] = []
        yield self._find_queues(keys.partition_numbers())
        queues = Scans(
            key_command("ZSCAN", keys.queue(number, name), "0", "COUNT", str(_AT_ONCE))
            for number, names in self._queues.items()
            for name in names
        )
        while queues.more:
            yield self._read_queues(queues)
        yield from self._some(self._new(self._strays))
        away = map(keys.parked_workflows, keys.partition_numbers())
        scored = Scans(
            key_command("ZSCAN", key, "0", "COUNT", str(_AT_ONCE))
            for key in (*keys.indexes(), *keys.all_leases(), *away, *keys.all_expiring(), *keys.all_completed())
        )
        while scored.more:
            yield self._read_scored(scored, found)
            yield from self._some(found)
        scan = KeyScan(self._context)
        while not scan.done:
            yield self._read_keys(scan, found)
            yield from self._some(found)
        labelled = Scans(key_command("ZSCAN", key, "0", "COUNT", str(_AT_ONCE)) for key in self._label_keys)
        while labelled.more:
            yield self._read_labels(labelled)
        yield self._check_partitions()
        for number in keys.partition_numbers() if keys.has_feed else ():
            check = FeedCheck(self._context, number, repair=self._repair)
            yield from (_checked(check, step) for step in check.steps())
        if keys.tagged is not None:
            index = IndexCheck(self._context, sorted(self._seen), repair=self._repair)
            yield from (_checked(index, step) for step in index.steps())
        buckets: list[str] = []
        yield self._find_buckets(buckets)
        for at in range(0, len(buckets), _BUCKETS):
            facts = Scans(
                key_command("HSCAN", bucket, "0", "COUNT", str(_FACTS)) for bucket in buckets[at : at + _BUCKETS]
            )
            while facts.more:
                yield self._check_facts(facts)

    def _check(self, workflow_ids: Sequence[str]) -> Operation[Verified]:
        """Verify workflows, together."""
        named = self._named is not None
        findings: list[Finding] = []
        if named:
            numbers = sorted(set(map(self._context.keys.partition_of, workflow_ids)))
            findings = (yield from self._find_queues(numbers)).findings
        checks = [
            WorkflowCheck(self._context, one, facts_too=named, queues=self._other_queues(one)) for one in workflow_ids
        ]
        at_work = checks
        while at_work:
            asked = [(check, check.commands(_BYTES // len(at_work))) for check in at_work]
            at_work = [check for check, commands in asked if commands]
            commands = [command for _, some in asked for command in some]
            replies = iter((yield Batch(commands)))
            for check, some in asked:
                if some:
                    check.receive([answer_or_foreign(next(replies), command) for command in some], some)
        if self._repair:
            for check in checks:
                if any(finding.repairs for finding in check.findings):
                    yield from check.repair()
        for finding in (found := [finding for check in checks for finding in check.findings]):
            of_it = self._context.keys.workflow(finding.name)
            kinds = {kind for kind, _ in finding.repairs if kind in _COUNTED or kind.startswith("queue:")}
            self._wrong.update(set_key(of_it, kind) for kind in kinds)
        findings += found
        if named:
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

    def _other_queues(self, workflow_id: str) -> Sequence[str]:
        """Return the names of queues that a workflow may be in, although its meta hash does not name them."""
        if self._named is None:
            return self._strays.get(workflow_id, ())
        return self._queues.get(self._context.keys.partition_of(workflow_id), ())

    def _find_queues(self, numbers: Iterable[int]) -> Operation[Verified]:
        """Find the queues of partitions."""
        findings: list[Finding] = []
        places = {self._context.keys.queues(number): number for number in numbers}
        for command, names in _readable((yield from _replies([key_command("HKEYS", key) for key in places])), findings):
            self._queues[places[command.key]] = []
            for name in names:
                if (text := queue_name(name)) is not None:
                    self._queues[places[command.key]].append(text)
                elif name != b"leased at":
                    findings.append(Finding("key", command.key, f"it holds {name!r:.80}, which is no name of a queue"))
        return Verified(findings=findings)

    def _read_queues(self, scans: Scans) -> Operation[Verified]:
        """Find the workflows that are in queues that their meta hashes do not name."""
        findings: list[Finding] = []
        members: list[tuple[str, str]] = []
        for key, workflow_id in (yield from self._members(scans, findings)):
            members.append((key, workflow_id))
        keys = [self._context.keys.workflow(workflow_id) for _, workflow_id in members]
        replies = yield from _replies([key_command("HGET", one.meta, "queue") for one in keys])
        for (key, workflow_id), one, (_, name) in zip(members, keys, replies, strict=True):
            queue = key.removeprefix(one.queue(""))
            if isinstance(name, ErrorReply) or name != queue.encode():
                self._strays.setdefault(workflow_id, []).append(queue)
        return Verified(findings=findings)

    def _read_scored(self, scored: Scans, found: list[str]) -> Operation[Verified]:
        """Find the workflows in the partitions' sorted sets, and the members that do not belong there."""
        findings: list[Finding] = []
        found[:] = self._new([workflow_id for _, workflow_id in (yield from self._members(scored, findings))])
        return Verified(findings=findings)

    def _read_labels(self, scans: Scans) -> Operation[Verified]:
        """Find the workflows in sets of attributes and parents that they do not have."""
        findings: list[Finding] = []
        members = yield from self._members(scans, findings)
        findings += yield from check_members(self._context, members, repairing=self._repair)
        return Verified(findings=findings)

    def _members(self, scored: Scans, findings: list[Finding]) -> Operation[list[tuple[str, str]]]:
        """Return the workflows in the next pages, each with the key where it is. Report and remove other members."""
        members: list[tuple[str, str]] = []
        for command, page in _readable((yield from scored.next_pages()), findings):
            for member, _ in pairs(page):
                problem = ""
                try:
                    workflow_id = check_workflow_id(member.decode())
                except (UnicodeDecodeError, InvalidArgument):
                    problem = f"it holds {member!r:.80}, which is no workflow id"
                else:
                    keys = self._context.keys.workflow(workflow_id)
                    if not command.key.startswith(keys.index.removesuffix("index")):
                        problem = f"it holds {workflow_id!r:.80}, which belongs to another partition"
                if problem:
                    findings.append((yield from self._remove_member(command.key, member, problem)))
                else:
                    members.append((command.key, workflow_id))
        return members

    def _remove_member(self, key: str, member: bytes, problem: str) -> Operation[Finding]:
        """Report a member that does not belong in a sorted set, and remove it when repairing."""
        self._wrong.add(key)
        if self._repair:
            yield from ask(key_command("ZREM", key, member))
        return Finding("key", key, problem, (("member", ""),), self._repair)

    def _read_keys(self, scan: KeyScan, found: list[str]) -> Operation[Verified]:
        """Find the workflows that no index lists, and the keys that belong to no workflow."""
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
        """Return the workflows that were not returned before, each once."""
        new = [workflow_id for workflow_id in dict.fromkeys(workflow_ids) if workflow_id not in self._seen]
        self._seen.update(new)
        return new

    def _owner(self, key: bytes) -> tuple[str, str]:
        """Return the workflow that a key belongs to, or "", and the problem of the key, or ""."""
        keys = self._context.keys
        text = key.decode(errors="replace")
        fact = _FACT_KEY.fullmatch(text, len(keys.namespace) + 1)
        is_alone = text in {keys.config, keys.subscriptions, keys.tracking} or text.startswith(keys.consumers(""))
        if is_alone or (fact and _is_number_below(fact[1], len(keys.bucket_numbers()))):
            return "", ""
        match = _KEY.fullmatch(text, len(keys.namespace) + 1)
        if match is None or not _is_queue_or_other(match[4], key) or (match["label"] and text.encode() != key):
            return "", "it is not a key of this store"
        partition, kind, workflow_id = match[1], match[2] or "", match[3] or ""
        shared = {keys.config_copy, keys.partition(int(partition)), keys.feed(int(partition)) if keys.has_feed else ""}
        shared.add(keys.tagged or "")
        if match[5] and text not in shared:
            return "", "it is of a namespace with other partitions, or with another feed setting"
        its_own = str(keys.partition_of(workflow_id)) if workflow_id else partition
        if not _is_number_below(partition, keys.partitions) or partition != its_own:
            return "", "it is in the wrong partition, where no reader looks for it"
        if kind.startswith("import-"):
            return "", "it belongs to an unfinished import, and expires a day later; or import again"
        if match["label"]:
            self._label_keys.append(text)
        names = self._queues.setdefault(int(partition), [])
        if match[4] and match[4] not in names:
            names.append(match[4])
            self._unlisted.add(text)
        return workflow_id, ""

    def _check_partitions(self) -> Operation[Verified]:
        """Check that the partitions' counts agree with their sorted sets, and that the settings exist."""
        keys = self._context.keys
        numbers = {keys.partition(number): number for number in keys.partition_numbers()}
        calls = [count_call(self._context, number) for number in numbers.values()]
        findings = yield from self._check_settings()
        findings += yield from check_records(self._context)
        yield from self._check_queues(findings)
        for call, reply in _readable((yield from _replies(calls)), findings):
            number = numbers[call.key]
            counts = PartitionCounts(*reply)
            if counts.agree or not (counts.made or counts.indexed or counts.away or counts.done):
                continue
            if self._repair:
                yield from ask(count_call(self._context, number, "repair"))
            if self._wrong & {keys.index(number), keys.parked_workflows(number), keys.completed(number)}:
                continue
            counted = [one.decode(errors="replace") for one in (counts.workflows, counts.parked, counts.completed)]
            problem = (
                f"it counts {counted[0]} workflows, {counted[1]} parked and {counted[2]} completed ones, and has "
                f"{counts.indexed}, {counts.away} and {counts.done}"
            )
            findings.append(Finding("key", call.key, problem, (("count", ""),), self._repair))
        return Verified(findings=findings)

    def _check_queues(self, findings: list[Finding]) -> Operation[None]:
        """Check that the partitions' queues have as many workflows as are counted."""
        keys = self._context.keys
        places = [(number, names) for number, names in self._queues.items() if names]
        calls = [
            call_script(
                "find_due", [key for name in names for key in (keys.queue(number, name), keys.queues(number))], ["0"]
            )
            for number, names in places
        ]
        for (number, names), (_, reply) in zip(places, (yield from _replies(calls)), strict=True):
            # The hash of the counts cannot be read, which is reported already.
            wrong = [] if isinstance(reply, ErrorReply) else reply[2]
            lost = [names[place - 1] for place, _, size in wrong if isinstance(size, int)]
            for place, counted, size in wrong:
                key = keys.queue(number, names[place - 1])
                what = counted.decode(errors="replace")
                if size == b"queue" and key in self._unlisted:
                    findings.append(Finding("key", key, f"it cannot be read: {what}"))
                elif isinstance(size, int) and key not in self._wrong:
                    problem = f"it has {size} workflows, and {keys.queues(number)} counts {what}"
                    findings.append(Finding("key", key, problem, (("count", ""),), self._repair))
            if lost and self._repair:
                yield from ask(count_call(self._context, number, "repair", lost))

    def _check_settings(self) -> Operation[list[Finding]]:
        """Check that the namespace's settings and their copy exist and agree."""
        keys = self._context.keys
        wanted = [str(value).encode() for value in (FORMAT, keys.partitions, int(keys.has_feed))]
        commands = [key_command("HMGET", key, *SETTINGS) for key in (keys.config, keys.config_copy)]
        replies = yield from _replies(commands)
        if not any(isinstance(reply, ErrorReply) or any(reply) for _, reply in replies):
            return []  # the namespace was never made, or is deleted
        findings: list[Finding] = []
        for command, reply in _readable(replies, findings):
            if not any(reply):
                if self._repair:
                    yield from ask(make_call(self._context, command.key))
                problem = "the namespace's settings are missing there"
                findings.append(Finding("key", command.key, problem, (("settings", ""),), self._repair))
            elif reply != wanted:
                problem = f"its format, partitions and feed are {reply!r:.80}, and not {wanted!r}"
                findings.append(Finding("key", command.key, problem))
        return findings

    def _find_buckets(self, buckets: list[str]) -> Operation[Verified]:
        """Find the buckets that hold facts."""
        findings: list[Finding] = []
        replies = yield from _replies([key_command("HLEN", key) for key in self._context.keys.buckets()])
        buckets += [command.key for command, count in _readable(replies, findings) if count]
        return Verified(findings=findings)

    def _check_facts(self, scans: Scans) -> Operation[Verified]:
        """Check that facts match their hashes, and that their age is known."""
        facts: list[tuple[bytes, bytes]] = []
        findings: list[Finding] = []
        for scan, page in _readable((yield from scans.next_pages()), findings):
            for fact, data in pairs(page):
                facts.append((fact, data))
                if self._context.keys.fact(fact)[0] != scan.key:
                    problem = f"it is in the bucket {scan.key}, where no reader looks for it"
                    findings.append(Finding("fact", fact.decode(errors="backslashreplace"), problem))
        commands = [key_command("ZSCORE", self._context.keys.fact(fact)[1], fact) for fact, _ in facts]
        for (fact, data), (command, age) in zip(facts, (yield from _replies(commands)), strict=True):
            name = fact.decode(errors="backslashreplace")
            if not fact_matches(fact, data):
                findings.append(Finding("fact", name, "it is damaged: it does not match its hash"))
            if isinstance(age, ErrorReply):
                findings.append(Finding("fact", name, f"its age, at {command.key}, cannot be read: {age.message}"))
            elif age is None:
                if self._repair:
                    yield from ask(key_command("ZADD", command.key, "NX", str(self._now_ms * 1000), fact))
                problem = "its age is not known, so it is never collected"
                findings.append(Finding("fact", name, problem, (("times", "now"),), self._repair))
        return Verified(facts=len(facts), findings=findings)


def _checked(check: FeedCheck | IndexCheck, step: Operation[None]) -> Operation[Verified]:
    """Take a step of the check of a feed, or of an index. Return its findings after the last one."""
    yield from step
    return Verified(findings=check.findings if check.is_done else [])


def _replies(commands: Sequence[Command]) -> Operation[list[tuple[Command, Any]]]:
    """Return the replies to commands, each with its command; an `ErrorReply` for a value that is not the store's."""
    replies = yield Batch(commands)
    return [(command, answer_or_foreign(reply, command)) for command, reply in zip(commands, replies, strict=True)]


def _readable(replies: Iterable[tuple[Command, Any]], findings: list[Finding]) -> Iterator[tuple[Command, Any]]:
    """Yield the replies that are no errors, each with its command. Report the others."""
    for command, reply in replies:
        if isinstance(reply, ErrorReply):
            findings.append(Finding("key", command.key, f"it cannot be read: {reply.text}"))
        else:
            yield command, reply


def _is_queue_or_other(name: str | None, key: bytes) -> bool:
    """Return whether a key that seems to be that of a queue has the name of one."""
    return name is None or (queue_name(name.encode()) is not None and key.endswith(name.encode()))


def _is_number_below(text: str, limit: int) -> bool:
    """Return whether a part of a key is a number below a limit, without leading zeros."""
    return int(text) < limit and str(int(text)) == text
