"""Checks of options: each raises a `ValueError` that states the rule and the value received. NaN fails them all."""

from collections.abc import Callable, Sequence
from typing import Any


def check_at_least(options: object, minimum: float, *names: str) -> None:
    """Check that each named option is at least the minimum."""
    _check(options, names, f"at least {minimum}", lambda value: value >= minimum)


def check_above(options: object, minimum: float, *names: str) -> None:
    """Check that each named option is above the minimum."""
    _check(options, names, f"above {minimum}", lambda value: value > minimum)


def check_range(options: object, minimum: float, maximum: float, *names: str) -> None:
    """Check that each named option lies between the minimum and the maximum, or is one of both."""
    _check(options, names, f"{minimum} to {maximum}", lambda value: minimum <= value <= maximum)


def check_fraction(options: object, *names: str) -> None:
    """Check that each named option is a part that leaves some: at least 0 and below 1."""
    _check(options, names, "at least 0 and below 1", lambda value: 0 <= value < 1)


def check_rate(options: object, *names: str) -> None:
    """Check that each named option is a learning rate: above 0 and at most 1."""
    _check(options, names, "above 0 and at most 1", lambda value: 0 < value <= 1)


def check_seed(options: object) -> None:
    """Check that the seed is one that every generator of random numbers takes."""
    check_range(options, 0, 2**31 - 1, "seed")


def check_choice(options: object, choices: Sequence[str], *names: str) -> None:
    """Check that each named option is one of the choices."""
    _check(options, names, f"one of {', '.join(choices)}", lambda value: value in choices)


def _check(options: object, names: Sequence[str], rule: str, is_kept: Callable[[Any], bool]) -> None:
    for name in names:
        value = getattr(options, name)
        if not is_kept(value):
            raise ValueError(f"{name} must be {rule}. Received: {value!r}")
