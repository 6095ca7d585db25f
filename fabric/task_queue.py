"""Hold the tasks that no worker has yet: by priority, then in the order of their submission. Pure; no lock."""

from collections import deque
from collections.abc import Iterator

from fabric.task_future import TaskFuture


class TaskQueue:
    """Tasks that wait in the coordinator. Those that are cancelled stay until they would be taken."""

    def __init__(self) -> None:
        self._levels: dict[int, deque[TaskFuture]] = {}
        self._order: list[int] = []  # priorities of tasks there are, the highest first; at times of some there were
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[TaskFuture]:
        for priority in self._order:
            yield from self._levels[priority]

    def add(self, task: TaskFuture) -> None:
        """Put a task behind those of its priority."""
        self._level(task.options.priority).append(task)
        self.count += 1

    def put_back(self, tasks: list[TaskFuture]) -> None:
        """Put tasks that were taken, and could not be sent, before those of their priority."""
        for task in reversed(tasks):
            self._level(task.options.priority).appendleft(task)
        self.count += len(tasks)

    def peek(self) -> TaskFuture | None:
        """Return the task whose turn it is, None for none."""
        for priority in self._order:
            level = self._levels[priority]
            if level:
                return level[0]
        return None

    def pop(self) -> TaskFuture:
        """Take the task whose turn it is."""
        for priority in self._order:
            level = self._levels[priority]
            if level:
                self.count -= 1
                return level.popleft()
        raise IndexError("no task waits")

    def take(self, most: int, most_bytes: int) -> list[TaskFuture]:
        """Take tasks that can go to one worker together: encoded, treated alike, and of one priority."""
        for priority in self._order:
            level = self._levels[priority]
            if level:
                taken = _alike(level, most, most_bytes)
                self.count -= len(taken)
                return taken
        return []

    def discard(self, task: TaskFuture) -> bool:
        """Take out one task. False: it is not here."""
        level = self._levels.get(task.options.priority)
        try:
            level.remove(task)  # type: ignore[union-attr]
        except (ValueError, AttributeError):
            return False
        self.count -= 1
        return True

    def clear(self) -> list[TaskFuture]:
        """Take all tasks."""
        tasks = list(self)
        for level in self._levels.values():
            level.clear()
        self.count = 0
        return tasks

    def _level(self, priority: int) -> deque[TaskFuture]:
        level = self._levels.get(priority)
        if level is None:
            self._levels = {known: tasks for known, tasks in self._levels.items() if tasks}
            level = self._levels[priority] = deque()
            self._order = sorted(self._levels, reverse=True)
        return level


def _alike(level: deque[TaskFuture], most: int, most_bytes: int) -> list[TaskFuture]:
    options = level[0].options
    taken: list[TaskFuture] = []
    room = most_bytes
    while level and len(taken) < most:
        task = level[0]
        if task.options is not options or task.call is not None:
            break
        if type(task.data) is not bytes:  # a Parcel goes by itself
            return taken or [level.popleft()]
        room -= len(task.data)
        if room < 0 and taken:
            break
        taken.append(level.popleft())
    return taken
