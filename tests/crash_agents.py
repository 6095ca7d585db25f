"""Agents, bodies and replies that crash at one given point; importable by workers."""

import os
import signal

from fabric import Agent


class DiesOnce(Agent):
    """Kills its process while the flag does not exist, and makes it; then answers with what it was sent."""

    def __init__(self, flag):
        self.flag = flag

    def on_message(self, body):
        if not os.path.exists(self.flag):
            with open(self.flag, "x", encoding="utf-8"):
                os.kill(os.getpid(), signal.SIGKILL)
        return body
