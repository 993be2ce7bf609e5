"""The range of each check, and its message."""

from types import SimpleNamespace
from typing import Any

import pytest

from components import options

CHECKS = [
    (options.check_at_least, (1,), [1, 2.5], [0, 0.9], "at least 1"),
    (options.check_above, (0,), [1e-9, 3], [0, -1], "above 0"),
    (options.check_range, (0, 50), [0, 50], [-1, 51], "0 to 50"),
    (options.check_fraction, (), [0, 0.5], [-0.1, 1.0], "at least 0 and below 1"),
    (options.check_rate, (), [1e-3, 1], [0.0, 1.5], "above 0 and at most 1"),
    (options.check_choice, (("auto", "none"),), ["auto", "none"], ["nun"], "one of auto, none"),
]


@pytest.mark.parametrize(("check", "limits", "kept", "broken", "rule"), CHECKS, ids=[c[0].__name__ for c in CHECKS])
def test_check_passes_values_in_range_and_states_the_rule_for_others(
    check: Any, limits: tuple[Any, ...], kept: list[Any], broken: list[Any], rule: str
) -> None:
    for value in kept:
        check(SimpleNamespace(size=value, rate=value), *limits, "size", "rate")
    for value in (*broken, float("nan")):
        with pytest.raises(ValueError, match=rf"^rate must be {rule}\. Received: {value!r}$"):
            check(SimpleNamespace(size=kept[0], rate=value), *limits, "size", "rate")
