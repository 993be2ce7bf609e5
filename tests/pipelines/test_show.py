"""What a person is shown of a lineage."""

from pipelines import show


def test_an_artifact_that_is_made_from_the_same_twice_is_drawn_once():
    data = {"step": "data", "key": "dddddddddd", "summary": {"num_photos": 3}, "inputs": {}}
    features = {"step": "features", "key": "ffffffffff", "summary": {}, "inputs": {"data": data}}
    model = {"step": "export", "key": "mmmmmmmmmm", "summary": {}, "inputs": {"data": data, "features": features}}
    evaluation = {"step": "evaluator", "key": "eeeeeeeeee", "summary": None, "inputs": {"export_dir": model}}
    served = {"step": "infra_validator", "key": "iiiiiiiiii", "summary": {}, "inputs": {"evaluation_dir": evaluation}}
    origin = {"version": 4, "pushed": "today", "model": model, "evaluation": evaluation}
    assert show.as_tree("flowers", {**origin, "infra_validation": served}).splitlines() == [
        "flowers version 4, pushed today",
        "├─ export mmmmmmmm",
        "│  ├─ data dddddddd  num_photos 3",
        "│  └─ features ffffffff",
        "│     └─ data dddddddd  num_photos 3",
        "├─ evaluator eeeeeeee",
        "│  └─ export mmmmmmmm (above)",
        "└─ infra_validator iiiiiiii",
        "   └─ evaluator eeeeeeee (above)",
    ]


def test_an_artifact_that_is_gone_is_drawn_by_its_name():
    gone = {"step": "data", "key": "dddddddddd", "digest": "…"}
    model = {"step": "export", "key": "mmmmmmmmmm", "summary": {}, "inputs": {"data": gone}}
    evaluation = {"step": "evaluator", "key": "eeeeeeeeee", "summary": {}, "inputs": {"data": gone}}
    origin = {"version": 4, "pushed": "today", "model": model, "evaluation": evaluation}
    assert show.as_tree("flowers", origin).count("data dddddddd") == 2


def test_the_fallbacks_that_a_model_stands_on_are_shown_first():
    data = {
        "step": "examples",
        "key": "dddddddddd",
        "summary": {"num_train": 3, "fallback": "No network."},
        "inputs": {},
    }
    model = {"step": "export", "key": "mmmmmmmmmm", "summary": {}, "inputs": {"data": data}}
    tree = show.as_tree("flowers", {"version": 4, "pushed": "today", "model": model, "evaluation": model})
    assert tree.splitlines()[:4] == [
        "flowers version 4, pushed today",
        "FALLBACK: examples: No network.",
        "├─ export mmmmmmmm",
        "│  └─ examples dddddddd  num_train 3",
    ]
