"""Agents, bodies and replies that crash in a given way at a given point; importable by workers."""

import ctypes
import os
import signal
import sys

from fabric import Agent


def crash(way):
    """End this process, or raise, in one of the ways that a user's code may."""
    if way == "segfault":
        ctypes.string_at(0)
    if way == "os._exit":
        os._exit(3)
    if way == "C exit":
        ctypes.CDLL(None).exit(4)
    if way == "sys.exit":
        sys.exit(5)
    if way == "StopIteration":
        raise StopIteration
    raise ValueError("crash")


class CrashesWhenEncoded:
    """A body or reply that crashes who pickles it."""

    def __init__(self, way):
        self.way = way

    def __reduce__(self):
        crash(self.way)


class CrashesWhenDecoded:
    """A body or reply that crashes who unpickles it."""

    def __init__(self, way):
        self.way = way

    def __reduce__(self):
        return crash, (self.way,)


class CrashesWhenFreed:
    """An object whose finaliser crashes."""

    def __init__(self, way):
        self.way = way

    def __del__(self):
        crash(self.way)


class Crasher(Agent):
    """Answers with what it was sent; told how and where, it crashes."""

    def on_message(self, body):
        if not isinstance(body, tuple):
            return body
        where, way = body
        if where == "handling":
            crash(way)
        if where == "encoding the reply":
            return CrashesWhenEncoded(way)
        if where == "decoding the reply":
            return CrashesWhenDecoded(way)
        if where == "a finaliser":
            CrashesWhenFreed(way)
        return "answered"


class CrashesAtStart(Agent):
    """Crashes in its constructor, in on_start, or in on_stop; else answers with what it was sent."""

    def __init__(self, where, way):
        self.where, self.way = where, way
        if where == "constructor":
            crash(way)

    def on_message(self, body):
        return body

    def on_start(self):
        if self.where == "on_start":
            crash(self.way)

    def on_stop(self):
        if self.where == "on_stop":
            crash(self.way)


class DiesOnce(Agent):
    """Kills its process while the flag does not exist, and makes it; then answers with what it was sent."""

    def __init__(self, flag):
        self.flag = flag

    def on_message(self, body):
        _die_once(self.flag)
        return body


class DiesOnceWhenMade(DiesOnce):
    """Does so in its constructor."""

    def __init__(self, flag):
        super().__init__(flag)
        _die_once(flag)


def _die_once(flag):
    if not os.path.exists(flag):
        with open(flag, "x", encoding="utf-8"):
            os.kill(os.getpid(), signal.SIGKILL)


class Hog(Agent):
    """Takes as many bytes as it is told, and touches each page; lets go of them when it answers."""

    def __init__(self, ballast=0):
        self.ballast = b"x" * ballast

    def on_message(self, body):
        return len(b"x" * body)
