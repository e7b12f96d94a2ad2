"""Reading the ids of all workflows of some partitions from the partitions' indexes."""

from collections.abc import Iterable

from runic_redis.protocol.effects import Operation
from runic_redis.protocol.resp import scored_ids
from runic_redis.protocol.scans import ByScore

# How many members of each index are read at once.
_AT_ONCE = 1000


def indexed_workflows(indexes: Iterable[str]) -> Operation[list[str]]:
    """Return each workflow that is in one of the indexes from begin to end, however much is written meanwhile.

    Some that are created or deleted meanwhile are returned, too. The ids are read without a pause: a caller that works
    on a page before it reads the next one may be slower than the writers, and meet the same workflows again for ever.

    Raises:
        DecodeError: a member is no workflow id.
    """
    found: dict[str, None] = {}
    pages = ByScore(indexes, _AT_ONCE)
    while pages.more:
        for key, page in (yield from pages.next_pages()):
            found.update((workflow_id, None) for workflow_id, _ in scored_ids(page, key))
    return list(found)
