"""The errors of `eventsourcing` in place of the store's."""

from types import TracebackType

from eventsourcing.persistence import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    PersistenceError,
    ProgrammingError,
)

from runic_redis.errors import (
    ConditionFailed,
    ConfigurationError,
    CursorConflict,
    DecodeError,
    DurabilityError,
    EncodeError,
    EventsTrimmed,
    FeedTrimmed,
    GroupRejected,
    InvalidArgument,
    StoreError,
    StoreUnavailable,
    TrackingConflict,
    UnknownEventType,
    WriteRefused,
)

_CLASSES: dict[type[StoreError], type[PersistenceError]] = {
    ConditionFailed: IntegrityError,
    CursorConflict: IntegrityError,
    TrackingConflict: IntegrityError,
    StoreUnavailable: OperationalError,
    WriteRefused: OperationalError,
    DurabilityError: OperationalError,
    ConfigurationError: InterfaceError,
    EncodeError: DataError,
    InvalidArgument: ProgrammingError,
    DecodeError: InternalError,
    UnknownEventType: InternalError,
    EventsTrimmed: InternalError,
    FeedTrimmed: InternalError,
}


def persistence_error(error: StoreError) -> PersistenceError:
    """Return the error of `eventsourcing` for an error of the store."""
    # A group is rejected for the error of one of its commits.
    cause = error.__cause__ if isinstance(error, GroupRejected) else error
    for cls in type(cause).__mro__:
        if cls in _CLASSES:
            return _CLASSES[cls](str(error))
    return DatabaseError(str(error))


class _PersistenceErrors:
    """A context that replaces the errors of a store by those of `eventsourcing`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if isinstance(error, StoreError):
            raise persistence_error(error) from error


persistence_errors = _PersistenceErrors()
