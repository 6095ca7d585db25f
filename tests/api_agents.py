"""Agents of tests/test_api*.py; importable by workers. Each shows one thing that an agent may do, or do wrong."""

import copyreg

import numpy as np

from fabric import Agent, BackpressureError


class Named(Agent):
    """Has constructor arguments whose names are options of spawn_batch too."""

    def __init__(self, name, args=(), keys=None):
        self.got = (name, args, keys)

    def on_message(self, body):
        return self.got


class Picky(Agent):
    """Refuses to be made, or to start, where it is told so; its witness hears when it is stopped."""

    def __init__(self, refuse="", witness=None):
        self.refuse = refuse
        self.witness = witness
        if refuse == "init":
            raise ValueError("refused in __init__")

    def on_start(self):
        if self.refuse == "start":
            raise ValueError("refused in on_start")

    def on_message(self, body):
        return body

    def on_stop(self):
        if self.witness is not None:
            self.context.tell(self.witness, "stopped")
        if self.refuse == "stop":
            raise ValueError("refused in on_stop")


class Wordy(Agent):
    """Cannot be made, and says so at length."""

    def __init__(self):
        raise ValueError("long " * 1_000)

    def on_message(self, body):
        pass


class Eager(Agent):
    """Uses what it has not got yet."""

    def __init__(self, what):
        getattr(self, what)

    def on_message(self, body):
        pass


class Starter(Agent):
    """Tells its reference to somebody when it starts."""

    def __init__(self, witness):
        self.witness = witness

    def on_start(self):
        self.context.tell(self.witness, self.ref)

    def on_message(self, body):
        return body


class Unloadable(type):
    """The type of classes that pickle, but cannot be had where they arrive."""


def refuse_to_load(name):
    raise ModuleNotFoundError(f"No module named {name!r}")


copyreg.pickle(Unloadable, lambda kind: (refuse_to_load, ("phantom",)))


class Phantom(Agent, metaclass=Unloadable):
    """An agent from a module that workers do not have."""

    def on_message(self, body):
        pass


class UnloadableBody:
    """A body that pickles, and cannot be unpickled."""

    def __reduce__(self):
        return refuse_to_load, ("phantom",)


class HasError:
    """An ordinary body that happens to have an attribute `error`."""

    error = None


class Raiser(Agent):
    """Raises what it is sent; answers with what it is sent in a list, made on the spot."""

    def on_message(self, body):
        raise body() if callable(body) else body


class Replier(Agent):
    """Answers with what a function makes."""

    def on_message(self, body):
        return body()


class NeedsTwoError(Exception):
    """Unpickling calls the constructor with one argument: it wants two."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


class MuteError(Exception):
    """Cannot say what it is."""

    def __str__(self):
        raise RuntimeError("no text")


class HoldsLockError(Exception):
    """Cannot be pickled."""

    def __init__(self):
        import threading

        super().__init__("holds a lock")
        self.lock = threading.Lock()


class Waiter(Agent):
    """Waits in its handler, which it must not."""

    def on_message(self, body):
        ref, how = body
        if how == "submit":
            return ref.submit(1).result()
        if how == "ask_group":
            return ref.ask_all(1)
        return ref.ask(1)


class Batcher(Agent):
    """Takes its messages together; keeps the sizes of the batches."""

    def __init__(self, mode="echo"):
        self.mode = mode
        self.sizes = []

    def on_batch(self, bodies):
        if bodies == ["sizes"]:
            return [self.sizes]
        self.sizes.append(len(bodies))
        if self.mode == "short":
            return bodies[:-1]
        if self.mode == "nothing":
            return None
        if self.mode == "raise":
            raise ValueError("no batch today")
        return iter(bodies)


class Postponer(Agent):
    """Answers later: told ("answer", x), it answers everything that was asked before."""

    def __init__(self):
        self.handles = []

    def on_message(self, body):
        what, value = body
        if what == "ask":
            self.handles.append(self.context.reply_later())
            return "not this"
        if what == "raise":
            self.handles.append(self.context.reply_later())
            raise ValueError("raised after reply_later")
        if what == "build":
            self.handles.pop().reply(bytes(value))
        elif what == "fail":
            self.handles.pop().fail(ValueError(value))
        elif what == "twice":
            self.context.reply_later().reply(1)
            if value == "forward":
                self.context.forward(self.ref, ("nothing", 0))
            self.context.reply_later().reply(2)
        elif what == "answer":
            while self.handles:
                self.handles.pop(0).reply(value)
        return None


class Forwarder(Agent):
    """Passes a message on: (ref,) as it is, (ref, body) with another body."""

    def on_message(self, body):
        self.context.forward(body[0], *body[1:])
        return "not this"


class WhoAsks(Agent):
    """Answers with who asked, and with the correlation id."""

    def on_message(self, body):
        return self.context.sender, self.context.correlation_id


class Witness(Agent):
    """Keeps (sender, body) of what it is told; asked for so many, answers when it has them."""

    def __init__(self):
        self.seen = []
        self.waiting = None

    def on_message(self, body):
        if isinstance(body, tuple) and body[0] == "await":
            self.waiting = self.context.reply_later(), body[1]
        else:
            self.seen.append((self.context.sender, body))
        if self.waiting is not None and len(self.seen) >= self.waiting[1]:
            self.waiting[0].reply(self.seen)
            self.waiting = None


class Alarm(Agent):
    """Tells itself something later, and answers then; or tells (ref, body) later."""

    def on_message(self, body):
        if body == "wake up":
            self.handle.reply("awake")
        elif isinstance(body, (int, float)):
            self.handle = self.context.reply_later()
            self.context.tell_later(body, self.ref, "wake up")
        else:
            ref, message = body
            self.context.tell_later(0.001, ref, message)
            if isinstance(message, list):
                message.append("too late")


class QuietSummoner(Agent):
    """Has the coordinator spawn agents, and does not wait for them."""

    def on_message(self, body):
        kind, count, options = body
        self.context.spawn_batch(kind, count, **options)


class Stopper(Agent):
    """Stops another agent, or itself."""

    def on_message(self, body):
        (self.ref if body == "self" else body).stop()


class Shouter(Agent):
    """Tells groups: ("all" or "each", group, bodies); or one agent until its outbox is full."""

    def on_message(self, body):
        how, target, message = body
        if how == "all":
            target.tell_all(message)
        elif how == "each":
            target.tell_each(message)
        elif how == "once":
            target.tell(message)
        else:
            sent = 0
            try:
                while sent < 1_000_000:
                    target.tell_nowait(message)
                    sent += 1
            except BackpressureError:
                return sent
        return None


class ArrayUser(Agent):
    """Writes to the array that it is sent, and answers with it."""

    def on_message(self, body):
        body.reshape(-1)[:1] = np.zeros(1, body.dtype)
        self.kept = body
        return body


class JsonEcho(Agent):
    """Speaks JSON, whatever the fabric does."""

    encoding = "json"

    def on_message(self, body):
        return {1, 2} if body == "set" else body


class Made(Agent):
    """Counts how many of its kind this process has made."""

    made = 0

    def __init__(self, fail=False):
        if fail:
            raise ValueError("cannot be made")
        Made.made += 1
        self.number = Made.made

    def on_message(self, body):
        return self.number if body == "number" else Made.made
