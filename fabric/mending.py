"""Make the lanes from a dead worker to the coordinator good again, after it wrote there what cannot be.

1. The coordinator drops what cannot be a record, and stops reading a lane whose tail cannot be: replies are lost there
   that somebody may wait for. So that worker is killed, whatever it does, and seen dead.
2. Whoever drains sets the tails to what has been committed: only the dead one wrote them, and its successor reads them
   when it starts. What lies between is lost, and all that wait for this worker are told.
3. The successor goes on from the heads of its own lanes: what was not committed there comes again.
"""

from collections.abc import Callable

from fabric.messages import COORDINATOR
from fabric.receiver import Receiver
from fabric.ring import Peer
from fabric.segment import Segment

_ALIGN = 16
GARBLED = "it had written what cannot be into its lane to the coordinator"


def is_garbled(segment: Segment, slot: int) -> bool:
    """Is a tail of the lanes from this dead worker to the coordinator one that cannot be?"""
    processes = segment.layout.processes
    for control in (0, processes):
        _, capacity = segment.layout.lane_range(slot, COORDINATOR + control)
        tail = segment.tail_of(slot, COORDINATOR + control)
        unread = tail - segment.head_of(COORDINATOR, slot + control)
        if not 0 <= unread <= capacity or tail % _ALIGN:
            return True
    return False


def mender(segment: Segment, peer: Peer, slot: int) -> Callable[[Receiver], None]:
    """Return what has both ends of these lanes begin anew where they are committed: for whoever drains to call.

    Only for a dead worker.
    """
    dead = Segment(segment.descriptor, segment.layout, slot)
    processes = segment.layout.processes

    def mend(receiver: Receiver) -> None:
        receiver.commit_now()
        for control in (0, processes):
            dead.set_tail(COORDINATOR + control, segment.head_of(COORDINATOR, slot + control))
        peer.mend(slot)

    return mend
