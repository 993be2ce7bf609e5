"""A declared pipeline as a file that Kubeflow Pipelines runs: KFP v2 IR, a container a step.

Reads a declaration and a configuration; writes one YAML file. Options become the pipeline's parameters, with the
configuration as their defaults, inputs and outputs typed artifacts. Each task calls `pipelines.kubeflow_task` in the
image that the top-level Dockerfile builds.
"""

import inspect
import linecache
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.errors import ComponentError
from pipelines import fingerprint
from pipelines.config import Config
from pipelines.declaration import Step, load
from pipelines.kubeflow_task import option_parameters, state_parameter

NAME = "flowers"
DESCRIPTION = "From labelled photos to a pushed, reported model."

_RESOURCES = {
    # The backbone runs on every core; fine-tuning keeps its activations for a whole batch.
    "features": ("4", "8G"),
    "trainer": ("4", "16G"),
}
_LEAST = ("1", "4G")
"""Processors and memory of any other step: TensorFlow and one model in memory."""

_TASK = """\
def {name}({parameters}):
    {description!r}
    # The step's code as it was compiled, {code}: with another, KFP's cache does not know the task.
    arguments = locals()
    from pipelines import kubeflow_task

    kubeflow_task.run({name!r}, **arguments)
"""


@dataclass(frozen=True, kw_only=True)
class KubeflowOptions:
    """How the pipeline runs on a cluster.

    Attributes:
        image: of every container.
        retries: how often a failed task is tried again, waiting twice as long each time.
        gpus: the number of graphics cards, by step, as it is typed.
        accelerator: what the cluster calls the cards.
        state: the folder, as a container sees it, by the name of the state; one that is not given here is given with
            every run.
    """

    image: str = "flowers-pipeline:latest"
    retries: int = 2
    gpus: Mapping[str, str] = field(default_factory=dict)
    accelerator: str = "nvidia.com/gpu"
    state: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ValueError(f"--retries must be at least 0. Received: {self.retries}")
        for step, count in self.gpus.items():
            if not count.isdecimal() or int(count) < 1:
                raise ValueError(f"--gpu takes a whole number of at least 1 for a step. Received: {step}={count}")

    def check(self, steps: Sequence[Step]) -> None:
        """Raise `ValueError` for a step or a state that the pipeline does not have."""
        known = {"step": {s.name for s in steps}, "state": {name for s in steps for name in s.state.values()}}
        for what, given in (("step", self.gpus), ("state", self.state)):
            for name in given:
                if name not in known[what]:
                    names = ", ".join(sorted(known[what]))
                    raise ValueError(f"The pipeline has no {what} {name!r}. It has: {names}.")


def compile_pipeline(steps: Sequence[Step], config: Config, options: KubeflowOptions, output: Path) -> int:
    """Write a pipeline as KFP v2 IR and give the number of its parameters.

    Raises:
        ValueError: the options do not fit the pipeline, or the file is no `.yaml`.
        ComponentError: KFP is not installed, or the file cannot be written.
    """
    options.check(steps)
    if output.suffix != ".yaml":
        raise ValueError(f"--output must end in .yaml. Received: {str(output)!r}")
    try:
        from kfp import compiler, dsl
    except ImportError as exc:
        raise ComponentError("compile needs kfp, which is not installed. Run: make scale") from exc
    parameters, descriptions = _parameters(steps, config, options)
    components = {step.name: _component(step, steps, config, options.image) for step in steps}

    def connect(*channels: Any) -> None:
        given = dict(zip(parameters, channels, strict=True))
        tasks: dict[str, Any] = {}
        for step in steps:
            task = components[step.name](
                **{parameter: tasks[name].outputs["output"] for parameter, name in step.inputs.items()},
                **{name: given[name] for name in _parameter_names(step, config)},
            )
            tasks[step.name] = task
            processors, memory = _RESOURCES.get(step.name, _LEAST)
            task.set_display_name(step.name).set_cpu_request(processors).set_memory_request(memory)
            task.set_retry(options.retries, backoff_duration="30s", backoff_factor=2)
            # A step with state looks at what is there, each time.
            task.set_caching_options(not step.state)
            if count := options.gpus.get(step.name):
                task.set_accelerator_type(options.accelerator).set_accelerator_limit(count)

    connect.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    lines = (f"    {name}: {text}" for name, text in descriptions.items())
    connect.__doc__ = "\n".join((f"{DESCRIPTION}\n\nArgs:", *lines))
    pipeline = dsl.pipeline(name=NAME)(connect)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(pipeline, str(output))
    except OSError as exc:
        raise ComponentError(f"{output} cannot be written: {exc.strerror}. Choose another file: --output") from exc
    return len(parameters)


def _parameters(
    steps: Sequence[Step], config: Config, options: KubeflowOptions
) -> tuple[dict[str, inspect.Parameter], dict[str, str]]:
    """Give the pipeline's parameters, those without a default first, and what is said of each."""
    import docstring_parser  # of kfp

    found: dict[str, inspect.Parameter] = {}
    descriptions: dict[str, str] = {}
    for step in steps:
        for folder in step.state.values():
            name = state_parameter(folder)
            default = options.state.get(folder, inspect.Parameter.empty)
            found[name] = _parameter(name, str, default)
            descriptions[name] = f"folder of the {folder}, kept between runs, as a container sees it"
        for name, section, option in option_parameters(step, config):
            value = getattr(getattr(config, section), option)
            value = list(value) if isinstance(value, tuple) else value
            found[name] = _parameter(name, type(value), value)
            attributes = docstring_parser.parse(type(getattr(config, section)).__doc__ or "").params
            described = {a.arg_name: a.description for a in attributes}
            descriptions[name] = " ".join((described.get(option) or "").split())
    return dict(sorted(found.items(), key=lambda item: item[1].default is not inspect.Parameter.empty)), descriptions


def _parameter(name: str, kind: type, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind, default=default)


def _parameter_names(step: Step, config: Config) -> list[str]:
    return [name for name, _, _ in option_parameters(step, config)] + [state_parameter(f) for f in step.state.values()]


def _component(step: Step, steps: Sequence[Step], config: Config, image: str) -> Any:
    """Make the KFP component of a step: a function that hands all it is given to `kubeflow_task.run`."""
    from kfp import dsl

    types = {s.name: "Artifact" if s.kind == "HTML" else s.kind for s in steps}
    annotations = {parameter: f"dsl.Input[dsl.{types[name]}]" for parameter, name in step.inputs.items()}
    for name, section, option in option_parameters(step, config):
        value = getattr(getattr(config, section), option)
        annotations[name] = "list" if isinstance(value, tuple) else type(value).__name__
    annotations |= {state_parameter(folder): "str" for folder in step.state.values()}
    annotations["output"] = f"dsl.Output[dsl.{types[step.name]}]"
    if step.kind == "HTML":
        annotations["page"] = "dsl.Output[dsl.HTML]"
    source = _TASK.format(
        name=step.name,
        parameters="".join(f"\n    {name}: {kind}," for name, kind in annotations.items()) + "\n",
        description=(inspect.getdoc(load(step.function)) or "").partition("\n")[0],
        code=fingerprint.of_code(step.function.partition(":")[0], *step.programs),
    )
    return dsl.component(base_image=image, install_kfp_package=False)(_define(step.name, source, {"dsl": dsl}))


def _define(name: str, source: str, namespace: dict[str, Any]) -> Callable[..., None]:
    """Define a function from its text, and keep the text where KFP looks for it."""
    filename = f"<task {name}>"
    exec(compile(source, filename, "exec"), namespace)
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    return namespace[name]
