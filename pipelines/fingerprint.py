"""What a step depends on, as short digests: its code, the libraries under it, any JSON value, the files of a folder."""

import ast
import hashlib
import importlib.metadata
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from components.storage.files import sha256

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("tensorflow", "keras", "numpy", "pillow")


def of_value(value: Any) -> str:
    """Digest a JSON value; equal values have equal digests whatever the order of their keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def of_file(path: Path) -> str:
    """Digest the bytes of a file: SHA-256, 64 hexadecimal digits."""
    return sha256(path)


@cache
def of_code(*modules: str) -> str:
    """Digest modules of ours and every module of ours that they import, however indirectly.

    Comments, docstrings, layout and what is imported for type checking alone do not count; files that share the
    module's name, such as a template, do.
    """
    seen: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        source = _source_of(name)
        if name in seen or source is None:
            continue
        package = name if source.name == "__init__.py" else name.rpartition(".")[0]
        code, imports = _read(source.read_text(), package)
        waiting += imports
        companions = sorted(p for p in source.parent.glob(f"{source.stem}.*") if p != source and p.is_file())
        seen[name] = of_value([code, *(of_file(p) for p in companions)])
    return of_value(seen)


@cache
def versions(*libraries: str) -> dict[str, str]:
    """Return the versions of Python, of `LIBRARIES` and of further libraries, on which a step's output depends."""
    found = {name: importlib.metadata.version(name) for name in (*LIBRARIES, *libraries)}
    return {"python": ".".join(map(str, sys.version_info[:2])), **found}


def _source_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


@cache
def _read(text: str, package: str) -> tuple[str, list[str]]:
    """Return what counts of a module of a package, and what it imports; steps have most of their modules in common."""
    tree = _parse(text)
    return ast.dump(tree), _imports(tree, package)


def _parse(text: str) -> ast.Module:
    """Parse a module without its docstrings and its imports for type checking."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [child for child in body if not _is_ignored(child)]  # type: ignore[attr-defined]
    return tree


def _is_ignored(node: ast.stmt) -> bool:
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _imports(tree: ast.Module, package: str) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return names
