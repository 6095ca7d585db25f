"""Say what crosses between the processes: kinds of records, encodings, addresses, and the orders.

    header in C (native/fab_record.h)    body, by its encoding
    kind       what to do with it        RAW      the bytes themselves
    encoding   how to read the body      PICKLE   pickle protocol 5
    target     agent address             JSON     orjson
                                         RECORDS  many messages to an array agent: fabric.chunk
    sender     agent address, 0 for      NDARRAY  dtype and shape, then the data
               the coordinator           NONE     no body at all
    correlation  which question          ERROR    a pickled ErrorInfo: the answer is a failure

An address is generation << 32 | index, where index is the agent's word in the segment's table. Address 0
is the coordinator. A correlation id is token << 20 | index: the token names what was asked together, the
index tells which of it. 0 means that nobody waits for a reply.
"""

import signal
from dataclasses import dataclass
from typing import Any, NamedTuple

DROPPED = 0  # no record has this kind: what the receiver makes of bytes that cannot be records
MESSAGE = 2  # told or asked
REPLY = 3
FAILURE = 4  # a told message went wrong: an ErrorInfo for the coordinator
SPAWN = 5
STOP_AGENTS = 6
PREWARM = 7
SHUTDOWN = 8  # control lane: leave when all that lies in the lanes is handled
REQUEST = 10  # an agent asks the coordinator for something: a SpawnRequest, or addresses to stop
EXPIRE = 9  # control lane: skip the messages of this token that are not begun; nobody waits for them any more
RELIEF = 11  # the coordinator's lane: leave when all that lay before it is handled; a successor goes on behind it
STREAM = 20  # asked, and what comes of it is wanted item by item; the replies to it are numbered, see DIRECT
CREDIT = 21  # to the maker of a stream: how many of its items the reader has taken
CANCEL = 22  # to the maker of a stream: nobody reads it any more
TO_AGENTS = frozenset({MESSAGE, STREAM})  # what an agent handles; a crash must not lose it

RAW = 1
PICKLE = 2
JSON = 3
NDARRAY = 4
NONE = 5
ERROR = 6
CHUNK = 20  # a StreamChunk: its numbers, then its data in an encoding of their own
ORDER = 7  # a pickle of the coordinator's own; read nowhere but in a worker, from the coordinator's lane
LENT = 0x80  # added to one of these: parts of the body lie in the sender's arena (fabric.parcel)
RECORDS = 16  # a chunk of records, to or from an array agent
SMALL = 4096  # bytes: bodies below this never lie in an arena, for it is the least arena_threshold
MIXED = 256  # in columns: the records differ
ENCODINGS = {
    RAW: "raw",
    PICKLE: "pickle",
    JSON: "json",
    NDARRAY: "ndarray",
    NONE: "none",
    ERROR: "error",
    CHUNK: "chunk",
    RECORDS: "records",
}

FORWARDED = 1  # flag: the reply goes to `sender`, not to the process at the other end of the lane

STACK_SIGNAL = signal.SIGRTMAX - 1  # asks a worker for its Python stack
LOOK_SIGNAL = signal.SIGRTMAX - 3  # asks a worker for its Python stack, in the name of an onlooker: fabric.monitor
HURRY_SIGNAL = signal.SIGRTMAX - 2  # asks a worker for the replies of what it has done, though its batch is not over

INDEX_BITS = 20  # of a correlation id; FAB_TOKEN_SHIFT
INDEX_MASK = (1 << INDEX_BITS) - 1
# What the index of a stream's question and of its replies says instead:
DIRECT = 1 << 19  # not an item: the question (its lower bits are the window), or what ends it before it began
FIRST = 1 << 18  # the first reply of a run; after a crash another run begins with item 0 again
NUMBER_MASK = FIRST - 1  # the number of an item, modulo
MOST_WINDOW = 1 << 16


def begins_stream(correlation: int) -> bool:
    """May this be the first item of a stream? If nobody knows of it, it is to be cancelled."""
    return correlation & (DIRECT | FIRST) == FIRST


COORDINATOR = 0  # address, and process slot
_BRIEF = 500  # characters of a text where there is little room
CURSOR_UNCLEAR = 1 << 32  # in place of the index, while bodies of a batch are decoded or its replies encoded
CURSOR_MAKING = 1 << 33  # likewise, while an agent is made; its address is in the second word
CURSOR_STEP_SHIFT = 40  # of the index: how often the generator of a stream was resumed, so that it is not taken to hang
CURSOR_LANE_SHIFT = 54  # a worker's cursor: lane << 54 | counter of the lane where the batch in hand begins


def index_of(address: int) -> int:
    """Return the agent's index in the table."""
    return address & 0xFFFFFFFF


def show(address: int) -> str:
    """Return an address as people read it."""
    if address == COORDINATOR:
        return "the coordinator"
    return f"agent {address & 0xFFFFFFFF}" + (f" (generation {address >> 32})" if address >> 32 > 1 else "")


class SpawnOrder(NamedTuple):
    """Ask a worker to make agents; one a worker and batch. `recipe` is the pickled (class, args, kwargs)."""

    addresses: bytes  # u64 each
    recipe: bytes
    each: dict[str, list[Any]] | None  # further keyword arguments, one value an agent
    once: bool = False  # on_crash="fail": a message that was begun is not begun again
    keep: float = 0  # snapshot_every: messages (int) or seconds (float); 0: the agents have no snapshots
    ranges: "Ranges | None" = None  # of array agents


class Ranges(NamedTuple):
    """Say where a group of array agents lives: address i hosts the ids from bounds[i] to bounds[i + 1]."""

    bounds: tuple[int, ...]
    addresses: tuple[int, ...]

    def of(self, address: int) -> range:
        """Return the ids that the object at this address hosts."""
        index = self.addresses.index(address)
        return range(self.bounds[index], self.bounds[index + 1])


