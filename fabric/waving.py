"""Perform a spawn in waves: the plan (fabric.waves) decides, this waits and spawns."""

from collections.abc import Iterator

from fabric.agent import AgentGroup
from fabric.progress import progress_bar
from fabric.spawning import Recipe, Spawner
from fabric.waves import Finished, OnFailure, SpawnWave, StopAgents, WaitUntil, Wave, WavePlan


class Waves:
    """One spawn_waves: iterate to perform it."""

    def __init__(
        self,
        spawner: Spawner,
        recipe: Recipe,
        count: int,
        wave_size: int,
        interval: float,
        on_failure: OnFailure,
        progress: bool,
    ) -> None:
        self._spawner = spawner
        self._recipe = recipe
        self._count = count
        self._plan = WavePlan(count, wave_size, interval, on_failure)
        self._progress = progress
        self._groups: dict[int, AgentGroup] = {}

    def __iter__(self) -> Iterator[Wave]:
        bar = None
        if self._progress:
            bar = progress_bar(total=self._count, unit="agents", description=f"spawning {self._recipe.kind.__name__}")
        try:
            for wave in self._waves():
                if bar is not None:
                    bar.update(wave.spawned + wave.failed)
                yield wave
        finally:
            if bar is not None:
                bar.close()

    def _waves(self) -> Iterator[Wave]:
        now, sleep = self._spawner.now, self._spawner.sleep
        instructions = list(self._plan.start(now()))
        while instructions:
            instruction = instructions.pop(0)
            if isinstance(instruction, WaitUntil):
                sleep(max(0.0, instruction.time - now()))
                instructions += self._plan.woke(now())
            elif isinstance(instruction, SpawnWave):
                began = now()
                group, failures = self._spawner.spawn_some(self._recipe, instruction.count, instruction.first)
                ended = now()
                self._groups[instruction.index] = group
                instructions += self._plan.acknowledged(instruction.index, len(group), len(failures), ended)
                yield Wave(instruction.index, len(group), len(failures), ended - began, group)
            elif isinstance(instruction, StopAgents):
                self._spawner.undo([self._groups[index] for index in instruction.waves])
            else:
                assert isinstance(instruction, Finished)
