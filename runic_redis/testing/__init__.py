"""The contract suite: the promises of a store, as pytest cases for any store.

Subclass the contracts that a store fulfils, and give the `opener` fixture. It returns a callable without arguments that
opens the store on the same data each time. The data is empty at the start of each test. The callable must survive
pickling, since some cases open the store in another process. A store that processes cannot share also overrides the
`elsewhere` fixture. For `FeedContract`, `SubscriptionContract` and `ProjectionContract`, the opener makes a namespace
with a feed; for `QueryContract`, with one partition, too.

    from functools import partial
    import pytest
    from runic_redis.testing import LogContract, StreamContract

    class TestMyStore(LogContract, StreamContract):
        @pytest.fixture
        def opener(self, tmp_path):
            return partial(MyStore, tmp_path)

`StoreContract` has all of the contracts. Each case is a sentence about the store, so ``pytest -v`` prints its
specification.
"""

from pkgutil import iter_modules

import pytest

# pytest rewrites the assertions of these modules only if they are registered before they are imported.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))

from runic_redis.testing.bad_input import BadInputContract  # noqa: E402
from runic_redis.testing.concurrency import ConcurrencyContract  # noqa: E402
from runic_redis.testing.facts import FactContract  # noqa: E402
from runic_redis.testing.feed import FeedContract  # noqa: E402
from runic_redis.testing.groups import GroupContract  # noqa: E402
from runic_redis.testing.leases import LeaseContract  # noqa: E402
from runic_redis.testing.lifetimes import LifetimeContract  # noqa: E402
from runic_redis.testing.listing import ListingContract  # noqa: E402
from runic_redis.testing.logs import LogContract  # noqa: E402
from runic_redis.testing.messages import MessageContract  # noqa: E402
from runic_redis.testing.projection_runners import ProjectionRunnerContract  # noqa: E402
from runic_redis.testing.projections import ProjectionContract  # noqa: E402
from runic_redis.testing.queries import QueryContract  # noqa: E402
from runic_redis.testing.queues import QueueContract  # noqa: E402
from runic_redis.testing.reading_many import ReadManyContract  # noqa: E402
from runic_redis.testing.references import ReferenceContract  # noqa: E402
from runic_redis.testing.snapshots import SnapshotContract  # noqa: E402
from runic_redis.testing.streams import StreamContract  # noqa: E402
from runic_redis.testing.subscriptions import SubscriptionContract  # noqa: E402
from runic_redis.testing.tags import TagContract  # noqa: E402
from runic_redis.testing.tails import TailContract  # noqa: E402
from runic_redis.testing.timers import TimerContract  # noqa: E402
from runic_redis.testing.tracking import DetailContract, TrackingContract  # noqa: E402
from runic_redis.testing.workflows import WorkflowContract  # noqa: E402

__all__ = [
    "BadInputContract",
    "ConcurrencyContract",
    "DetailContract",
    "FactContract",
    "FeedContract",
    "GroupContract",
    "LeaseContract",
    "LifetimeContract",
    "ListingContract",
    "LogContract",
    "MessageContract",
    "ProjectionContract",
    "ProjectionRunnerContract",
    "QueryContract",
    "QueueContract",
    "ReadManyContract",
    "ReferenceContract",
    "SnapshotContract",
    "StoreContract",
    "StreamContract",
    "SubscriptionContract",
    "TagContract",
    "TailContract",
    "TimerContract",
    "TrackingContract",
    "WorkflowContract",
]


class StoreContract(
    LogContract,
    StreamContract,
    ReadManyContract,
    SnapshotContract,
    FactContract,
    ReferenceContract,
    LeaseContract,
    QueueContract,
    MessageContract,
    TimerContract,
    TagContract,
    GroupContract,
    QueryContract,
    TrackingContract,
    DetailContract,
    LifetimeContract,
    TailContract,
    FeedContract,
    SubscriptionContract,
    ProjectionContract,
    ProjectionRunnerContract,
    WorkflowContract,
    ListingContract,
    BadInputContract,
    ConcurrencyContract,
):
    """The whole contract."""
