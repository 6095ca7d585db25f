"""Launch a Python process of the fabric: the fork server, or a worker that is spawned and not forked."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

from fabric.messages import Boot
from fabric.threads import worker_environment

_BOOTSTRAP = "import sys; sys.path[:] = sys.argv.pop().split(chr(31)); from fabric.workers.__main__ import main; main()"


def launch(boot: Boot) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a process that inherits what `boot` names, and wants `boot` as the first frame on the socket returned.

    Raises:
        OSError: there is no process or no descriptor to be had.
    """
    ours, theirs = socket.socketpair()
    inherited = (theirs.fileno(), boot.memfd, boot.lifeline, boot.attention, *boot.bells)
    config = boot.config
    workers = config.max_workers or config.worker_counts(boot.cores)[0]
    environment = worker_environment(config.threads_per_worker, boot.cores, workers, os.environ)
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    try:
        with theirs, _interrupts_blocked():
            process = subprocess.Popen(
                [sys.executable, *flags, "-c", _BOOTSTRAP, str(theirs.fileno()), "\x1f".join(boot.sys_path)],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
    except BaseException:
        ours.close()
        raise
    return process, ours


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start a process that Ctrl-C does not reach before it has said that it ignores it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
