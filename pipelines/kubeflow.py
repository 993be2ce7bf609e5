"""A declared pipeline as a file that Kubeflow Pipelines runs: KFP v2 IR, a container a step.

Reads a declaration and a configuration; writes one YAML file. Options become the pipeline's parameters, with the
configuration as their defaults, inputs and outputs typed artifacts. Each task calls `pipelines.kubeflow_task` in the
image that the top-level Dockerfile builds. One more task, `sources`, describes what the steps read from outside.
"""

import inspect
import linecache
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from components.errors import ComponentError
from components.storage.files import atomic_write
from pipelines import fingerprint
from pipelines.config import Config
from pipelines.declaration import Step, load
from pipelines.kubeflow_task import describe_sources, option_parameters, source_parameter, state_parameter

NAME = "flowers"
SOURCES = "sources"
DESCRIPTION = "From labelled photos to a pushed, reported model."

# Processors and memory. With ResNet50 at 224 px no step takes more than 3 GB; features are computed of every photo on
# every core, and fine-tuning keeps activations for as many of the backbone's stages as it trains.
_LEAST = ("1", "4G")
_RESOURCES = {"features": ("4", "4G"), "trainer": ("4", "8G")}

_TASK = """\
def {name}({parameters}):
    {description!r}
    # The step's code as it was compiled, {code}: with another, KFP's cache does not know the task.
    arguments = locals()
    from pipelines import kubeflow_task

    kubeflow_task.{call}
"""


@dataclass(frozen=True, kw_only=True)
class KubeflowOptions:
    """How the pipeline runs on a cluster.

    Attributes:
        image: of every container.
        retries: how often a failed task is tried again, waiting twice as long each time.
        gpus: the number of graphics cards, by step, as it is typed.
        accelerator: what the cluster calls the cards.
        volumes: the folder that a persistent volume claim is mounted on, by its name.
        state: the folder, in the containers or at a URL, by the name of the state; one that is missing here is
            a parameter of every run.
    """

    image: str = "flowers-pipeline:latest"
    retries: int = 2
    gpus: Mapping[str, str] = field(default_factory=dict)
    accelerator: str = "nvidia.com/gpu"
    volumes: Mapping[str, str] = field(default_factory=dict)
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
    """Write a pipeline as KFP v2 IR and return the number of its parameters.

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
    taken = {step.name: _parameters(step, config, options.state) for step in steps}
    components = {step.name: _step_component(step, steps, taken[step.name], options.image) for step in steps}
    sourced = [step for step in steps if step.source]
    of_sources = {name: parameter for step in sourced for name, parameter in taken[step.name].items()}
    parameters = {name: parameter for found in taken.values() for name, parameter in found.items()}
    # In a signature, those without a default come first.
    names = sorted(parameters, key=lambda name: parameters[name].default is not inspect.Parameter.empty)

    def connect(*channels: Any) -> None:
        given = dict(zip(names, channels, strict=True))
        sources: Mapping[str, Any] = {}
        if sourced:
            task = _sources_component(sourced, of_sources, options.image)(**{name: given[name] for name in of_sources})
            _configure(task, SOURCES, options, cached=False)
            sources = task.outputs
        tasks: dict[str, Any] = {}
        for step in steps:
            tasks[step.name] = components[step.name](
                **{parameter: tasks[name].outputs["output"] for parameter, name in step.inputs.items()},
                **{name: given[name] for name in taken[step.name]},
                **({source_parameter(step): sources[source_parameter(step)]} if step.source else {}),
            )
            # A step with state looks at what is there, each time.
            _configure(tasks[step.name], step.name, options, cached=not step.state)

    connect.__signature__ = inspect.Signature([parameters[name] for name in names])  # type: ignore[attr-defined]
    connect.__doc__ = "\n".join((f"{DESCRIPTION}\n\nArgs:", *_describe(steps, config)))
    pipeline = dsl.pipeline(name=NAME)(connect)
    with TemporaryDirectory() as folder:
        compiled = Path(folder, "pipeline.yaml")
        compiler.Compiler().compile(pipeline, str(compiled))
        text = compiled.read_text(encoding="utf-8")
    try:
        with atomic_write(output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise ComponentError(f"{output} cannot be written: {exc.strerror}. Choose another file: --output") from exc
    return len(parameters)


def _configure(task: Any, name: str, options: KubeflowOptions, *, cached: bool) -> None:
    """Set what a task needs of the cluster, and what happens when it fails or was done before."""
    processors, memory = _RESOURCES.get(name, _LEAST)
    task.set_display_name(name).set_cpu_request(processors).set_memory_request(memory)
    task.set_retry(options.retries, backoff_duration="30s", backoff_factor=2)
    task.set_caching_options(cached)
    if count := options.gpus.get(name):
        task.set_accelerator_type(options.accelerator).set_accelerator_limit(count)
    if options.volumes:
        # As kfp-kubernetes writes it. In every task: also one without state may take the path of a file in it.
        task.platform_config["kubernetes"] = {
            "pvcMount": [
                {"mountPath": folder, "constant": claim, "pvcNameParameter": {"runtimeValue": {"constant": claim}}}
                for claim, folder in options.volumes.items()
            ]
        }


def _parameters(step: Step, config: Config, state: Mapping[str, str]) -> dict[str, inspect.Parameter]:
    """Return the pipeline's parameters that a step takes: its options, and the folders kept between runs."""

    def parameter(name: str, default: Any) -> inspect.Parameter:
        default = list(default) if isinstance(default, tuple) else default
        kind = str if default is inspect.Parameter.empty else type(default)
        return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind, default=default)

    folders = {state_parameter(name): state.get(name, inspect.Parameter.empty) for name in step.state.values()}
    options = {name: getattr(getattr(config, section), option) for name, section, option in option_parameters(step)}
    return {name: parameter(name, default) for name, default in (folders | options).items()}


