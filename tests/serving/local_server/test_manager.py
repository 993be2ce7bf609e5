import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving.local_server import manager as manager_module
from serving.local_server.errors import Code, StatusError, failed_precondition
from serving.local_server.loading import load
from serving.local_server.manager import ManagerOptions, ModelManager
from serving.local_server.model_config import ModelConfig
from serving.local_server.servable import Array, LoadOptions
from serving.local_server.versions import AVAILABLE, END, LOADING, UNLOADING
from tests.serving.local_server.conftest import linux, status_error

TIMEOUT_S = 60
pytestmark = pytest.mark.anyio
STATES = {LOADING: "LOADING", AVAILABLE: "AVAILABLE", UNLOADING: "UNLOADING", END: "END"}


class Servable:
    """A loaded version; it notes when it is closed."""

    signatures: Mapping[str, Any] = {}

    def __init__(self, name: str, events: list[str]) -> None:
        self.name = name
        self._events = events

    def shape(self, tensor_name: str) -> None:
        return None

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str]) -> list[Array]:
        return []

    def close(self) -> None:
        self._events.append(f"close {self.name}")


class Loader:
    """Loads the folders that `push` makes, and notes in which order; while `gate` is closed, it waits."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, model_name: str, version_dir: Path) -> Servable:
        name = f"{version_dir.parent.name}/{version_dir.name}"
        self.events.append(f"load {name}")
        assert self.gate.wait(TIMEOUT_S)
        content = (version_dir / "model").read_text()
        if content == "broken":
            raise failed_precondition(f"{name} is broken")
        if content == "out of memory":
            raise MemoryError
        if content == "bug":
            raise RuntimeError("a bug of the loader")
        return Servable(name, self.events)


@pytest.fixture
def loader() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    loader.gate.set()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "m"
    path.mkdir()
    return path


def push(base: Path, *versions: int | str, content: str = "fine") -> None:
    """Publish versions as one should: by a rename."""
    for version in versions:
        made = base.parent / f"{base.name}-{version}.tmp"
        made.mkdir()
        (made / "model").write_text(content)
        made.rename(base / str(version))


def make(loader: Loader, **options: Any) -> ModelManager:
    return ModelManager(loader, ManagerOptions(**{"poll_wait_s": 0.005, **options}))


async def serve(base: Path, loader: Loader, *versions: int | str, **policy: Any) -> ModelManager:
    """Publish versions, and return a manager that serves the model `m` by a policy."""
    push(base, *versions)
    manager = make(loader)
    await manager.configure([ModelConfig("m", base, **policy)])
    return manager


async def look(manager: ModelManager, *configs: ModelConfig) -> None:
    """Look at the folders once, whether or not there is something to serve in the end."""
    with suppress(StatusError):
        await manager.configure(configs)


@asynccontextmanager
async def watched(manager: ModelManager) -> AsyncIterator[None]:
    """Let a manager look for new versions while the block lasts, and close it in the end."""
    watching = asyncio.ensure_future(manager.watch())
    try:
        yield
    finally:
        watching.cancel()
        await manager.close()


async def until(condition: Callable[[], Any]) -> None:
    with anyio.fail_after(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.002)


def states(manager: ModelManager, name: str = "m") -> list[tuple[int, str]]:
    try:
        return [(version.number, STATES[version.state]) for version in manager.status(ModelSpec(name=name))]
    except StatusError:
        return []


def served(manager: ModelManager, name: str = "m") -> int:
    return manager.get(ModelSpec(name=name)).number


def specific(number: int, name: str = "m") -> ModelSpec:
    spec = ModelSpec(name=name)
    spec.version.value = number
    return spec


def labelled(label: str, name: str = "m") -> ModelSpec:
    return ModelSpec(name=name, version_label=label)


async def test_folders_with_a_number_for_a_name_are_versions(base: Path, loader: Loader) -> None:
    push(base, 1, "00000123", "seven", "1.5", "-4", "²", "v2", str(1 << 63))
    (base / "5").write_text("a file")
    (base / "9").symlink_to(base / "seven", target_is_directory=True)
    (base / "10").symlink_to(base / "nowhere")
    (base / "11").symlink_to(base / "11")
    manager = make(loader)
    await manager.configure([ModelConfig("m", base, num_latest=None)])
    assert states(manager) == [(123, "AVAILABLE"), (9, "AVAILABLE"), (1, "AVAILABLE")]
    assert served(manager) == 123


async def test_of_two_spellings_of_a_number_it_is_always_the_same_one_that_is_served(
    base: Path, loader: Loader
) -> None:
    push(base, "001", "1", "01")
    manager = make(loader)
    for _ in range(3):
        await manager.configure([ModelConfig("m", base, num_latest=None)])
    assert loader.events == ["load m/1"]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, [4]),
        ({"num_latest": 2}, [4, 3]),
        ({"num_latest": 9}, [4, 3, 2, 1]),
        ({"num_latest": None}, [4, 3, 2, 1]),
        ({"num_latest": None, "specific": (1, 3)}, [3, 1]),
        ({"num_latest": None, "specific": (3, 7)}, [3]),
    ],
)
async def test_the_policy_chooses_versions(
    base: Path, loader: Loader, policy: dict[str, Any], expected: list[int]
) -> None:
    manager = await serve(base, loader, 1, 2, 3, 4, **policy)
    assert states(manager) == [(number, "AVAILABLE") for number in expected]


async def test_a_new_version_is_loaded_before_the_old_one_is_unloaded(base: Path, loader: Loader) -> None:
    manager = await serve(base, loader, 1)
    async with watched(manager):
        loader.gate.clear()
        push(base, 2)
        await until(lambda: "load m/2" in loader.events)
        assert states(manager) == [(2, "LOADING"), (1, "AVAILABLE")]
        assert served(manager) == 1
        loader.gate.set()
        await until(lambda: states(manager) == [(2, "AVAILABLE"), (1, "END")])
        assert served(manager) == 2
        assert loader.events == ["load m/1", "load m/2", "close m/1"]


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ("broken", Code.FAILED_PRECONDITION, "m/2 is broken"),
        ("out of memory", Code.INTERNAL, "cannot be loaded: MemoryError"),
        ("bug", Code.INTERNAL, "cannot be loaded: RuntimeError: a bug of the loader"),
    ],
)
async def test_a_broken_version_keeps_the_old_one_and_shows_why(
    base: Path, loader: Loader, content: str, code: Code, message: str
) -> None:
    manager = await serve(base, loader, 1)
    push(base, 2, content=content)
    async with watched(manager):
        await until(lambda: states(manager) == [(2, "END"), (1, "AVAILABLE")])
        assert served(manager) == 1
        [broken, fine] = manager.status(ModelSpec(name="m"))
        assert broken.error is not None
        assert broken.error.code is code
        assert message in broken.error.message
        assert fine.error is None
        push(base, 3)  # and looking goes on
        await until(lambda: states(manager) == [(3, "AVAILABLE"), (2, "END"), (1, "END")])


async def test_a_broken_version_whose_files_change_is_tried_again_at_once(base: Path, loader: Loader) -> None:
    manager = make(loader, load_retry_interval_s=3600.0, max_num_load_retries=0)
    push(base, 2, content="broken")
    config = ModelConfig("m", base)
    await look(manager, config)
    await look(manager, config)
    assert loader.events == ["load m/2"]
    (base / "2" / "variables").mkdir()
    (base / "2" / "variables" / "data").write_text("half of it")
    await look(manager, config)
    assert loader.events == ["load m/2"] * 2
    (base / "2" / "model").write_text("fine")
    await manager.configure([config])
    assert states(manager) == [(2, "AVAILABLE")]


async def test_a_broken_version_that_stays_the_same_is_tried_again_after_a_while_and_then_given_up(
    base: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(manager_module, "time", SimpleNamespace(monotonic=lambda: now_s))
    manager = make(loader, load_retry_interval_s=60.0, max_num_load_retries=2)
    push(base, 2, content="broken")
    counts = []
    for _ in range(6):
        await look(manager, ModelConfig("m", base))
        now_s += 59.0
        await look(manager, ModelConfig("m", base))
        counts.append(len(loader.events))
        now_s += 1.0
    assert counts == [1, 2, 3, 3, 3, 3]
    assert states(manager) == [(2, "END")]


async def test_a_negative_interval_tries_again_at_once_and_then_gives_up(base: Path, loader: Loader) -> None:
    manager = make(loader, load_retry_interval_s=-1e-6, max_num_load_retries=2, poll_wait_s=0)
    push(base, 2, content="broken")
    push(base, 1)
    await look(manager, ModelConfig("m", base, num_latest=2))
    assert sorted(loader.events) == ["load m/1", *["load m/2"] * 3]
    await look(manager, ModelConfig("m", base, num_latest=2))
    assert len(loader.events) == 4
    assert states(manager) == [(2, "END"), (1, "AVAILABLE")]


async def test_an_error_does_not_keep_in_memory_what_was_loaded(base: Path) -> None:
    class Weights:
        pass

    watched: list[weakref.ref[Weights]] = []

    def fail(model_name: str, version_dir: Path) -> Any:
        weights = Weights()
        watched.append(weakref.ref(weights))
        raise failed_precondition("broken")

    manager = ModelManager(fail, ManagerOptions())
    push(base, 1)
    await look(manager, ModelConfig("m", base))
    gc.collect()
    assert manager.status(ModelSpec(name="m"))[0].error is not None
    assert watched[0]() is None


async def test_a_version_in_use_stays_in_memory_until_the_last_request_ends(base: Path, loader: Loader) -> None:
    manager = await serve(base, loader, 1)
    version = manager.get(ModelSpec(name="m"))
    with version.lease() as first:
        with version.lease() as second:
            assert first is second
            push(base, 2)
            await manager.configure([ModelConfig("m", base)])
            assert states(manager) == [(2, "AVAILABLE"), (1, "UNLOADING")]
        await asyncio.sleep(0.02)
        assert version.servable is first
        assert "close m/1" not in loader.events
        with version.lease() as third:  # a request that had found the version before
            assert third is first
    await until(lambda: states(manager) == [(2, "AVAILABLE"), (1, "END")])
    assert loader.events[-1] == "close m/1"
    with status_error(Code.UNAVAILABLE, "version 1 of model m is being unloaded"), version.lease():
        pass


async def test_a_version_wanted_again_while_it_is_unloaded_is_loaded_anew(base: Path, loader: Loader) -> None:
    push(base, 1, 2)
    manager = make(loader)
    one, two = (ModelConfig("m", base, None, specific=(number,)) for number in (1, 2))
    await manager.configure([one])
    with manager.get(specific(1)).lease():
        await manager.configure([two])
        await manager.configure([one])
        assert served(manager) == 1
        assert loader.events.count("load m/1") == 2
        assert "close m/1" not in loader.events
    await until(lambda: "close m/1" in loader.events)
    assert served(manager) == 1


async def test_a_version_whose_folder_goes_is_unloaded(base: Path, loader: Loader) -> None:
    manager = await serve(base, loader, 1, 2, num_latest=None)
    shutil.rmtree(base / "2")
    await manager.configure([ModelConfig("m", base, num_latest=None)])
    await until(lambda: states(manager) == [(2, "END"), (1, "AVAILABLE")])
    shutil.rmtree(base / "1")
    await look(manager, ModelConfig("m", base, num_latest=None))
    await until(lambda: states(manager) == [(2, "END"), (1, "END")])
    assert sorted(loader.events[2:]) == ["close m/1", "close m/2"]
    push(base, 1)
    await manager.configure([ModelConfig("m", base, num_latest=None)])
    assert served(manager) == 1


async def test_versions_are_served_on_while_the_base_path_cannot_be_read(
    base: Path, loader: Loader, caplog: pytest.LogCaptureFixture
) -> None:
    manager = await serve(base, loader, 1)
    base.rename(base.with_name("away"))
    for _ in range(3):
        await manager.configure([ModelConfig("m", base)])
    assert states(manager) == [(1, "AVAILABLE")]
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        f"Could not find base path {base} for servable m; still looking"
    ]
    base.with_name("away").rename(base)
    push(base, 2)
    await manager.configure([ModelConfig("m", base)])
    assert served(manager) == 2


@pytest.mark.parametrize(
    ("prepare", "config", "message"),
    [
        (lambda base: base.rmdir(), {}, "Could not find base path {base} for servable m"),
        (lambda base: None, {}, "No versions of servable m found under base path {base}"),
        (lambda base: push(base, "one"), {}, "No versions of servable m found under base path {base}"),
        (
            lambda base: push(base, 1),
            {"num_latest": None, "specific": (2,)},
            "Versions [2] of servable m are configured and not in {base}",
        ),
    ],
    ids=["missing", "empty", "no number", "another version"],
)
async def test_a_model_without_a_version_to_serve_is_reported_and_waited_for(
    base: Path,
    loader: Loader,
    prepare: Callable[[Path], None],
    config: dict[str, Any],
    message: str,
) -> None:
    prepare(base)
    manager = make(loader)
    with pytest.raises(StatusError) as caught:
        await manager.configure([ModelConfig("m", base, **config)])
    assert caught.value.code is Code.UNKNOWN
    assert caught.value.message.startswith("1 model(s) did not become available: {{{name: m} due to error: ")
    assert message.format(base=base) in caught.value.message
    base.mkdir(exist_ok=True)
    push(base, 2)
    async with watched(manager):
        await until(lambda: states(manager) == [(2, "AVAILABLE")])


async def test_a_base_path_that_is_there_and_cannot_be_read_is_not_called_missing(base: Path, loader: Loader) -> None:
    base.rmdir()
    base.touch()
    with pytest.raises(StatusError, match=f"Could not read base path {base} for servable m"):
        await make(loader).configure([ModelConfig("m", base)])


async def test_a_model_that_cannot_be_loaded_does_not_stop_the_others(base: Path, loader: Loader) -> None:
    push(base, 3, content="broken")
    good = base.with_name("good")
    good.mkdir()
    push(good, 1)
    manager = make(loader)
    with pytest.raises(StatusError) as caught:
        await manager.configure([ModelConfig("m", base), ModelConfig("good", good)])
    assert caught.value.message == (
        "1 model(s) did not become available: {{{name: m version: 3} due to error: FAILED_PRECONDITION: m/3 is broken}}"
    )
    assert served(manager, "good") == 1
    assert manager.describe() == "m: no version, good: 1"


async def test_a_configuration_reports_only_what_it_adds_or_changes(base: Path, loader: Loader) -> None:
    push(base, 1, content="broken")
    good, gone = (base.with_name(name) for name in ("good", "gone"))
    good.mkdir()
    push(good, 1)
    manager = make(loader)
    broken = ModelConfig("m", base)
    await look(manager, broken)
    await manager.configure([broken, ModelConfig("good", good)])
    await manager.configure([replace(broken), ModelConfig("good", good, labels={"stable": 1})])
    with status_error(Code.UNKNOWN, r"1 model\(s\) did not become available: \{\{\{name: new\} due to error: .*gone"):
        await manager.configure([broken, ModelConfig("good", good), ModelConfig("new", gone)])
    with status_error(
        Code.UNKNOWN, r"1 model\(s\) did not become available: \{\{\{name: m version: 1\} due to error: "
    ):
        await manager.configure([replace(broken, num_latest=2), ModelConfig("good", good)])


async def test_versions_of_a_model_that_is_no_longer_configured_end(
    base: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager_module, "_MAX_REMOVED", 2)
    push(base, 1)
    push(base, 2, content="broken")
    manager = make(loader)
    config = ModelConfig("m", base, num_latest=None)
    await manager.configure([config])
    with manager.get(specific(1)).lease():
        await manager.configure([])
        assert states(manager) == [(2, "END"), (1, "UNLOADING")]
    await until(lambda: states(manager) == [(2, "END"), (1, "END")])
    error = manager.status(specific(2))[0].error
    assert error is not None
    assert error.message == "m/2 is broken"
    with status_error(Code.NOT_FOUND, r"Servable not found for request: Latest\(m\)"):
        manager.get(ModelSpec(name="m"))
    await manager.configure([replace(config, num_latest=None, specific=(1,))])
    assert states(manager) == [(2, "END"), (1, "AVAILABLE")]
    for name in ("m", "a", "b"):  # one after the other
        await look(manager, ModelConfig(name, base))
    await manager.configure([])
    assert [bool(states(manager, name)) for name in ("m", "a", "b")] == [False, True, True]


ALLOW = {"allow_labels_for_unavailable": True}
FORCE = {"force_labels_for_unavailable": True}


@pytest.mark.parametrize(
    ("options", "before", "after", "allowed"),
    [
        ({}, {}, {"stable": 1, "canary": 2}, True),
        ({}, {"stable": 1}, {"stable": 2}, True),
        ({}, {}, {"stable": 3}, False),
        ({}, {}, {"stable": 9}, False),
        ({}, {"stable": 1}, {"stable": 3}, False),
        (ALLOW, {}, {"stable": 3}, True),
        (ALLOW, {"stable": 1}, {"stable": 3}, False),
        (ALLOW, {"stable": 1}, {"canary": 9}, True),
        (FORCE, {"stable": 1}, {"stable": 3}, True),
        (FORCE, {}, {"stable": 9}, True),
    ],
)
async def test_a_label_names_an_available_version_unless_a_flag_allows_another(
    base: Path, loader: Loader, options: dict[str, bool], before: dict[str, int], after: dict[str, int], allowed: bool
) -> None:
    push(base, 1, 2)
    push(base, 3, content="broken")
    manager = make(loader, **options)
    config = ModelConfig("m", base, num_latest=None)
    await manager.configure([config])
    await manager.configure([replace(config, labels=before)])
    if allowed:
        await manager.configure([replace(config, labels=after)])
    else:
        with status_error(Code.FAILED_PRECONDITION, r"Request to assign label to version . of model m, which is not"):
            await manager.configure([replace(config, labels=after)])
    assert {label: manager.resolve(labelled(label)) for label in (after if allowed else before)} == (
        after if allowed else before
    )


async def test_a_refused_label_leaves_everything_as_it_was(base: Path, loader: Loader) -> None:
    """As in TensorFlow Serving, a version has to be available before the edit that gives it a label."""
    push(base, 1, 2)
    manager = make(loader)
    one, both = (ModelConfig("m", base, None, specific=versions) for versions in ((1,), (1, 2)))
    await manager.configure([one])
    await manager.configure([replace(one, labels={"stable": 1})])
    with pytest.raises(StatusError, match="label to version 2"):
        await manager.configure([replace(both, labels={"stable": 1, "canary": 2}), ModelConfig("new", base)])
    assert states(manager) == [(1, "AVAILABLE")]
    assert not manager.knows("new")
    await manager.configure([replace(both, labels={"stable": 1})])
    await manager.configure([replace(both, labels={"stable": 2, "canary": 2})])
    assert manager.get(labelled("stable")).number == 2
    await manager.configure([both])
    with pytest.raises(StatusError, match="Unrecognized servable version label: stable"):
        manager.get(labelled("stable"))


async def test_a_configuration_adds_changes_and_removes_models(base: Path, loader: Loader) -> None:
    push(base, 1, 2)
    manager = make(loader)
    await manager.configure([ModelConfig("a", base), ModelConfig("b", base, num_latest=2)])
    await manager.configure([ModelConfig("b", base), ModelConfig("c", base)])
    assert not manager.knows("a")
    assert states(manager, "c") == [(2, "AVAILABLE")]
    await until(lambda: states(manager, "b") == [(2, "AVAILABLE"), (1, "END")])
    with pytest.raises(StatusError, match=r"Servable not found for request: Latest\(a\)"):
        manager.get(ModelSpec(name="a"))
    await until(lambda: len(loader.events) == 6)
    assert sorted(loader.events) == ["close m/1", "close m/2", "load m/1", "load m/2", "load m/2", "load m/2"]
    await manager.configure([])
    await until(lambda: loader.events.count("close m/2") == 3)


async def test_versions_of_a_new_base_path_are_loaded_before_those_of_the_old_one_go(
    base: Path, loader: Loader
) -> None:
    other = base.with_name("other")
    other.mkdir()
    push(base, 1)
    push(other, 1)
    manager = make(loader)
    await manager.configure([ModelConfig("m", base)])
    loader.gate.clear()
    changing = asyncio.ensure_future(manager.configure([ModelConfig("m", other)]))
    await until(lambda: "load other/1" in loader.events)
    assert manager.get(ModelSpec(name="m")).path == base / "1"
    loader.gate.set()
    await changing
    assert manager.get(ModelSpec(name="m")).path == other / "1"
    await until(lambda: "close m/1" in loader.events)
    await manager.configure([ModelConfig("m", other)])
    assert states(manager) == [(1, "AVAILABLE")]


@pytest.mark.parametrize("content", ["broken", None])
async def test_a_new_base_path_without_a_model_keeps_the_old_one(
    base: Path, loader: Loader, content: str | None
) -> None:
    other = base.with_name("other")
    push(base, 1)
    if content:
        other.mkdir()
        push(other, 1, content=content)
    manager = make(loader)
    await manager.configure([ModelConfig("m", base)])
    await manager.configure([ModelConfig("m", other)])
    assert manager.get(ModelSpec(name="m")).path == base / "1"
    errors = [version.error and version.error.message for version in manager.status(ModelSpec(name="m"))]
    assert errors == ([None, "other/1 is broken"] if content else [None])


async def test_a_configuration_goes_on_when_its_caller_hangs_up(base: Path, loader: Loader) -> None:
    push(base, 1)
    manager = make(loader)
    loader.gate.clear()
    calling = asyncio.ensure_future(manager.configure([ModelConfig("m", base)]))
    await until(lambda: loader.events)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    loader.gate.set()
    await until(lambda: states(manager) == [(1, "AVAILABLE")])


async def test_a_model_dropped_while_it_is_loaded_is_unloaded(base: Path, loader: Loader) -> None:
    push(base, 1)
    manager = make(loader)
    async with watched(manager):
        await look(manager, ModelConfig("m", base.with_name("nowhere")))
        await look(manager, ModelConfig("m", base))
        loader.gate.clear()
        push(base, 2)
        await until(lambda: "load m/2" in loader.events)
        await manager.configure([])
        loader.gate.set()
        await until(lambda: sorted(loader.events) == ["close m/1", "close m/2", "load m/1", "load m/2"])


async def test_a_good_version_is_always_served_whatever_is_pushed_and_configured_at_once(
    base: Path, loader: Loader
) -> None:
    push(base, 1)
    manager = make(loader, poll_wait_s=0.001, load_retry_interval_s=0.0)
    configs = [ModelConfig("m", base), ModelConfig("m", base, num_latest=3), ModelConfig("m", base, num_latest=None)]
    await manager.configure(configs[:1])
    failures: list[StatusError] = []

    async def read() -> None:
        while True:
            try:
                with manager.get(ModelSpec(name="m")).lease() as servable:
                    await asyncio.sleep(0)
                    assert f"close {servable.name}" not in loader.events
            except StatusError as exc:
                failures.append(exc)
            await asyncio.sleep(0)

    async with watched(manager):
        reading = [asyncio.ensure_future(read()) for _ in range(4)]
        for number in range(2, 32):
            push(base, number, content="broken" if number % 3 == 0 else "fine")
            await asyncio.gather(*(manager.configure([configs[(number + i) % 3]]) for i in range(2)))
        await manager.configure(configs[:1])
        await until(lambda: [n for n, state in states(manager) if state == "AVAILABLE"] == [31])
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await until(lambda: all(state in ("AVAILABLE", "END") for _, state in states(manager)))
    assert not failures


@pytest.mark.parametrize(("spec", "number"), [(specific(3), 3), (specific(9), 9), (labelled("next"), 9)])
async def test_a_version_that_is_not_available_is_not_found(base: Path, loader: Loader, spec: Any, number: int) -> None:
    push(base, 1, 2)
    push(base, 3, content="broken")
    manager = make(loader, allow_labels_for_unavailable=True)
    await manager.configure([ModelConfig("m", base, num_latest=None, labels={"stable": 1, "next": 9})])
    assert manager.get(labelled("stable")).number == 1
    assert manager.get(specific(2)).number == 2
    with status_error(Code.NOT_FOUND, rf"Servable not found for request: Specific\(m, {number}\)"):
        manager.get(spec)


async def test_status_lists_versions_by_number(base: Path, loader: Loader) -> None:
    push(base, 1, 10, 2)
    manager = make(loader)
    config = ModelConfig("m", base, num_latest=None)
    await manager.configure([config])
    await manager.configure([replace(config, labels={"stable": 2})])
    assert [version.number for version in manager.status(ModelSpec(name="m"))] == [10, 2, 1]
    assert [version.number for version in manager.status(labelled("stable"))] == [10, 2, 1]
    assert [version.number for version in manager.status(specific(2))] == [2]
    with status_error(Code.NOT_FOUND, "Could not find any versions of model $"):
        manager.status(ModelSpec())


async def test_closing_ends_what_runs_in_the_background(base: Path, loader: Loader) -> None:
    before = asyncio.all_tasks()
    manager = await serve(base, loader, 1)
    with manager.get(ModelSpec(name="m")).lease():
        push(base, 2)
        await manager.configure([ModelConfig("m", base)])
        assert states(manager) == [(2, "AVAILABLE"), (1, "UNLOADING")]
        loader.gate.clear()
        push(base, 3)
        loading = asyncio.ensure_future(manager.configure([ModelConfig("m", base)]))
        await until(lambda: "load m/3" in loader.events)
        await manager.close()
        with pytest.raises(asyncio.CancelledError):
            await loading
    assert asyncio.all_tasks() == before


@linux
async def test_reloading_a_model_does_not_use_up_memory(tmp_path: Path, models_dir: Path) -> None:
    base = tmp_path / "heavy"
    base.mkdir()
    manager = ModelManager(lambda name, path: load(path, LoadOptions()), ManagerOptions(num_load_threads=1))
    resident_mb: list[float] = []
    for number in range(1, 9):
        (base / str(number)).symlink_to(models_dir / "heavy" / "1", target_is_directory=True)
        await manager.configure([ModelConfig("m", base)])
        await until(lambda: [state for _, state in states(manager)].count("AVAILABLE") == 1)
        await until(lambda: "UNLOADING" not in [state for _, state in states(manager)])
        resident_mb.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6)
    # The first loads fill caches and pools of memory; after these, one that is not freed takes 20 MB or more.
    assert resident_mb[-1] - resident_mb[3] < 30, resident_mb
