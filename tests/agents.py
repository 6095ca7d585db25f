"""Agents that tests spawn; importable by workers, which do not import test modules by path."""

from fabric import Agent


class Echo(Agent):
    """Answers with what it was sent."""

    def on_message(self, body):
        return body


class Counter(Agent):
    """Adds what it is sent."""

    def __init__(self, start=0):
        self.total = start

    def on_message(self, body):
        self.total += body
        return self.total


class Relay(Agent):
    """Tells (ref, body) on to another agent."""

    def on_message(self, body):
        ref, message = body
        self.context.tell(ref, message)


class Recorder(Agent):
    """Remembers what it was told; asked for "all", says it."""

    def __init__(self):
        self.seen = []

    def on_message(self, body):
        if body == "all":
            return self.seen
        self.seen.append(body)
        return None
