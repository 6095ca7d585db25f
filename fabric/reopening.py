"""Open what a descriptor of another process refers to, by way of /proc/PID/fd; for processes of the same user."""

import errno
import os


def identity_of(descriptor: int) -> tuple[int, int]:
    """Return what tells the file of a descriptor from any other."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def reopen(pid: int, number: int, identity: tuple[int, int], access: int) -> int:
    """Return a descriptor of our own for what `number` is in process `pid`; `access` is O_RDONLY, O_WRONLY or O_RDWR.

    Raises:
        OSError: the process is gone, has closed it, or has another file by that number, which is not opened: it may be
            one that opening waits for, or changes.
    """
    path = f"/proc/{pid}/fd/{number}"
    status = os.stat(path)
    if (status.st_dev, status.st_ino) != identity:
        raise _another_file(path)
    opened = os.open(path, access | os.O_CLOEXEC | os.O_NOCTTY)  # a pipe without a name is opened without waiting
    if identity_of(opened) != identity:  # since we looked
        os.close(opened)
        raise _another_file(path)
    return opened


def _another_file(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "its owner has closed it, and uses the number for another file", path)
