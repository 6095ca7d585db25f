"""Take messages in the host in an agent's place, where it does not take them itself one by one.

    host -> Refuser, Idler     for messages that no agent is to see
         -> OneByOne           an agent with on_batch, where each message is handled alone
         -> Yielder            an agent whose on_message is a generator

A coroutine's messages wait in a workers.mailbox.Mailbox; a workers.ranges.RangeReceiver stands for array agents.
"""

from typing import Any

from fabric.errors import FabricError

NOWHERE = -1  # stands in `targets` for messages whose body cannot be read
NOBODY = -2  # and for those that are not to be handled, and need no reply


class Refuser:
    """The agent at NOWHERE: its message could not be decoded."""

    @staticmethod
    def on_message(body: Any) -> None:
        raise body.error


class Idler:
    """The agent at NOBODY: its message was handled before."""

    @staticmethod
    def on_message(body: Any) -> None:
        pass


class OneByOne:
    """Stands for an agent with on_batch where messages are handled one at a time."""

    __slots__ = ("agent",)

    def __init__(self, agent: Any) -> None:
        self.agent = agent

    def on_message(self, body: Any) -> Any:
        return run_batch(self.agent, [body])[0]


class Yielder:
    """Stands for an agent whose on_message is a generator: what it is told would run nothing, so that is an error."""

    __slots__ = ("_host", "agent")

    def __init__(self, host: Any, agent: Any) -> None:
        self._host = host
        self.agent = agent

    def on_message(self, body: Any) -> Any:
        if not self._host.streaming and not self._host.is_asked:
            raise FabricError(
                f"{type(self.agent).__name__}.on_message is a generator, and nobody would read what it yields: "
                "send messages to it by ask_stream(body)"
            )
        return self.agent.on_message(body)


def run_batch(agent: Any, bodies: list[Any]) -> list[Any]:
    """Have an agent handle messages together; return its replies.

    Raises:
        ValueError: it did not return one for each.
    """
    replies = agent.on_batch(bodies)
    if replies is None:
        replies = [None] * len(bodies)
    replies = list(replies)
    if len(replies) != len(bodies):
        raise ValueError(
            f"{type(agent).__name__}.on_batch was given {len(bodies)} messages and returned {len(replies)} "
            "replies: return one for each, in order (or None for no replies at all)"
        )
    return replies
