"""Send replies of a batch before it is over, when the coordinator asks for them because its last task takes long.

    task task task LONG...                  replies are sent together when LONG is done, or their slice is 200 us old
         ▲ SIGNAL, in the middle of LONG    those of the three go now, and once more with the rest: who asked drops
                                            the second, as after a crash

Nothing is committed here, and no state is changed. The handler runs between two instructions of the task's Python
code, so a task in C that keeps the GIL is not interrupted.
"""

import contextlib
from types import FrameType
from typing import Any

from fabric.task_runner import TaskRunner
from fabric.workers.publisher import Publisher

_TASK = TaskRunner.on_message.__code__


def reply_early(publisher: Publisher, number: int, frame: FrameType | None) -> Any:
    """Handle the signal: nothing happens unless a task is in hand. It runs in the main thread, inside the task."""
    while frame is not None and frame.f_code is not _TASK:
        frame = frame.f_back
    if frame is not None:
        with contextlib.suppress(Exception):  # the task is not to see any of it; the replies go when it is done
            publisher.publish_early()
