"""Agents that log, print and die of it. Importable by workers."""

import ctypes
import itertools
import logging
import os
import signal
import sys
import threading
import warnings

from fabric import Agent, Fabric

log = logging.getLogger("tests.worker")


class Logger(Agent):
    """Logs as it is told: a function of this module by name, and its arguments."""

    def on_message(self, body):
        name, *args = body
        return globals()[name](*args)


def say(level, text, *args):
    log.log(level, text, *args)
    return os.getpid()


def say_many(count):
    for number in range(count):
        log.info("%d of %d", number, count)


def say_with_all():
    try:
        raise ValueError("the cause")
    except ValueError:
        log.exception("it %s", "failed", extra={"job": 7, "sizes": [1, 2.5], "lock": threading.Lock()})


def say_what_does_not_fit():
    log.warning("%d", "no number")
    log.warning("and on")


def say_and_die(number):
    log.warning("number %d", number)
    os.kill(os.getpid(), signal.SIGKILL)


def say_without_end(path):
    with open(path, "r+b", buffering=0) as file:
        for number in itertools.count(1):
            log.info("%d", number)
            os.pwrite(file.fileno(), b"%d" % number, 0)


def print_and_die(number):
    print("printed", number)
    os.write(2, b"no end of line, %d" % number)
    os.kill(os.getpid(), signal.SIGKILL)


def enabled(name, level):
    return logging.getLogger(name).isEnabledFor(level)


def say_in_a_fabric(*what):
    with Fabric(workers=1) as fab:
        return fab.spawn_batch(Logger, 1)[0].ask(("say", *what), timeout=60)


def write_half_a_line():
    os.write(1, b"half")


def handlers():
    return [type(handler).__name__ for handler in logging.getLogger().handlers]


def warn(capture):
    logging.captureWarnings(capture)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("beware", stacklevel=1)
    finally:
        logging.captureWarnings(False)


def write_everywhere():
    print("from Python")
    os.write(1, b"from a descriptor\n")
    ctypes.CDLL(None).puts(b"from C")
    os.system("echo from a child")
    print("to stderr", file=sys.stderr)


def send_garbage(pieces):
    [handler] = logging.getLogger().handlers
    for piece in pieces:
        handler._link.send(piece)


def close_channels():
    [handler] = logging.getLogger().handlers
    handler._link.close()
    logging.getLogger().handlers.clear()
    os.close(1)
    os.close(2)


def threads():
    return len(threading.enumerate())
