"""Frames on the socket between the coordinator and a process that it started: length u32, then a pickle.

The other end is a process of the same fabric, started by us or that started us: it could run anything here
anyway, so a pickle gives it nothing. Nothing else ever holds an end of this socket.
"""

import os
import pickle
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("<I")


def send_frame(link: socket.socket, message: Any, descriptors: tuple[int, ...] = ()) -> None:
    """Send one frame, with descriptors if any."""
    data = pickle.dumps(message, 5)
    data = _LENGTH.pack(len(data)) + data
    sent = socket.send_fds(link, [data], descriptors) if descriptors else link.send(data)
    link.sendall(data[sent:])


def receive_frame(link: socket.socket) -> tuple[Any, list[int]]:
    """Receive one frame and its descriptors. EOFError: the other end is gone."""
    head, descriptors, _, _ = socket.recv_fds(link, _LENGTH.size, 4, socket.MSG_CMSG_CLOEXEC)
    try:
        while 0 < len(head) < _LENGTH.size:
            head += _some(link, _LENGTH.size - len(head))
        if not head:
            raise EOFError
        (length,) = _LENGTH.unpack(head)
        data = bytearray()
        while len(data) < length:
            data += _some(link, min(length - len(data), 1 << 20))
        return pickle.loads(bytes(data)), list(descriptors)
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _some(link: socket.socket, most: int) -> bytes:
    data = link.recv(most)
    if not data:
        raise EOFError
    return data
