"""Where everything lies: what a header says, and what another process reads of it."""

import pytest

from fabric import LayoutError
from fabric.layout import Layout
from tests.loopback import PEER_LANE_BYTES, loopback


@pytest.fixture
def loop():
    with loopback(2) as made:
        yield made


def test_a_header_is_read_back_as_it_was_laid_out(loop):
    layout = loop.segments[0].layout
    again = Layout.read(layout.header_bytes, layout.segment_bytes)

    assert (again.processes, again.max_agents, again.identity) == (3, 101, layout.identity)
    assert [again.lane_range(p, lane) for p in range(3) for lane in range(3)] == [
        layout.lane_range(p, lane) for p in range(3) for lane in range(3)
    ]
    assert again.lane_range(0, 0)[1] == 0, "the coordinator has no lane to itself"
    assert again.lane_range(1, 1)[1] == PEER_LANE_BYTES
    with pytest.raises(LayoutError):
        Layout.read(layout.header_bytes, layout.segment_bytes - 1)
