"""Models with operations of other packages: imported where they are installed, named where they are missing."""

import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tensorflow.core.framework import function_pb2, graph_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model.loader_impl import SavedModelLoader

from serving.local_server import operations
from serving.local_server.errors import Code
from serving.local_server.loading import load
from serving.local_server.servable import LoadOptions
from tests.serving.local_server.conftest import status_error


def save(path: Path, *names: str, called: str = "", uncalled: str = "", text: bool = False) -> Path:
    """Write a SavedModel of nodes with these operations, and of a function that is called and one that is not."""
    graph = graph_pb2.GraphDef(node=[{"name": f"node_{i}", "op": name} for i, name in enumerate(names)])
    for name, op in (("outer", "inner"), ("inner", called), ("other", uncalled)):
        if called or uncalled:
            body = function_pb2.FunctionDef(signature={"name": name}, node_def=[{"name": "n", "op": op or "NoOp"}])
            graph.library.function.append(body)
    if called:
        node = graph.node.add(name="call", op="StatefulPartitionedCall")
        node.attr["f"].func.name = "outer"
    signature = {"inputs": {"x": {"name": "node_0:0"}}, "outputs": {"y": {"name": "node_0:0"}}}
    meta = {"meta_info_def": {"tags": ["serve"]}, "graph_def": graph, "signature_def": {"serving_default": signature}}
    saved = saved_model_pb2.SavedModel(saved_model_schema_version=1, meta_graphs=[meta])
    path.mkdir()
    if text:
        (path / "saved_model.pbtxt").write_text(text_format.MessageToString(saved))
    else:
        (path / "saved_model.pb").write_bytes(saved.SerializeToString())
    return path


def register(path: Path, tag: str = "serve") -> None:
    operations.register(SavedModelLoader(str(path)).get_meta_graph_def_from_tags([tag]).graph_def, path)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the function that installs a package of a name and a body."""

    def fake(name: str, body: str) -> None:
        (tmp_path / "packages").mkdir(exist_ok=True)
        (tmp_path / "packages" / f"{name}.py").write_text(body)
        monkeypatch.syspath_prepend(str(tmp_path / "packages"))
        monkeypatch.delitem(sys.modules, name, raising=False)

    yield fake
    for name in ("tensorflow_text", "tensorflow_decision_forests"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("text", [False, True])
def test_operations_of_no_known_package_are_named(tmp_path: Path, text: bool) -> None:
    path = save(tmp_path / "1", "NoSuchOp", "Placeholder", "AnotherOp", text=text)
    with status_error(
        Code.NOT_FOUND, rf"Op type not registered 'AnotherOp', 'NoSuchOp', which {path} runs\. .* export"
    ):
        load(path, LoadOptions())


@pytest.mark.parametrize(
    ("op", "package"),
    [
        ("SimpleMLInferenceOpWithHandle", "tensorflow_decision_forests"),
        ("TFText>FastWordpieceTokenizeWithOffsets", "tensorflow_text"),
        ("SentencepieceTokenizeOp", "tensorflow_text"),
    ],
)
def test_the_package_that_has_an_operation_is_named(tmp_path: Path, op: str, package: str) -> None:
    path = save(tmp_path / "1", "Placeholder", called=op)
    with status_error(Code.NOT_FOUND, f"Op type not registered '{op}', .* {package} has such .* is not installed"):
        load(path, LoadOptions())


def test_an_installed_package_is_imported_before_the_model_is_loaded(
    tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("tensorflow_text", "imported = True")
    path = save(tmp_path / "1", "CaseFoldUTF8")
    with status_error(Code.NOT_FOUND, "'CaseFoldUTF8', .* tensorflow_text has such operations, in another version"):
        load(path, LoadOptions())
    assert sys.modules["tensorflow_text"].imported
    # As if the import had registered it: then the model is loaded, and TensorFlow has the last word.
    monkeypatch.setattr(operations, "_is_registered", lambda name: "tensorflow_text" in sys.modules)
    with status_error(Code.NOT_FOUND, "Op type not registered 'CaseFoldUTF8' in binary running on"):
        load(path, LoadOptions())


def test_a_package_that_cannot_be_imported_says_why(tmp_path: Path, fake: Any) -> None:
    fake("tensorflow_decision_forests", "raise RuntimeError('built for another TensorFlow')")
    path = save(tmp_path / "1", "SimpleMLCreateModelResource")
    with status_error(Code.NOT_FOUND, "cannot be imported: RuntimeError: built for another TensorFlow"):
        load(path, LoadOptions())


def test_only_what_is_run_counts(tmp_path: Path) -> None:
    register(save(tmp_path / "1", "Placeholder", uncalled="NoSuchOp"))
    path = save(tmp_path / "2", "NoSuchOp")
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    saved.meta_graphs.add(meta_info_def={"tags": ["train"]})
    (path / "saved_model.pb").write_bytes(saved.SerializeToString())
    register(path, "train")


def test_models_of_tensorflow_alone_have_nothing_missing(models_dir: Path) -> None:
    for path in models_dir.glob("*/*"):
        register(path)
    assert not {"tensorflow_text", "tensorflow_decision_forests"} & set(sys.modules)


def test_a_function_may_be_called_like_an_operation(tmp_path: Path) -> None:
    """As TensorFlow 1 does: here the function `outer` calls `inner`."""
    register(save(tmp_path / "1", "Placeholder", called="NoOp"))