class SpawnReport(NamedTuple):
    """What became of a SpawnOrder: failures by position in it, the rest lives."""

    failures: dict[int, "ErrorInfo"]
    bytes_grown: int  # resident memory of the worker, after less before

    def plain(self, with_exceptions: bool) -> list[Any]:
        """Say it in lists, which JSON can carry too; exceptions are pickles and stay behind there."""
        return [
            [[i, *info[:-1], info.exception if with_exceptions else None] for i, info in self.failures.items()],
            self.bytes_grown,
            [],
        ]

    def brief(self) -> list[Any]:
        """Say it like `plain`, in few bytes: why the first of them failed has to do for all."""
        (first, info), *rest = self.failures.items()
        row = [first, info.what, info.message[:_BRIEF], info.traceback[-_BRIEF:], info.agent, None]
        return [[row], self.bytes_grown, [i for i, _ in rest]]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> "SpawnReport":
        """Read what `plain` or `brief` said."""
        rows, grown, others = plain
        failures = {row[0]: ErrorInfo(*row[1:]) for row in rows}
        failures.update(dict.fromkeys(others, failures[rows[0][0]]) if rows else {})
        return cls(failures, grown)

    def checked(self, count: int) -> "SpawnReport":
        """Return this if it can be about an order for `count` agents. ValueError: it cannot."""
        positions = {*map(type, self.failures)} <= {int} and all(0 <= i < count for i in self.failures)
        if not positions or type(self.bytes_grown) is not int:
            raise ValueError("it names agents that were not ordered, or its numbers are none")
        return self


class ErrorInfo(NamedTuple):
    """An exception on its way to another process.

    `what` is "agent" for what an agent's code raised: `exception` is then its pickle, or None when it has
    none. Else it names an error of the fabric's own, and `message` is the arguments of its constructor;
    `exception` is then the pickle of what caused it, where there is one.
    """

    what: str
    message: str
    traceback: str
    agent: int
    exception: bytes | None


STREAM_END = "end"  # as ErrorInfo.what: a stream is over, and nothing went wrong


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """A part of what AgentRef.send_stream sends, as the agent's on_message gets it.

    `data` is bytes where the sender's item was bytes-like, else what the item was. `index` counts from 0.
    `bytes_so_far` counts the data up to and including this chunk, where it has a size in bytes; `total_bytes`
    is None where the sender does not know it. `stream` is the same number in all chunks of one stream, and in
    no others. `aborted`: the sender gave up after the chunks before this one, which has no data, is not the
    last (`is_last` is never to come), and answers nobody: drop what you kept of the stream.
    """

    data: Any
    index: int
    is_last: bool
    total_bytes: int | None
    bytes_so_far: int
    stream: int
    aborted: bool = False


class TakeOverOrder(NamedTuple):
    """Tell a worker what its slot comes with.

    What lies in the control lane before counter `control` was meant for somebody else; `died_ns` is when its
    predecessor was seen dead (monotonic clock), 0 when it has none.
    """

    control: int
    died_ns: int
    careful: bool = False  # a predecessor died and left unclear of which message: take one at a time, and say which


class BarOrder(NamedTuple):
    """Do not make this agent: that has killed workers. Whoever wants it is told `error`."""

    address: int
    error: Any


class SkipOrder(NamedTuple):
    """Tell the successor of a dead worker which message not to handle, and what one who asked is told instead."""

    lane: int
    position: int  # counter of the lane where the record begins
    error: Any  # PoisonMessageError or WorkerLostError


class StopOrder(NamedTuple):
    """Ask a worker to stop agents; answered when their on_stop has run."""

    addresses: bytes  # u64 each


class PrewarmOrder(NamedTuple):
    """Ask a worker to keep `count` agents of this recipe constructed in advance."""

    recipe: bytes
    share: int  # how many of them this worker keeps


class SpawnRequest(NamedTuple):
    """What an agent wants of the coordinator. The other thing is to stop agents: their addresses, raw.

    `origin` is (lane, counter behind the message in hand, which of its requests this is): it comes again when that
    message is handled again. None where that says nothing, in coroutines.
    """

    kind: Any  # the class
    how_many: int
    options: dict[str, Any]
    origin: tuple[int, int, int] | None = None


class Boot(NamedTuple):
    """What a worker process is told when it starts. Descriptors are inherited under the same numbers."""

    config: Any  # FabricConfig
    slot: int | None  # None: be the fork server
    cores: int
    memfd: int
    bells: list[int]  # eventfd of each process
    lifeline: int
    attention: int
    sys_path: list[str]
    argv: list[str]
    warning_filters: list[Any]
    preload: list[str]
    log_levels: dict[str, int]  # by the name of the logger; "" is the root


class DeadLetter(NamedTuple):
    """A message that was told and could not be handled.

    `agent` is the address of the receiver, `error` what went wrong, `sender` the address of the one who
    told it (0: the coordinator), `seconds` when, on the monotonic clock. Where the message took its worker down
    there is more: `body` as it lay in the lane, not decoded (that may be what killed), and `encoding`, the name of
    how; `signal` that ended the worker, or ""; `stack`, the Python stack that faulthandler left, or "" (nothing is
    left by SIGKILL). `buffers` are those that a pickle left out: pickle.loads(letter.body, buffers=letter.buffers).
    """

    agent: int
    sender: int
    error: Exception
    seconds: float
    body: bytes | None = None
    encoding: str = ""
    signal: str = ""
    stack: str = ""
    buffers: tuple[bytes, ...] = ()
