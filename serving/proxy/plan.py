"""What a release asks of the proxy, and what the proxy has seen for it."""

import hashlib
import math
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

SHADOW, SPLIT = "shadow", "split"
MODES = (SHADOW, SPLIT)
LEASE_S = 15.0
"""A plan ends when its release has not called for so long: one that was killed leaves nothing behind."""

_MAX_OBSERVATIONS = 10_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How requests for a model are handled while a release goes on.

    Attributes:
        mode: `shadow` sends each to both versions and returns stable's response; `split` sends a share to the canary.
        stable: the number of the version that serves.
        canary: the number of the version to be released.
        share: of the photos that go to the canary in split.
        salt: drawn for each release, so that each one has other photos in its share.
        timeout_s: for the canary; then stable responds.
    """

    mode: str
    stable: int
    canary: int
    share: float = 0.1
    salt: str = ""
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}. Received: {self.mode!r}")
        for name in ("stable", "canary"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name} must be the number of a version. Received: {getattr(self, name)!r}")
        if not 0 < self.share < 1:
            raise ValueError(f"share must be above 0 and below 1. Received: {self.share!r}")
        if not 0 < self.timeout_s < math.inf:
            raise ValueError(f"timeout_s must be above 0. Received: {self.timeout_s!r}")

    def goes_to_canary(self, photos: str) -> bool:
        """Return whether photos, by their SHA-256, go to the canary in split: always the same for the same ones.

        >>> plan = Plan(mode="split", stable=1, canary=2, share=0.25)
        >>> 200 < sum(plan.goes_to_canary(str(number)) for number in range(1000)) < 300
        True
        """
        digest = hashlib.sha256(f"{self.salt} {photos}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.share * 2**64


class Board:
    """The plan that is in force, and the newest observations, numbered from 1. It lives on the event loop.

    Attributes:
        num_observed: the number of the last observation.
        num_skipped: requests that were not compared, because too many were at work.
        num_compared: requests that both versions of this plan got.
        is_warm: the canary has responded once; before, TensorFlow still prepares its graph.
        is_timing: a request is being timed.
    """

    def __init__(self, lease_s: float = LEASE_S) -> None:
        self._lease_s = lease_s
        self._plan: Plan | None = None
        self._end_s = 0.0
        self._observations: deque[dict[str, Any]] = deque(maxlen=_MAX_OBSERVATIONS)
        self.num_observed = 0
        self.num_skipped = 0
        self.num_compared = 0
        self.is_warm = False
        self.is_timing = False

    @property
    def plan(self) -> Plan | None:
        """The plan in force; `None` where no release goes on."""
        return self._plan if time.monotonic() < self._end_s else None

    def begin(self, plan: Plan) -> None:
        """Put a plan into force. What was seen for another one is dropped."""
        if plan != self._plan:
            self._observations.clear()
            self.num_compared, self.is_warm, self.is_timing = 0, False, False
        self._plan = plan
        self.renew()

    def renew(self) -> None:
        """Let the plan go on for another while."""
        self._end_s = time.monotonic() + self._lease_s

    def end(self) -> None:
        """Send everything to stable from now on."""
        self._plan = None

    def add(self, plan: Plan, observation: dict[str, Any]) -> None:
        """Keep what was seen for a plan, if it is still in force."""
        if plan == self._plan:
            self.num_observed += 1
            self._observations.append({"number": self.num_observed, **observation})

    def after(self, number: int) -> list[dict[str, Any]]:
        """Return the observations after a number."""
        return [seen for seen in self._observations if seen["number"] > number]