def _describe(steps: Sequence[Step], config: Config) -> Iterator[str]:
    """Yield the lines of a docstring that describe each parameter."""
    import docstring_parser  # of kfp

    for step in steps:
        for folder in step.state.values():
            yield f"    {state_parameter(folder)}: the {folder}, kept between runs: a path in the containers, or a URL"
        for name, section, option in option_parameters(step):
            attributes = docstring_parser.parse(type(getattr(config, section)).__doc__ or "").params
            text = next((a.description or "" for a in attributes if a.arg_name == option), "")
            yield f"    {name}: {' '.join(text.split())}"


def _sources_component(steps: Sequence[Step], parameters: Mapping[str, inspect.Parameter], image: str) -> Any:
    """Make the KFP component that describes the sources of steps."""
    annotations = {name: parameter.annotation.__name__ for name, parameter in parameters.items()}
    annotations |= {source_parameter(step): "dsl.OutputPath(str)" for step in steps}
    modules = [_module(step.source) for step in steps if step.source]
    return _component(SOURCES, annotations, describe_sources, modules, "describe_sources(**arguments)", image)


def _step_component(step: Step, steps: Sequence[Step], parameters: Mapping[str, inspect.Parameter], image: str) -> Any:
    """Make the KFP component of a step."""
    types = {s.name: "Artifact" if s.kind == "HTML" else s.kind for s in steps}
    annotations = {parameter: f"dsl.Input[dsl.{types[name]}]" for parameter, name in step.inputs.items()}
    annotations |= {name: parameter.annotation.__name__ for name, parameter in parameters.items()}
    if step.source:
        annotations[source_parameter(step)] = "str"
    annotations["output"] = f"dsl.Output[dsl.{types[step.name]}]"
    if step.kind == "HTML":
        annotations["page"] = "dsl.Output[dsl.HTML]"
    modules = [_module(step.function), *step.programs]
    return _component(step.name, annotations, load(step.function), modules, f"run({step.name!r}, **arguments)", image)


def _module(reference: str) -> str:
    return reference.partition(":")[0]


def _component(
    name: str,
    annotations: Mapping[str, str],
    function: Callable[..., Any],
    modules: Sequence[str],
    call: str,
    image: str,
) -> Any:
    """Make a KFP component: a function that passes all its arguments to one of `kubeflow_task`."""
    from kfp import dsl

    source = _TASK.format(
        name=name,
        parameters="".join(f"\n    {parameter}: {kind}," for parameter, kind in annotations.items()) + "\n",
        description=(inspect.getdoc(function) or "").partition("\n")[0],
        code=fingerprint.of_code(*modules),
        call=call,
    )
    return dsl.component(base_image=image, install_kfp_package=False)(_define(name, source, {"dsl": dsl}))


def _define(name: str, source: str, namespace: dict[str, Any]) -> Callable[..., None]:
    """Define a function from its text, and keep the text where KFP looks for it."""
    filename = f"<task {name}>"
    exec(compile(source, filename, "exec"), namespace)
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    return namespace[name]
