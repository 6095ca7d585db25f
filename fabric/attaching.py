"""Find the segment of a fabric in a process that runs one, and open it to look: by /proc/PID/fd, as the same user.

    /proc/PID/fd/7 -> /memfd:shm-fabric (deleted)      open read-only, check the header
    board: pid of slot 0 is PID                        its own; else PID is a worker, or another process of that fabric

What a process inherits or maps otherwise does not count, so that PID is always the coordinator.
"""

import contextlib
import os
import pwd
from typing import NamedTuple

from fabric.errors import FabricError, LayoutError
from fabric.messages import COORDINATOR
from fabric.meters import Meters
from fabric.segment import Segment

_LINK = "/memfd:shm-fabric (deleted)"
_WHOLE_COMMAND = 60  # characters of a command line that are shown


class Place(NamedTuple):
    """Where a segment is held open: the entry in /proc, and what identifies the file behind it."""

    path: str
    file: tuple[int, int]  # device, inode

    def is_held(self) -> bool:
        """Does the process hold it still? False once it has ended, or has closed the fabric."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.file


class Found(NamedTuple):
    """A segment that a process holds open."""

    segment: Segment
    place: Place


def attach(pid: int, index: int | None = None, identity: int | None = None) -> Found:
    """Open the segment of the fabric that a process runs; choose by index or identity where there are several.

    Raises:
        ProcessLookupError: there is no such process.
        PermissionError: it is another user's.
        LayoutError: its fabric is of another version.
        FabricError: it runs no fabric, or not this one, or is not the coordinator of it.
    """
    check_user(pid)
    found = _open_all(pid)
    kept: list[Found] = []
    try:
        own = [one for one in found if Meters(one.segment).pids()[COORDINATOR] == pid]
        if not own:
            raise FabricError(_why_none(pid, [one.segment for one in found]))
        kept = [own[_chosen(pid, [one.segment for one in own], index, identity)]]
        return kept[0]
    finally:
        for one in found:
            if one not in kept:
                one.segment.close()


def running() -> list[tuple[int, str]]:
    """Return the processes of this user that run a fabric of this version, and their command lines."""
    found = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with contextlib.suppress(OSError, FabricError):
            check_user(pid)
            segments = [one.segment for one in _open_all(pid)]
            if any(Meters(segment).pids()[COORDINATOR] == pid for segment in segments):
                found.append((pid, command_of(pid)))
            for segment in segments:
                segment.close()
    return found


def check_user(pid: int) -> None:
    """Return if this process is there, and ours.

    Raises:
        ProcessLookupError, PermissionError
    """
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        raise ProcessLookupError(f"there is no process {pid}") from None
    if owner != os.geteuid():
        raise _not_ours(pid, owner)


def entries(pid: int, link: str) -> list[Place]:
    """Return where a process holds files of this name open, each file once.

    Raises:
        PermissionError: it may not be looked at.
    """
    folder = f"/proc/{pid}/fd"
    try:
        numbers = sorted(os.listdir(folder), key=int)
    except PermissionError:
        raise _not_ours(pid, os.stat(f"/proc/{pid}").st_uid) from None
    except OSError:  # it has ended
        return []
    places: dict[tuple[int, int], Place] = {}
    for number in numbers:
        path = f"{folder}/{number}"
        with contextlib.suppress(OSError):  # closed meanwhile
            if os.readlink(path) == link:
                found = os.stat(path)
                file = found.st_dev, found.st_ino
                places.setdefault(file, Place(path, file))
    return list(places.values())


def _open_all(pid: int) -> list[Found]:
    """Open every segment that a process holds. LayoutError: all of them are of other versions."""
    found, refused = [], None
    for place in entries(pid, _LINK):
        try:
            descriptor = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # closed meanwhile
            continue
        try:
            found.append(Found(Segment.attach(descriptor, None), place))
        except LayoutError as error:
            os.close(descriptor)
            refused = error
    if refused is not None and not found:
        program = command_of(pid).partition(" ")[0]
        raise LayoutError(f"process {pid}: {refused}; watch it with the Python that runs it: {program}")
    return found


def _chosen(pid: int, own: list[Segment], index: int | None, identity: int | None) -> int:
    """Return which of a process's fabrics is meant."""
    names = [f"{segment.layout.identity:016x}" for segment in own]
    if identity is not None:
        if f"{identity:016x}" not in names:
            raise FabricError(f"process {pid} runs no fabric {identity:016x}: it runs {', '.join(names)}")
        return names.index(f"{identity:016x}")
    if index is None and len(own) == 1:
        return 0
    if index is not None and 0 <= index < len(own):
        return index
    shown = "; ".join(
        f"--index {number}: {len(Meters(segment).slots())} workers, identity {name}"
        for number, (segment, name) in enumerate(zip(own, names, strict=True))
    )
    if index is None:
        raise FabricError(f"process {pid} runs {len(own)} fabrics, choose one: {shown}")
    raise FabricError(f"process {pid} has no fabric {index}: {shown}")


def _why_none(pid: int, others: list[Segment]) -> str:
    """Say what a process is that runs no fabric itself."""
    inner = _pid_within(pid)
    for segment in others:
        pids = Meters(segment).pids()
        coordinator = pids[COORDINATOR]
        if inner != pid and inner == coordinator:
            return (
                f"process {pid} is process {inner} of a container: watch it from in there, python -m fabric top {inner}"
            )
        role = f"worker {pids.index(inner)}" if inner in pids else "the fork server, or an onlooker,"
        return (
            f"process {pid} is {role} of the fabric that process {coordinator} runs: python -m fabric top {coordinator}"
        )
    return f"process {pid} ({command_of(pid)}) runs no fabric"


def _pid_within(pid: int) -> int:
    """Return what a process takes for its own pid: another one, if it is in a container and we are not."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/status", encoding="utf-8") as status:
        for line in status:
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return pid


def command_of(pid: int) -> str:
    """Return the command line of a process, as far as there is room."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            words = file.read().replace("\0", " ").strip()
    except OSError:
        words = ""
    text = "".join(letter if letter.isprintable() else "?" for letter in words) or "no command line"
    return text if len(text) <= _WHOLE_COMMAND else f"{text[:_WHOLE_COMMAND]}..."


def _not_ours(pid: int, owner: int) -> PermissionError:
    return PermissionError(
        f"process {pid} is {_user(owner)}'s and you are {_user(os.geteuid())}: only who runs a fabric may watch it"
    )


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
