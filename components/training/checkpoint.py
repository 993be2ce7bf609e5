"""Everything a Keras training depends on, saved after each epoch, so that a killed one ends as if nothing had happened.

Keras' own `BackupAndRestore` keeps the weights and forgets what early stopping and learning-rate reduction have
counted, and a backup cut short makes the restart fail. Here both are saved too, and a checkpoint appears by a rename.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from components.storage.files import read_json, write_json

_STATE, _ARRAYS = "state.json", "arrays.npz"


class Checkpoint(keras.callbacks.Callback):
    """Saves weights, optimizer, seeds, history and the state of other callbacks; must be the last of the callbacks.

    Args:
        folder: where the checkpoints of one training live; the newest complete one counts.
        others: callbacks whose counters are saved, by name.
        writes: whether to save; of several workers that share the folder, one does.

    Attributes:
        num_epochs: finished epochs.
        is_stopped: whether training had ended early when it was saved.
        history: each logged number, a value an epoch.
    """

    def __init__(self, folder: Path, others: Mapping[str, keras.callbacks.Callback], *, writes: bool = True) -> None:
        super().__init__()
        self.folder = folder
        self.others = others
        self.writes = writes
        self.num_epochs = 0
        self.is_stopped = False
        self.history: dict[str, list[float]] = {}
        self._state: dict[str, dict[str, Any]] = {}
        self._best_weights: dict[str, list[np.ndarray]] = {}

    def restore(self, network: keras.Model) -> None:
        """Bring a compiled network to the newest checkpoint, if there is one."""
        # A checkpoint that was being removed when its process was killed may have lost one of its files.
        complete = [p for p in self.folder.glob("epoch-*") if (p / _STATE).exists() and (p / _ARRAYS).exists()]
        found = sorted(p for p in complete if p.suffix != ".partial")
        if not found:
            return
        saved = read_json(found[-1] / _STATE)
        self.num_epochs, self.is_stopped = saved["num_epochs"], saved["is_stopped"]
        self.history, self._state = saved["history"], saved["others"]
        with np.load(found[-1] / _ARRAYS) as arrays:
            for number, variable in enumerate(_variables(network)):
                variable.assign(arrays[f"variable_{number}"])
            for name in self.others:
                best = sorted((k for k in arrays if k.startswith(f"{name}_best_")), key=lambda k: int(k.split("_")[-1]))
                self._best_weights[name] = [arrays[key] for key in best]

    def on_train_begin(self, logs: Any = None) -> None:
        # The other callbacks have just forgotten everything.
        for name, state in self._state.items():
            vars(self.others[name]).update(state)
            if self._best_weights[name]:
                vars(self.others[name])["best_weights"] = self._best_weights[name]

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        self.num_epochs = epoch + 1
        if self.writes:
            self._save()

    def _save(self) -> None:
        arrays = {f"variable_{n}": v.numpy() for n, v in enumerate(_variables(self.model))}
        for name, callback in self.others.items():
            for number, best in enumerate(getattr(callback, "best_weights", None) or ()):
                arrays[f"{name}_best_{number}"] = best
        state = {
            "num_epochs": self.num_epochs,
            "is_stopped": bool(self.model.stop_training),
            "history": self.history,
            "others": {name: _counters(callback) for name, callback in self.others.items()},
        }
        path = self.folder / f"epoch-{self.num_epochs:05d}"
        partial = path.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        np.savez(partial / _ARRAYS, **arrays)
        write_json(partial / _STATE, state)
        partial.rename(path)
        for older in self.folder.iterdir():
            if older != path:
                shutil.rmtree(older)


def _variables(network: keras.Model) -> list[keras.Variable]:
    network.optimizer.build(network.trainable_variables)
    return [*network.variables, *network.optimizer.variables]


def _counters(callback: keras.callbacks.Callback) -> dict[str, float | int]:
    names = ("wait", "best", "best_epoch", "stopped_epoch", "cooldown_counter")
    return {n: getattr(callback, n) for n in names if isinstance(getattr(callback, n, None), (int, float))}
