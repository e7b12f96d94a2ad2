"""LangGraph checkpoint savers on plain Redis or Valkey: `RunicSaver`, and `AsyncRunicSaver` for asyncio.

`records` has the format of the stored events, and does not need LangGraph. `runs` cuts the values of channels into
pieces. `threads` stores and reads checkpoints, `queries` lists them, `pruning` deletes and copies them, and `deltas`
reads delta channels. `savers` and `aio` are the two savers.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runic_redis.langgraph.aio import AsyncRunicSaver
    from runic_redis.langgraph.savers import RunicSaver

__all__ = ["AsyncRunicSaver", "RunicSaver"]


# Tools that only read the events do not need LangGraph.
def __getattr__(name: str) -> Any:
    try:
        if name == "RunicSaver":
            from runic_redis.langgraph.savers import RunicSaver  # noqa: PLC0415

            return RunicSaver
        if name == "AsyncRunicSaver":
            from runic_redis.langgraph.aio import AsyncRunicSaver  # noqa: PLC0415

            return AsyncRunicSaver
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"langgraph", "langchain_core"}:
            raise
        raise ModuleNotFoundError(
            f"{name} needs LangGraph: pip install 'runic-redis[langgraph]'.", name=error.name
        ) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
