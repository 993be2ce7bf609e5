"""`python -m benchmarks [NAME…] [--data …] [--weights …] [--model …] [--litert …]`: one ratio a line."""

import argparse
import logging
import os
from pathlib import Path

NAMES = (
    *("augmentation", "training", "selection", "serving", "load", "json", "on_device", "web", "bulk_inference"),
    *("browser", "growth", "watch", "capture", "kernels", "million", "engines"),
)
_LONG = {"million", "engines"}
"""These take the better part of an hour, and run where they are named."""
_SERVED = {"serving", "load", "on_device", "web", "bulk_inference", "browser", "watch", "capture", "kernels"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)} (default: all)")
    parser.add_argument(
        "--data", default="synthetic", help="a folder {train,validation,test}/<class>/*.jpg, or synthetic"
    )
    parser.add_argument("--weights", default="none", help="the backbone's: imagenet, a file, none")
    parser.add_argument("--backbone", default="mobilenet_v2", help="of selection (default: mobilenet_v2)")
    parser.add_argument("--seeds", type=int, default=5, help="of selection (default: 5)")
    parser.add_argument(
        "--elsewhere", type=Path, help="a folder <class>/*.jpg: training, watch and browser are tested there, too"
    )
    parser.add_argument("--others", type=Path, help="a folder *.jpg of other things, of watch")
    parser.add_argument("--epochs", type=int, default=10, help="of the original recipe (default: 10)")
    parser.add_argument("--model", type=Path, help="the SavedModel to serve (default: the newest of models/flowers)")
    parser.add_argument(
        "--litert", type=Path, help="its int8 LiteRT file (default: that of the newest in models/tflite)"
    )
    options = parser.parse_args()
    for name in options.names:
        if name not in NAMES:
            parser.error(f"no benchmark {name!r}; there are {', '.join(NAMES)}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if options.data != "synthetic" and not Path(options.data).is_dir():
        parser.error(f"the data folder does not exist: {options.data}")
    names = options.names or [name for name in NAMES if name not in _LONG]
    model_dir = options.model or _newest(Path("models") / "flowers")
    file = options.litert or _newest(Path("models") / "tflite") / "flowers_int8.tflite"
    if _SERVED.intersection(names) and not (model_dir.is_dir() and file.is_file()):
        parser.error(
            f"{' and '.join(sorted(_SERVED))} need a model and its LiteRT file, {model_dir} and {file}: "
            "run make train, or give --model and --litert"
        )
    from benchmarks import (
        augmentation,
        bulk_inference,
        capture,
        engines,
        growth,
        json,
        kernels,
        load,
        machine,
        million,
        on_device,
        selection,
        serving,
        training,
        watch,
        web,
    )
    from components.model import ModelOptions

    print(f"machine: {machine.describe()}", flush=True)
    print(
        "share of peak (ours, the peer's): a network's multiply-adds a second, over the most that the cores compute in "
        "the type of its weights.\nIt has none: augmentation (bound by memory), json (parsing), growth (decoding, "
        "disks), selection and watch (no times)",
        flush=True,
    )
    if "augmentation" in names:
        augmentation.measure(options.data)
    if "training" in names:
        backbone = ModelOptions(weights=options.weights)
        training.measure(options.data, backbone, epochs=options.epochs, elsewhere=options.elsewhere)
    if "selection" in names:
        backbone = ModelOptions(backbone=options.backbone, weights=options.weights)
        selection.measure(options.data, backbone, seeds=range(1201, 1201 + options.seeds))
    if "serving" in names:
        serving.measure(options.data, model_dir, file)
    if "load" in names:
        load.measure(options.data, model_dir, file)
    if "on_device" in names:
        on_device.measure(options.data, model_dir, file)
    if "web" in names:
        web.measure(options.data, file)
    if "bulk_inference" in names:
        bulk_inference.measure(file)
    if "browser" in names:
        from benchmarks import browser  # needs selenium, which is for development alone

        browser.measure(options.data, file, elsewhere=options.elsewhere)
    if "growth" in names:
        growth.measure()
    if "watch" in names:
        watch.measure(options.data, model_dir, file, elsewhere=options.elsewhere, others=options.others)
    if "json" in names:
        json.measure()
    if "capture" in names:
        capture.measure(options.data, model_dir, file)
    if "million" in names:
        million.measure()
    if "engines" in names:
        engines.measure()
    if "kernels" in names:
        kernels.measure(file)


def _newest(base_path: Path) -> Path:
    versions = [int(path.name) for path in base_path.glob("*") if path.name.isdecimal()]
    return base_path / str(max(versions, default=1))


if __name__ == "__main__":
    main()
