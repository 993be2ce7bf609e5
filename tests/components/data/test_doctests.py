"""The examples in docstrings."""

import doctest
from types import ModuleType

import pytest

from components import validator
from components.data import augmentation, duplicates
from components.data.sources import layout
from components.storage import spill


@pytest.mark.parametrize(
    "module", [augmentation, duplicates, layout, spill, validator], ids=lambda module: module.__name__
)
def test_examples_run(module: ModuleType) -> None:
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0
