"""Turn SIGTERM into SystemExit while a fabric is open, so that `with` closes it.

What stops containers is then as clean as Ctrl-C. Only where nobody else handles SIGTERM, and only from the main
thread, which alone may say so. The default comes back with the last fabric.
"""

import signal
import threading
from types import FrameType
from typing import NoReturn

_open = 0  # fabrics of this process for which SIGTERM is handled; the main thread alone counts


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def handle_sigterm() -> bool:
    """Have SIGTERM end the program by SystemExit; True: call `release_sigterm` when that is over."""
    global _open
    if threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, _exit):
        return False
    signal.signal(signal.SIGTERM, _exit)
    _open += 1
    return True


def release_sigterm() -> None:
    """Give SIGTERM back, with the last call. From another thread than the main one: it stays as it is."""
    global _open
    if threading.current_thread() is not threading.main_thread():
        return
    _open -= 1
    if _open == 0 and signal.getsignal(signal.SIGTERM) is _exit:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
