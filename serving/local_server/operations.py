"""Operations that are not TensorFlow's own: the packages that have them are imported where a model needs them.

TensorFlow Serving has those of TensorFlow Text and of Decision Forests built in.
"""

import importlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tensorflow.python.framework import op_def_registry

from serving.local_server.errors import not_found

log = logging.getLogger(__name__)

# How the names of their operations begin (`REGISTER_OP` in both packages' sources).
_PACKAGES = {
    "tensorflow_decision_forests": ("SimpleML",),
    "tensorflow_text": (
        "CaseFoldUTF8",
        "ConstrainedSequence",
        "FindSourceOffsets",
        "MaxSpanningTree",
        "NormalizeUTF8",
        "RegexSplit",
        "RougeL",
        "SentenceFragments",
        "Sentencepiece",
        "SplitMerge",
        "TFText>",
        "UnicodeScriptTokenize",
        "WhitespaceTokenize",
        "WordpieceTokenize",
    ),
}


def register(graph: Any, version_dir: Path) -> None:
    """Import the packages whose operations a graph runs.

    Args:
        graph: a `GraphDef`.
        version_dir: where it comes from, for messages.

    Raises:
        StatusError: it runs operations that are registered nowhere.
    """
    missing = sorted({name for name in _list_operations(graph) if not _is_registered(name)})
    hints = []
    for package, prefixes in _PACKAGES.items():
        if not any(name.startswith(prefixes) for name in missing):
            continue
        log.info("%s needs %s", version_dir, package)
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as exc:
            hints.append(f"{package} has such operations and is not installed ({exc}): install it.")
        except Exception as exc:
            # One that was built for another TensorFlow may raise anything.
            hints.append(f"{package} has such operations and cannot be imported: {type(exc).__name__}: {exc}.")
        else:
            hints.append(f"{package} has such operations, in another version perhaps.")
    if missing := [name for name in missing if not _is_registered(name)]:
        names = ", ".join(f"'{name}'" for name in missing)
        hint = " ".join(hints) or "They are of no package that is known here: export the model without them."
        raise not_found(f"Op type not registered {names}, which {version_dir} runs. {hint}")


def _list_operations(graph: Any) -> Iterator[str]:
    """Yield the operations of a graph and of the functions that it calls, at whatever depth."""
    functions = {function.signature.name: function for function in graph.library.function}
    names = set(functions)
    waiting: list[Iterable[Any]] = [graph.node]
    while waiting:
        for node in waiting.pop():
            called = [node.op, *(name for value in node.attr.values() for name in _list_functions(value))]
            waiting += [functions.pop(name).node_def for name in called if name in functions]
            if node.op not in names:  # a function may be called like an operation
                yield node.op


def _list_functions(value: Any) -> list[str]:
    return [function.name for function in (value.func, *value.list.func) if function.name]


def _is_registered(name: str) -> bool:
    return op_def_registry.get(name) is not None
