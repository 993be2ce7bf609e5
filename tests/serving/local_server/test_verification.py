"""With a verify key the local server loads no version but signed ones, and what it served before goes on."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorflow_serving.apis.model_pb2 import ModelSpec

from client.classifier_client.signing import read_verify_key
from export.signing import read_signer
from serving.local_server import settings
from serving.local_server.errors import Code, StartError
from serving.local_server.flags import parse
from serving.local_server.verification import verifying
from tests.serving.local_server.conftest import start_server, status_error, wait_until
from tests.serving.local_server.test_manager import (
    Loader,
    ModelConfig,
    look,
    make,
    push,
    served,
    states,
    until,
    watched,
)
from tests.signing_keys import Pair, write_key


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "m"
    path.mkdir()
    return path


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return write_key(tmp_path)


def push_signed(base: Path, pair: Pair, version: int, damage: Callable[[Path], object] = lambda _: None) -> Path:
    made = base.parent / str(version)
    made.mkdir()
    (made / "model").write_text("fine")
    read_signer(pair.private).sign(made, f"m/{version}")
    damage(made)
    return made.rename(base / str(version))


@pytest.mark.anyio
async def test_a_version_that_does_not_verify_ends_and_the_old_one_is_served(
    base: Path, loader: Loader, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    push_signed(base, pair, 1)
    manager = make(verifying(loader, read_verify_key(pair.public)), max_num_load_retries=2, load_retry_interval_s=0)  # type: ignore[arg-type]
    await manager.configure([ModelConfig("m", base)])
    with caplog.at_level(logging.ERROR):
        async with watched(manager):
            push_signed(base, pair, 2, lambda folder: (folder / "model").write_text("evil"))
            await until(lambda: caplog.text.count("version 2 cannot be served") == 3)
            assert states(manager) == [(2, "END"), (1, "AVAILABLE")]
            # Two more looks: the last of its attempts was the third.
            push(base, 0)
            await until(lambda: not manager._models["m"].lock.locked())
            await look(manager, ModelConfig("m", base))
            assert caplog.text.count("version 2 cannot be served") == 3
            assert served(manager) == 1
            assert loader.events == ["load m/1"]
            [refused, _] = manager.status(ModelSpec(name="m"))
            assert refused.error is not None
            assert refused.error.code is Code.FAILED_PRECONDITION
            assert "2 holds another 'model' than the one that was signed" in refused.error.message
            # What is pushed again, or in its place, is served.
            shutil.rmtree(base / "2")
            push_signed(base, pair, 2)
            await until(lambda: served(manager) == 2)


def test_a_version_that_is_written_while_it_is_loaded_is_closed_again(base: Path, loader: Loader, pair: Pair) -> None:
    folder = push_signed(base, pair, 1)

    def load(name: str, version_dir: Path) -> object:
        loaded = loader(name, version_dir)
        (folder / "model").write_text("evil")
        return loaded

    with status_error(Code.FAILED_PRECONDITION, "was changed while it was loaded: 'model'"):
        verifying(load, read_verify_key(pair.public))("m", folder)  # type: ignore[arg-type]
    assert loader.events == ["load m/1", "close m/1"]


def test_the_key_is_read_before_the_start(tmp_path: Path, pair: Pair) -> None:
    def read(key: Path) -> settings.Settings:
        flags = ["--model_base_path=models", "--port=0", f"--grpc_socket_path={tmp_path}/s", f"--verify_key={key}"]
        return settings.read(parse(flags))

    assert read(pair.public).verify_key
    with pytest.raises(StartError, match=r"must be public.*The flag is --verify_key"):
        read(pair.private)


def test_a_server_refuses_a_saved_model_with_a_changed_byte(tmp_path: Path, models_dir: Path, pair: Pair) -> None:
    base_path = tmp_path / "half_plus_two"
    for version in (1, 2):
        made = tmp_path / str(version)
        shutil.copytree(models_dir / "half_plus_two" / "00000123", made)
        read_signer(pair.private).sign(made, f"half_plus_two/{version}")
        if version == 2:
            content = bytearray((made / "saved_model.pb").read_bytes())
            content[len(content) // 2] ^= 1
            (made / "saved_model.pb").write_bytes(content)
        base_path.mkdir(exist_ok=True)
        made.rename(base_path / str(version))
    policy = write_policy(tmp_path, base_path)
    flags = {"model_config_file": policy, "verify_key": pair.public, "max_num_load_retries": 0}
    with start_server(tmp_path / "log", **flags) as server:
        wait_until(lambda: len(server.get("/v1/models/m")[1]["model_version_status"]) == 2)
        [refused, served_] = server.get("/v1/models/m")[1]["model_version_status"]
        assert (refused["version"], refused["state"]) == ("2", "END")
        assert "holds another 'saved_model.pb' than the one that was signed" in refused["status"]["error_message"]
        assert (served_["version"], served_["state"]) == ("1", "AVAILABLE")
        assert server.predict("m", instances=[1.0]) == (200, {"predictions": [2.5]})


def write_policy(folder: Path, base_path: Path) -> Path:
    path = folder / "models.config"
    path.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{base_path}" model_platform: "tensorflow" '
        "model_version_policy { all {} } } }"
    )
    return path
