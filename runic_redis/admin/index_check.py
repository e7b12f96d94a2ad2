"""Verify the index of all tags of a namespace against the entries of its workflows, in both directions."""

from collections.abc import Iterator, Sequence

from runic_redis.admin.workflow_check import Finding
from runic_redis.context import Context
from runic_redis.errors import DecodeError
from runic_redis.operations.tag_index import index_workflow, next_surplus
from runic_redis.protocol.effects import Operation


class IndexCheck:
    """The check of the index of all tags.

    Args:
        context: the store's.
        workflow_ids: the workflows of the namespace.
        repair: whether to add what the index lacks, and to remove what no entry has.

    Attributes:
        findings: the damage that was found.
        is_done: whether the last step was taken.
    """

    def __init__(self, context: Context, workflow_ids: Sequence[str], *, repair: bool) -> None:
        self._context = context
        self._workflow_ids = workflow_ids
        self._repair = repair
        self._after = b""
        self._surplus: list[bytes] = []
        self._surplus_count = 0
        self.findings: list[Finding] = []
        self.is_done = False

    def steps(self) -> Iterator[Operation[None]]:
        """Yield the steps of the check, in order."""
        for workflow_id in self._workflow_ids:
            if self.is_done:
                return
            yield self._check_workflow(workflow_id)
        while not self.is_done:
            yield self._check_members()

    def _check_workflow(self, workflow_id: str) -> Operation[None]:
        """Find the tags of a workflow that the index lacks."""
        try:
            lacking = yield from index_workflow(self._context, workflow_id, adds=self._repair)
        except DecodeError as error:
            self.is_done = True
            self._found(f"it, or a key of the workflow {workflow_id!r:.80}, cannot be read: {error}")
            return
        if lacking.tags:
            self._found(f"it lacks {lacking.tags} tags of the workflow {workflow_id!r:.80}", can_repair=True)
        if lacking.unplaced:
            problem = f"{lacking.unplaced} tags of the workflow {workflow_id!r:.80} have no position, and are not in it"
            self._found(problem)

    def _check_members(self) -> Operation[None]:
        """Find the next members that no entry has."""
        self._after, surplus = yield from next_surplus(self._context, self._after, removes=self._repair)
        self._surplus_count += len(surplus)
        self._surplus += surplus[: 1 - len(self._surplus)]
        if not self._after:
            self.is_done = True
            if self._surplus:
                problem = f"it holds {self._surplus_count} tags of no commit, such as {self._surplus[0]!r:.80}"
                self._found(problem, can_repair=True)

    def _found(self, problem: str, *, can_repair: bool = False) -> None:
        repairs = (("index", ""),) if can_repair else ()
        self.findings.append(
            Finding("key", self._context.keys.tagged or "", problem, repairs, can_repair and self._repair)
        )
