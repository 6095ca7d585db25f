"""Make a host with no worker: batches go in; values, failures and what is sent come out."""

from array import array

from fabric import FabricConfig
from fabric.codec import Codec
from fabric.inline_lanes import Batch, Lanes, Outbox, Record
from fabric.messages import COORDINATOR, MESSAGE, SpawnOrder
from fabric.orders import encode_order
from fabric.remote_errors import revive
from fabric.ring import ALIVE
from fabric.workers.host import Host

CONFIG = FabricConfig(max_agents=50)
SLOT = 1
ASKED = 7 << 20  # a correlation id
STRANGER = 1 << 32 | 40  # an agent of another worker


class World:
    """One host, and the lanes that its agents send to."""

    def __init__(self, publish_after_us=1e12):
        self.codec = Codec()
        self.lanes = Lanes(CONFIG, 3)
        self.host = Host(77, self.codec, Outbox(self.lanes, CONFIG), self.lanes.table, publish_after_us)
        self.put(STRANGER, 2)
        self._next = 1

    def put(self, address, slot, state=ALIVE):
        self.lanes.write_table(array("Q", [address]), array("H", [slot]), state)

    def spawn(self, kind, count=1, each=None, once=False, **kwargs):
        """Return (addresses, failures)."""
        addresses = array("Q", [1 << 32 | self._next + i for i in range(count)])
        self._next += count
        for address in addresses:
            self.put(address, SLOT)
        recipe = encode_order((kind, (), kwargs))
        return list(addresses), self.host.residents.spawn(SpawnOrder(addresses.tobytes(), recipe, each, once))

    def one(self, kind, **kwargs):
        (address,), failures = self.spawn(kind, **kwargs)
        assert failures == {}
        return address

    def batch(self, messages, correlation=ASKED, sender=COORDINATOR):
        """Make a batch of (target, body)."""
        records = []
        for index, (target, body) in enumerate(messages):
            encoding, data = self.codec.encode(body)
            records.append(Record(MESSAGE, encoding, target, sender, correlation and correlation | index, data))
        return Batch(records, self.codec)

    def handle(self, messages, **options):
        """Handle a whole batch; return the values, an index that is deferred as ... ."""
        batch = self.batch(messages, **options)
        self.host.begin(batch)
        values, first = [], 0
        while first < batch.count:
            behind = self.host.handle(first) if batch.count > 1 else self.host.handle_one()
            values += [... if first + i in self.host.deferred else value for i, value in enumerate(self.host.values)]
            first = behind
        self.host.end()
        return values

    def sent(self, process):
        """Take what was sent to a process: (kind, target, sender, correlation, body) of each."""
        queue = self.lanes.queues[process]
        found = [(r.kind, r.target, r.sender, r.correlation, self.codec.decode(r.encoding, r.body)) for r in queue]
        queue.clear()
        return found

    def failures(self):
        failures, self.host.failures = self.host.failures, []
        return [(address, sender, revive(info)) for address, sender, info in failures]
