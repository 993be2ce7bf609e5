"""The flowers pipeline: from labelled photos to a pushed, reported model. Steps stand in the order they run."""

from pipelines.declaration import Step

STEPS = (
    Step(
        name="examples",
        function="components.examples:build",
        options={"options": "examples"},
        source="components.examples:describe_source",
    ),
    Step(name="statistics", function="components.statistics:compute", inputs={"examples_dir": "examples"}),
    Step(
        name="validator",
        function="components.validator:validate",
        inputs={"statistics_dir": "statistics"},
        options={"options": "validator"},
        state={"state_dir": "schemas"},
    ),
    Step(
        name="model",
        function="components.model:fetch",
        options={"options": "model"},
        source="components.model:describe_source",
    ),
    Step(
        name="features",
        function="components.features:extract",
        inputs={"examples_dir": "examples", "validation_dir": "validator", "model_dir": "model"},
        options={"options": "features", "transform": "transform"},
        resumable=True,
    ),
    Step(
        name="trainer",
        function="components.trainer:train",
        inputs={"examples_dir": "examples", "features_dir": "features", "model_dir": "model"},
        options={"options": "trainer", "transform": "transform"},
        resumable=True,
    ),
    Step(
        name="export",
        function="components.exporter:export",
        inputs={"examples_dir": "examples", "training_dir": "trainer"},
        options={"options": "export"},
    ),
    Step(
        name="baseline",
        function="components.pusher:find_baseline",
        inputs={"export_dir": "export"},
        state={"models_dir": "models"},
    ),
    Step(
        name="evaluator",
        function="components.evaluator:evaluate",
        inputs={"examples_dir": "examples", "export_dir": "export", "baseline_dir": "baseline"},
        options={"options": "evaluator"},
    ),
    Step(
        name="infra_validator",
        function="components.infra_validator:validate",
        inputs={"examples_dir": "examples", "export_dir": "export", "evaluation_dir": "evaluator"},
        options={"options": "infra_validator"},
        source="components.infra_validator:describe_engine",
        programs=("serving.local_server.__main__",),
    ),
    Step(
        name="pusher",
        function="components.pusher:push",
        inputs={
            "export_dir": "export",
            "evaluation_dir": "evaluator",
            "infra_validation_dir": "infra_validator",
        },
        options={"options": "pusher"},
        state={"models_dir": "models"},
    ),
    Step(
        name="report",
        function="components.report:build",
        inputs={
            "examples_dir": "examples",
            "statistics_dir": "statistics",
            "validation_dir": "validator",
            "training_dir": "trainer",
            "evaluation_dir": "evaluator",
            "infra_validation_dir": "infra_validator",
            "push_dir": "pusher",
        },
        options={"options": "report"},
    ),
)
