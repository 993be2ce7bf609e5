"""Lists on disk and sorting through it give what lists in memory give."""

import errno
import resource
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.storage import spill
from components.storage.spill import DiskList


@given(st.lists(st.text(max_size=3) | st.just("ros\udce9"), max_size=30))
def test_items_come_back_in_their_order_as_often_as_they_are_needed(items: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill, "_BLOCK", 4)
        patch.setattr(spill, "_NUM_BYTES_IN_MEMORY", 100)
        kept = DiskList(iter(items))
    one, other = iter(kept), iter(kept)
    assert list(zip(one, other, strict=True)) == [(item, item) for item in items]
    assert (len(kept), list(kept)) == (len(items), items)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers()), max_size=40))
def test_sorting_through_files_keeps_the_order_of_equal_keys(items: list[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill, "_RUN", 7)
        found = list(spill.sort(iter(items), key=lambda item: item[0]))
    assert found == sorted(items, key=lambda item: item[0])


def test_few_items_need_no_disk_and_the_error_of_many_names_its_folder() -> None:
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
    try:
        assert list(DiskList(range(1000))) == list(range(1000))
        with pytest.raises(OSError, match="File too large") as error:
            DiskList(range(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, tempfile.gettempdir())
