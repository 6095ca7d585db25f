"""Ray, on 127.0.0.1: an actor is a process, so one takes the calls that we spread over 1,000 agents."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench import bodies
from bench.arrays import Job, answer, run
from bench.sample import Sample, timed, warm_up

# Without the second, Ray replaces 127.0.0.1 by the machine's address and listens on all of its interfaces.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
ray: Any = importlib.import_module("ray")


class Echo:
    """Answers with the body, or as the other side of bench.arrays."""

    def ask(self, body: Any) -> Any:
        """Return the body."""
        return body

    def sum_up(self, array: Any, back: str) -> Any:
        """Return the sum, or the array."""
        return answer(array, back)


def ask(kind: str, messages: int) -> Sample:
    """Call one actor once per body, all in flight, then collect."""
    sent = bodies.make(kind, messages)
    with cluster(), _actors(1) as (actor,):

        def ask_each(some: list[Any]) -> list[Any]:
            found: list[Any] = ray.get([actor.ask.remote(body) for body in some])
            return found

        ask_each(sent[: warm_up(messages)])
        seconds, replies = timed(lambda: ask_each(sent))
    bodies.expect(replies, sent, "replies of the actor")
    return Sample({"replies": [messages / seconds]}, f"{messages:,} calls of one actor")


def spawn(agents: int) -> Sample:
    """Create the actors and wait until each has answered once."""
    with cluster():

        def spawn_all() -> list[int]:
            with _actors(agents) as actors:
                found: list[int] = ray.get([actor.ask.remote(index) for index, actor in enumerate(actors)])
                return found

        seconds, replies = timed(spawn_all)
    bodies.expect(replies, range(agents), "replies of the actors")
    return Sample({"spawned": [agents / seconds]}, f"{agents} actors, each a process")


def arrays(job: dict[str, Any]) -> Sample:
    """Hand one actor one array at a time: it goes through the object store, and arrives read-only."""
    wanted = Job(**job)
    with cluster(), _actors(1) as (actor,):
        return run(lambda array: ray.get(actor.sum_up.remote(array, wanted.back)), wanted)


@contextmanager
def cluster(cpus: int = 1) -> Iterator[None]:
    """Run Ray with room for so many tasks at a time; nothing of it is left afterwards."""
    folder = tempfile.mkdtemp(prefix="ray-")
    try:
        ray.init(
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=100 << 20,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _actors(count: int) -> Iterator[list[Any]]:
    actors = [ray.remote(Echo).options(num_cpus=0).remote() for _ in range(count)]
    yield actors
    for actor in actors:
        ray.kill(actor)


def find(agents: list[int], looks: int) -> Sample:
    """Get actors by their names."""
    values = {}
    for count in agents:
        with cluster():
            held = {
                f"clerk-{place}": ray.remote(Echo).options(num_cpus=0, name=f"clerk-{place}") for place in range(count)
            }
            actors = {name: options.remote() for name, options in held.items()}
            ray.get([actor.ask.remote(None) for actor in actors.values()])
            names = [f"clerk-{place % count}" for place in range(looks)]
            seconds, found = timed(lambda names=names: [ray.get_actor(name) for name in names])
            bodies.expect([one._actor_id for one in found], [actors[name]._actor_id for name in names], "actors")
            values[f"{count:,}"] = [seconds * 1e9 / looks]
    return Sample(values, f"{looks:,} looks")
