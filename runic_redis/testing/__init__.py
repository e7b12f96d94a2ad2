"""The contract suite: what a store promises, as pytest cases that any store can be held to.

Subclass the contracts that a store claims to fulfil, and give the `opener` fixture: a callable without arguments
that opens the store anew on the same data, empty at the start of each test. It must survive pickling, since some
cases open the store in another process; a store that cannot be shared by processes overrides `elsewhere` too.

    from functools import partial
    import pytest
    from runic_redis.testing import LogContract, StreamContract

    class TestMyStore(LogContract, StreamContract):
        @pytest.fixture
        def opener(self, tmp_path):
            return partial(MyStore, tmp_path)

`StoreContract` is all of them. Each case is one sentence about the store; ``pytest -v`` reads as its specification.
"""

import pytest

# The assertions are in the modules below: pytest must be told before it imports them.
pytest.register_assert_rewrite(
    *(
        f"runic_redis.testing.{name}"
        for name in (
            "bad_input",
            "concurrency",
            "facts",
            "leases",
            "logs",
            "references",
            "snapshots",
            "streams",
            "tails",
            "workflows",
        )
    )
)

from runic_redis.testing.bad_input import BadInputContract  # noqa: E402
from runic_redis.testing.concurrency import ConcurrencyContract  # noqa: E402
from runic_redis.testing.facts import FactContract  # noqa: E402
from runic_redis.testing.leases import LeaseContract  # noqa: E402
from runic_redis.testing.logs import LogContract  # noqa: E402
from runic_redis.testing.references import ReferenceContract  # noqa: E402
from runic_redis.testing.snapshots import SnapshotContract  # noqa: E402
from runic_redis.testing.streams import StreamContract  # noqa: E402
from runic_redis.testing.tails import TailContract  # noqa: E402
from runic_redis.testing.workflows import WorkflowContract  # noqa: E402

__all__ = [
    "BadInputContract",
    "ConcurrencyContract",
    "FactContract",
    "LeaseContract",
    "LogContract",
    "ReferenceContract",
    "SnapshotContract",
    "StoreContract",
    "StreamContract",
    "TailContract",
    "WorkflowContract",
]


class StoreContract(
    LogContract,
    StreamContract,
    SnapshotContract,
    FactContract,
    ReferenceContract,
    LeaseContract,
    TailContract,
    WorkflowContract,
    BadInputContract,
    ConcurrencyContract,
):
    """The whole contract."""
