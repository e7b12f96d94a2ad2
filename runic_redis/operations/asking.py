"""Sends commands until they are answered: the only place where anything is ever sent twice.

A command whose reply was lost may have been carried out. Most commands of the store may simply be carried out
again; one that may not says what to send instead (`Command.again`).
"""

import random
from collections.abc import Sequence
from typing import Any

from runic_redis.context import Context
from runic_redis.errors import DecodeError, StoreError, StoreUnavailable
from runic_redis.operations.effects import Answers, Batch, Command, ErrorReply, Lost, Operation, Pause

__all__ = ["PASSING", "ask", "ask_all", "together"]

# Replies of a server that has not carried the command out, and may well do so soon.
PASSING = frozenset({"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "TRYAGAIN"})
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0


def ask(context: Context, command: Command) -> Operation[Any]:
    """The reply to one command.

    Raises:
        StoreUnavailable: it was not answered within the deadline.
        DecodeError: there is a foreign value at one of its keys.
    """
    (reply,) = yield from ask_all(context, [command])
    return reply


def ask_all(context: Context, commands: Sequence[Command], *, at_once: bool = False) -> Operation[list[Any]]:
    """The replies to commands that do not depend on each other, sent in one round trip.

    Error replies that a script gives by name are returned, as `ErrorReply`; every other one is raised.

    Args:
        context: the store's.
        commands: what to send.
        at_once: whether the replies only mean something together: when one is lost, all are asked for again.

    Raises:
        StoreUnavailable: some were not answered within the deadline.
        DecodeError: there is a foreign value at one of their keys.
    """
    replies: list[Any] = [None] * len(commands)
    waiting = dict(enumerate(commands))
    unsure: set[int] = set()
    first_s: float | None = None
    attempt = 0
    while True:
        answers, sent_s = yield Batch(tuple(waiting.values()))
        first_s = sent_s if first_s is None else first_s
        failure = ""
        for place, answer in zip(tuple(waiting), answers, strict=True):
            if isinstance(answer, ErrorReply) and answer.code == "NOSCRIPT":
                waiting[place] = waiting[place].with_text()
            elif reason := _passing_failure(answer):
                failure = reason
                if isinstance(answer, Lost) and answer.sent:
                    unsure.add(place)
            else:
                replies[place] = _checked(answer, commands[place], place in unsure)
                del waiting[place]
        if not waiting:
            return replies
        if not failure:
            continue
        attempt += 1
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt)
        now_s = yield Pause(longest * random.uniform(0.5, 1))
        elapsed_s = now_s - first_s
        if elapsed_s >= context.deadline_s:
            raise _unavailable(failure, elapsed_s, any(commands[place].again for place in unsure))
        if at_once:
            waiting = dict(enumerate(commands))
        for place in unsure & waiting.keys():
            again = commands[place].again
            if again is not None:
                waiting[place] = again(int(elapsed_s * 1000))


def together(operations: Sequence[Operation[Any]]) -> Operation[list[Any]]:
    """Run operations side by side, what they send in one round trip; their results in order.

    An operation that fails with a `StoreError` has it as its result, and does not disturb the others.
    """
    results: list[Any] = [None] * len(operations)
    effects: dict[int, Batch | Pause] = {}

    def advance(place: int, answer: Any) -> None:
        effects.pop(place, None)
        try:
            effects[place] = operations[place].send(answer)
        except StopIteration as stop:
            results[place] = stop.value
        except StoreError as error:
            results[place] = error

    for place in range(len(operations)):
        advance(place, None)
    while effects:
        batches = {place: effect for place, effect in effects.items() if isinstance(effect, Batch)}
        if batches:
            answers, sent_s = yield Batch([command for batch in batches.values() for command in batch.commands])
            rest = iter(answers)
            for place, batch in batches.items():
                advance(place, Answers([next(rest) for _ in batch.commands], sent_s))
        else:
            pauses = [effect.seconds for effect in effects.values() if isinstance(effect, Pause)]
            now_s = yield Pause(max(pauses))
            for place in tuple(effects):
                advance(place, now_s)
    return results


# The errors that our scripts reply by name; each caller turns its own into an exception.
_NAMED = frozenset({"COMMIT_UNSURE", "CURSOR_CONFLICT", "FACT_DIFFERS", "SNAPSHOT_AHEAD", "SNAPSHOT_BEHIND"})


def _passing_failure(answer: Any) -> str:
    """Why there is no answer yet, and asking again may bring one; empty if this is one."""
    if isinstance(answer, Lost):
        return answer.reason
    if isinstance(answer, ErrorReply) and answer.code in PASSING:
        return f"{answer.code} {answer.message}"
    return ""


def _checked(answer: Any, command: Command, unsure: bool) -> Any:
    """A reply, unless it is an error that means the same to every caller."""
    if not isinstance(answer, ErrorReply) or answer.code in _NAMED:
        return answer
    keys = ", ".join(str(key) for key in _keys(command))
    consequence = "Nothing was changed." if not unsure else f"An earlier try had no answer: {_UNKNOWN}"
    if answer.code == "WRONGTYPE" or "WRONGTYPE" in answer.message:
        raise DecodeError(
            f"There is a value that is not of this store at one of these keys: {keys}. {consequence} Another "
            "application uses the same names: give one of the two another namespace."
        )
    if answer.code == "DAMAGED":
        raise DecodeError(f"The {answer.message} of a workflow is damaged, at one of these keys: {keys}. {consequence}")
    raise StoreError(f"Redis refused the command for {keys}: {answer.code} {answer.message}. {consequence}")


def _keys(command: Command) -> Sequence[Any]:
    """The keys a command names."""
    if command.text is not None:
        count = int(command.args[2])
        return command.args[3 : 3 + count]
    return [command.key]


_UNKNOWN = (
    "Whether it was stored is not known: read the workflow to see, or append with a commit_id of your own, which may "
    "be asked again and again and is stored once."
)


def _unavailable(failure: str, elapsed_s: float, unsure: bool) -> StoreUnavailable:
    consequence = _UNKNOWN if unsure else "It is safe to ask again."
    return StoreUnavailable(f"Redis did not answer for {elapsed_s:.1f} s: {failure}. {consequence}")
