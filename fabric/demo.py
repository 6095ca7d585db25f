"""Survey a source tree with agents: what this library is for, on real input. Here are the agents.

    coordinator (fabric.demo_run)        worker 1                      worker 2
      spawn_batch ─────────────────────▶ ImportsAgent                  FolderAgent ...
      spawn_waves ─────────────────────▶ ModuleAgent ...               ModuleAgent ...
      tell SURVEY ─────────────────────▶ ModuleAgent ─── Report ─────▶ FolderAgent
                                              ╲
                                               ╲─ imported names ───▶  ImportsAgent (here in worker 1)
      drain: all told messages, and what they led to, are handled
      ask RESULT ◀──── Counter, Tally ── ImportsAgent                  FolderAgent

The reports go from agent to agent, by references that each module's agent was made with; the coordinator
sees the sums only. Workers import this module, and nothing of the coordinator with it.
"""

from collections import Counter
from typing import cast

from fabric import Agent, AgentRef
from fabric.survey import Report, Tally, survey

SURVEY = "survey"
LINES = "lines"
RESULT = "result"


class ModuleAgent(Agent):
    """Stands for one file: told to survey it, it reports to its folder's agent and to the imports' agent."""

    __slots__ = ("_folder", "_imports", "_lines", "_name", "_path")

    def __init__(self, path: str, name: str, folder: AgentRef, imports: AgentRef) -> None:
        self._path = path
        self._name = name
        self._folder = folder
        self._imports = imports
        self._lines = 0

    def on_message(self, body: str) -> int:
        """Survey the file when told to; answer with its number of lines."""
        if body == SURVEY:
            report = survey(self._path, self._name)
            self._lines = report.lines
            self.context.tell(self._folder, report)
            self.context.tell(self._imports, report.imported)
        return self._lines


class FolderAgent(Agent):
    """Adds up the reports on the files of one folder."""

    def __init__(self) -> None:
        self._tally = Tally()

    def on_message(self, body: Report | str) -> Tally | None:
        """Count a report, or answer with the tally."""
        if body == RESULT:
            return self._tally
        self._tally.add(cast(Report, body))
        return None


class ImportsAgent(Agent):
    """Counts how many files import a module."""

    def __init__(self) -> None:
        self._imported: Counter[str] = Counter()

    def on_message(self, body: tuple[str, ...] | str) -> Counter[str] | None:
        """Count the modules that a file imports, or answer with the counts."""
        if body == RESULT:
            return self._imported
        self._imported.update(body)
        return None
