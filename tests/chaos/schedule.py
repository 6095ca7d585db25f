"""Draw what is done to whom, and when, from a seed. Pure: the same seed gives the same blows."""

import random
from dataclasses import dataclass
from typing import Literal

Act = Literal["bomb", "kill", "kill all", "kill twice", "stop", "kill server", "kill with server", "stop server"]
_ACTS: dict[Act, int] = {  # weights
    "bomb": 60,  # the worker kills itself at one of the next calls of a function, so between any two steps
    "kill": 30,
    "kill all": 6,
    "kill twice": 6,  # the successor, as soon as it is there
    "stop": 12,
    "kill server": 5,
    "kill with server": 5,  # the successor is asked of a fork server that is dying
    "stop server": 4,
}


@dataclass(frozen=True)
class Blow:
    """One deed: after `messages` more were completed and then `pause` seconds, `act` upon the worker of this rank.

    `lasting` is how long a stopped process stays so, in seconds. `calls` is when a bomb goes off.
    """

    messages: int
    pause: float
    act: Act
    rank: int
    lasting: float
    calls: int

    @property
    def kills(self) -> int:
        """How many kills it counts for."""
        return {"stop": 0, "stop server": 0, "kill all": 2, "kill twice": 2, "kill with server": 2}.get(self.act, 1)


def draw(seed: int, kills: int, server: bool = True) -> list[Blow]:
    """Return blows that make up at least so many kills. `server`: the fork server is hit too."""
    dice = random.Random(seed)
    acts = [act for act in _ACTS if server or "server" not in act]
    weights = [_ACTS[act] for act in acts]
    blows: list[Blow] = []
    while sum(blow.kills for blow in blows) < kills:
        (act,) = dice.choices(acts, weights)
        blows.append(
            Blow(
                messages=int(dice.expovariate(1 / 800)),
                pause=dice.choice((0.0, dice.uniform(0, 0.0005), dice.uniform(0, 0.02))),
                act=act,
                rank=dice.randrange(1 << 16),
                lasting=dice.uniform(0, 0.08),
                calls=int(dice.expovariate(1 / 400)) + 1,
            )
        )
    return blows
