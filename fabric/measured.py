"""Copy what the processes of a fabric have sent and measured, where the segment is mapped: one crossing for all of it.

    survey            traffic of each process, and what waits for it      native/fab_survey.h
    MeasuresReader    histograms of one, and its counts by class          native/fab_measures.h

Reads only, and believes nothing. fabric.lanes and fabric.meters read the same from the file, for whoever only looks.
"""

from typing import Any, NamedTuple

from fabric._native import ffi, lib
from fabric.layout import CLASSES, Layout

SURVEY_HEAD: int = lib.FAB_SURVEY_HEAD
LONG_NS: int = lib.FAB_LONG_NS  # from so long on the C core times a message that came alone
LAST_USE_NS: int = 1 << lib.FAB_LAST_USE_SHIFT  # unit of an agent's last use


class Traffic(NamedTuple):
    """What a process has sent, and what waits for it in its lane from the coordinator."""

    messages: int
    asks: int
    replies: int
    bytes: int
    waiting_bytes: int
    in_flight: int


def survey(layout: Layout, whole: Any) -> list[Traffic]:
    """Look at what all processes have sent. Any process that has the segment mapped; one crossing."""
    found = ffi.new("struct fab_survey[]", layout.processes)
    lib.fab_survey_all(layout.header, ffi.from_buffer("uint8_t[]", whole), found)
    words = memoryview(ffi.buffer(found)).cast("Q").tolist()
    return [Traffic(*words[at : at + 6]) for at in range(0, len(words), 6)]


class MeasuresReader:
    """Copies what processes have measured, but for what is empty of it. One thread at a time."""

    def __init__(self, layout: Layout, whole: Any) -> None:
        self._header = layout.header
        self._whole = ffi.from_buffer("uint8_t[]", whole)
        self._room = ffi.new("uint64_t[]", 2 * CLASSES + (3 + CLASSES) * (SURVEY_HEAD + lib.FAB_HISTOGRAM_BUCKETS))
        self._words = memoryview(ffi.buffer(self._room)).cast("Q")

    def read(self, process: int, classes: int) -> memoryview:
        """Return the words of fab_survey_measures, a copy."""
        used = lib.fab_survey_measures(self._header, self._whole, process, classes, self._room)
        return memoryview(self._words[:used].tobytes()).cast("Q")
