"""The vocabulary in which a pipeline is declared: steps, what each reads, and which options it takes.

A declaration is data only. It names functions instead of importing them, so that any runner can read it without loading
TensorFlow: the local runner here, or one that turns each step into a container.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Step:
    """One box of the pipeline: a plain function from input folders to one new output folder.

    Attributes:
        name: what users type, and the folder its artifacts are kept in.
        function: `package.module:function`; called with the inputs, options and state below and with `out_dir`, it
            returns the few numbers worth a log line.
        inputs: parameter name to the step whose output folder is passed.
        optional: parameter name of an input to the option, `parameter.name`, without which it is neither passed nor
            waited for.
        options: parameter name to the section of the configuration that is passed.
        unkeyed: options, `parameter.name`, that never change a byte of the output, so that they are not in its key.
        source: `package.module:function` that describes what the step reads from outside the pipeline, given its
            options. It runs before any step does, so a missing folder is found first. `None` when it reads nothing.
        programs: modules that the step runs as processes of their own; their code counts as the step's.
        libraries: packages, beside those of every step (`fingerprint.LIBRARIES`), whose version decides the result.
        state: parameter name to the folder, kept between runs, that the step reads and writes. A step with state is run
            every time and finds out itself whether there is anything to do.
        incremental: parameters of inputs, `source` or `options` that may change while most of the output stays as it
            was. The step is passed `earlier_dir`, the newest of its outputs that differs in nothing else, or `None`.
        is_background: whether the local runner goes on with the steps that follow while this one is running, up to the
            one that needs its output.
        is_timed: whether the step measures time, so that nothing may run in the background meanwhile.
        resumable: whether the step goes on from what a killed attempt left in its output folder.
        is_distributed: whether the step can use several workers: it is passed `cluster`, the workers or `None`.
        is_spread: whether a Beam pipeline can do the work, where `options.engine` asks for it: the step is passed
            `engine`, which calls a function on each part of the work and waits, or `None`.
        accepts_missing: whether the step does without an input that is not available (it holds `missing.json`);
            any other step is skipped, and its output is missing, too.
        fallback_option: the option by which a user chooses the step's fallback; `None` for a step without one. An
            output that stands on a fallback says why in its summary, `fallback`, and is tried again in every run.
        fallback_probe: `package.module:function` that returns, given the step's options, why it is sure to fall back
            now, or `None`, sooner than the step itself. Without one the step is run.
        kind: what comes out, in the words of Kubeflow Pipelines: `Dataset`, `Model`, `Metrics`, `HTML` (a folder with a
            page to show) or any `Artifact`.
    """

    name: str
    function: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    unkeyed: Sequence[str] = ()
    source: str | None = None
    programs: Sequence[str] = ()
    libraries: Sequence[str] = ()
    state: Mapping[str, str] = field(default_factory=dict)
    incremental: Sequence[str] = ()
    is_background: bool = False
    is_timed: bool = False
    resumable: bool = False
    is_distributed: bool = False
    is_spread: bool = False
    accepts_missing: bool = False
    fallback_option: str | None = None
    fallback_probe: str | None = None
    kind: str = "Artifact"


def load(reference: str) -> Callable[..., Any]:
    """Import the function that a `package.module:function` reference names."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
