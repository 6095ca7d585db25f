"""Start here: `python -m fabric.workers FD serve` is the fork server, `... FD SLOT` one spawned worker.

FD is a socket to the coordinator. Its first frame is the boot record: what a worker needs to know and what
it inherits (descriptors, sys.path, warning filters).
"""

import atexit
import faulthandler
import functools
import os
import random
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from fabric.admission import available_bytes
from fabric.agent import register_messenger
from fabric.codec import Codec
from fabric.counters import (
    CLOSING,
    DECODE_NS,
    ERRORS,
    FIRST_TOKEN,
    PID,
    STARTS,
    WAITED_BEFORE_NS,
    WAITED_NS,
    WAITING_SINCE_NS,
)
from fabric.lending import ARENA
from fabric.lifeline import Lifeline
from fabric.messages import COORDINATOR, HURRY_SIGNAL, STACK_SIGNAL
from fabric.orders import decode_order
from fabric.payloads import open_arena
from fabric.receiver import Receiver
from fabric.segment import Segment
from fabric.sender import LoneSender, Sender
from fabric.stacks import answer_onlookers
from fabric.stopwatch import Stopwatch, add
from fabric.wire import receive_frame
from fabric.workers.early import reply_early
from fabric.workers.forkserver import ForkServer, ignore_interrupts
from fabric.workers.handler_clock import HandlerClock
from fabric.workers.host import Host
from fabric.workers.idle_selector import IdleSelector
from fabric.workers.journal import Journal
from fabric.workers.keeper import Keeper
from fabric.workers.logs import connect
from fabric.workers.loop import Loop
from fabric.workers.outbox import Outbox
from fabric.workers.preload import preload, settle_threads
from fabric.workers.publisher import Publisher
from fabric.workers.recovery import Recovery
from fabric.workers.vault import Vault

_GRACE = 0.5  # seconds that on_stop may take after the coordinator has died


def main() -> None:
    """Read the boot record, then serve or work."""
    ignore_interrupts()
    link = socket.socket(fileno=int(sys.argv[1]))
    try:
        boot, _ = receive_frame(link)
    except (EOFError, ConnectionError):  # the coordinator changed its mind, or died
        return
    sys.path[:] = boot.sys_path
    warnings.filters = boot.warning_filters
    sys.argv = boot.argv
    if boot.slot is None:
        preload(boot.preload)
        with link:
            ForkServer(link, boot, worker_main).run()
        return
    try:
        orders, descriptors = receive_frame(link)
    except (EOFError, ConnectionError):
        return
    link.close()
    status = worker_main(boot, boot.slot, orders, descriptors)
    sys.stdout.flush()
    os._exit(status)


def worker_main(boot: Any, slot: int, orders: list[bytes], descriptors: list[int]) -> int:
    """Be worker `slot` until told to leave; `orders` are handled before any message. Returns exit status.

    The first descriptor is where to leave the Python stack in a crash, or when the coordinator asks for it; the
    others are channels for what is logged and written here.
    """
    stack, *channels = descriptors
    connect(boot.config, boot.log_levels, channels)
    _forget_the_parent()
    settle_threads()
    faulthandler.enable(stack)
    faulthandler.register(STACK_SIGNAL, stack)
    answer_onlookers()
    segment = Segment.attach(boot.memfd, slot)
    cursor = segment.cursor()[:2]
    cursor[0] = 0  # what our predecessor had in hand is its own affair
    peer = segment.peer()
    config = boot.config
    peer.configure(boot.cores, config.spin_us)
    for process, bell in enumerate(boot.bells):
        peer.set_bell(process, bell)
    lifeline = Lifeline(boot.lifeline, boot.bells[slot], _GRACE)
    codec = Codec(config.encoding, config.allow_pickle)
    receiver = Receiver(segment, peer, codec)
    receiver.cursor = cursor
    arena = open_arena(segment, peer, codec, receiver, config, available_bytes)
    senders: dict[int, Sender] = {process: LoneSender(peer, process) for process in range(peer.processes)}
    outbox = Outbox(peer, senders)
    if arena is not None:
        outbox.guard = arena.lock
        arena.waits_once = True  # all agents here stand still meanwhile
    first_token = time.monotonic_ns() // 1000 % 2**43  # nobody asks more than once a microsecond
    host = Host(segment.layout.identity, codec, outbox, peer.table, config.publish_after_us, first_token)
    host.cursor = cursor
    host.withdrawn = segment.withdrawn_from(slot)
    host.arena = arena
    host.wait_for_returns = functools.partial(_wait_for_returns, peer)
    host.streams.first_token_of = lambda slot: int(segment.counters_of(slot)[FIRST_TOKEN])
    register_messenger(host)
    counters = segment.counters()
    vault = None if arena is None else Vault(arena, slot, config.arena_threshold)
    keeper = host.keeper = Keeper(Journal(peer, segment.journal_data()), codec, host.unkept, vault)
    counters[FIRST_TOKEN] = first_token
    counters[STARTS] += 1
    counters[WAITED_BEFORE_NS] = counters[WAITED_NS]
    counters[WAITING_SINCE_NS] = 0
    host.new_selector = functools.partial(IdleSelector, counters)
    host.errors = counters[ERRORS]
    host.handler_clock = HandlerClock(peer.handled, segment.class_errors(), segment.classes(), counters)
    receiver.watch = Stopwatch(functools.partial(add, counters, DECODE_NS))
    recovery = Recovery(counters[PID], slot, segment.begun(), host.takes_once, keeper.kept)
    host.begun = segment.begun()
    publisher = Publisher(peer, senders, host, outbox, counters, boot.attention)
    signal.signal(HURRY_SIGNAL, functools.partial(reply_early, publisher))
    closing = segment.counters_of(COORDINATOR)[CLOSING : CLOSING + 1]
    loop = Loop(
        peer,
        receiver,
        host,
        publisher,
        counters,
        closing,
        keeper,
        recovery,
        functools.partial(segment.head_of, slot),
        segment.handled(),
    )
    try:
        loop.start([decode_order(order) for order in orders])
        loop.run(config.batch_size, lifeline)
        atexit._run_exitfuncs()
        return 0
    except BaseException:  # ours to explain: handlers are contained, so this is a defect of the fabric
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _wait_for_returns(peer: Any, reached: Callable[[], bool], deadline: float) -> bool:
    """Wait until receivers have given back what a reply needs room for. False: the time was up."""
    while not reached():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        peer.wait(ARENA, -1, left)
    return True


def _forget_the_parent() -> None:
    """Give this process random numbers of its own: a fork would repeat its siblings'."""
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        numpy.random.seed()


if __name__ == "__main__":
    main()
