"""Ray by the cases of its own microbenchmark, on 127.0.0.1; see bench.ray_cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.peers.ray_actors import cluster, ray
from bench.ray_cases import ACTORS, AT_ONCE, CLIENTS, CROWDS, OF_A_CLIENT, check, half_the_cores, small
from bench.sample import Sample, WrongAnswerError, rate

CPUS = 2  # that tasks may take at a time; actors take none


class Small:
    """An actor."""

    def small_value(self, argument: Any = None) -> bytes:
        """Return two bytes."""
        return b"ok"


class AsyncSmall:
    """An async actor: 1,000 calls may be in hand."""

    async def small_value(self, argument: Any = None) -> bytes:
        """Return two bytes."""
        return b"ok"


class Client:
    """An actor that calls others, or tasks."""

    def ask(self, servers: list[Any], count: int, argument: Any) -> int:
        """Call the servers by turns, wait for all; return how many answered right."""
        given = () if argument is None else (ray.put(argument),)
        asked = [servers[place % len(servers)].small_value.remote(*given) for place in range(count)]
        return sum(reply == b"ok" for reply in ray.get(asked))

    def run_tasks(self, count: int) -> int:
        """Run so many tasks, wait for all; return how many answered right."""
        task = ray.remote(small)
        return sum(reply == b"ok" for reply in ray.get([task.remote() for _ in range(count)]))


def run(case: str, seconds: float) -> Sample:
    """Run the case of that name."""
    with cluster(CPUS):
        found = rate(_call(case), seconds)
    return Sample({"calls": [found]}, f"for {seconds:g} s")


def _call(case: str) -> Callable[[], int]:
    """Return what makes calls and says how many."""
    if case in CROWDS:
        return _crowd(case)
    if case in ACTORS:
        actor = _actor(ACTORS[case])
        arguments = [(number,) for number in range(AT_ONCE)] if "with args" in case else [()] * AT_ONCE
        if " calls sync" in case:
            return lambda: check([ray.get(actor.small_value.remote())], 1)
        return lambda: check(ray.get([actor.small_value.remote(*some) for some in arguments]), AT_ONCE)
    task = ray.remote(small)
    if case == "single client tasks sync":
        return lambda: check([ray.get(task.remote())], 1)
    if case == "single client tasks async":
        return lambda: check(ray.get([task.remote() for _ in range(AT_ONCE)]), AT_ONCE)
    clients = [_actor("Client") for _ in range(CLIENTS)]
    due = CLIENTS * OF_A_CLIENT
    return lambda: _all(ray.get([client.run_tasks.remote(OF_A_CLIENT) for client in clients]), due)


def _crowd(case: str) -> Callable[[], int]:
    kind, to_each, calls, argument = CROWDS[case]
    size = half_the_cores()
    servers = [_actor(kind) for _ in range(size)]
    clients = [_actor("Client") for _ in range(size if to_each == 1 else max(1, to_each))]
    if to_each == 1:
        orders: list[tuple[Any, ...]] = [([server], calls, argument) for server in servers]
    else:
        orders = [(servers, calls * (1 if to_each else size), argument)] * len(clients)
    due = sum(order[1] for order in orders)
    pairs = list(zip(clients, orders, strict=True))
    return lambda: _all(ray.get([client.ask.remote(*order) for client, order in pairs]), due)


def _all(right: list[int], due: int) -> int:
    if sum(right) != due:
        raise WrongAnswerError(f"{sum(right):,} of {due:,} answers are right")
    return due


def _actor(kind: str) -> Any:
    options: dict[str, Any] = {"max_concurrency": 16} if kind == "Concurrent" else {}
    made = {"Small": Small, "Concurrent": Small, "AsyncSmall": AsyncSmall, "Client": Client}[kind]
    return ray.remote(made).options(num_cpus=0, **options).remote()
