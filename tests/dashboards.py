"""Dashboards of figures that nobody measured, and clients that read them as programs do."""

import contextlib
import http.client
import json
import threading
import time

from fabric.integrations.dashboard import _listen
from fabric.integrations.dashboard.feed import Feed
from fabric.integrations.dashboard.server import Dashboard
from fabric.sampler import Sampler
from tests.made_up_figures import source

PATIENCE = 30.0
TOKEN = "a-token-of-this-test"


def made_up_dashboard(interval=0.01, keep=50, conditions=(), **options):
    feed = Feed(Sampler(source(**options), interval), conditions, keep)
    return Dashboard(feed, _listen(0), TOKEN)


def get(shown, path="/", token=TOKEN, method="GET", headers=None):
    """Return status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", shown.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.putrequest(method, path if token is None else f"{path}?token={token}", skip_host=headers is not None)
        for name, value in headers or ():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


class Stream:
    """Reads the events of a dashboard."""

    def __init__(self, shown):
        self._connection = http.client.HTTPConnection("127.0.0.1", shown.port, timeout=PATIENCE)
        self._connection.request("GET", f"/api/events?token={TOKEN}")
        self.answer = self._connection.getresponse()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.answer.close()
        self._connection.close()

    def next(self):
        """Return name and data of the next event; None at the end."""
        lines = []
        while (line := self.answer.readline().decode()) not in ("\n", ""):
            lines.append(line.rstrip("\n"))
        if not lines:
            return None
        fields = dict(line.split(": ", 1) for line in lines)
        return self.next() if "event" not in fields else (fields["event"], json.loads(fields["data"]))

    def until(self, name):
        """Return the data of the next event of this name."""
        while (found := self.next())[0] != name:
            pass
        return found[1]


def wait_until(reached, event=None):
    event, deadline = event or threading.Event(), time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline
        event.wait(0.005)
