"""`python -m benchmarks [augmentation] [training] [--data …] [--weights …] [--epochs N]`: one ratio a line."""

import argparse
import logging
import os
from pathlib import Path

NAMES = ("augmentation", "training")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)} (default: all)")
    parser.add_argument(
        "--data", default="synthetic", help="a folder {train,validation,test}/<class>/*.jpg, or synthetic"
    )
    parser.add_argument("--weights", default="none", help="the backbone's: imagenet, a file, none")
    parser.add_argument("--epochs", type=int, default=10, help="of the original recipe (default: 10)")
    options = parser.parse_args()
    for name in options.names:
        if name not in NAMES:
            parser.error(f"no benchmark {name!r}; there are {', '.join(NAMES)}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if options.data != "synthetic" and not Path(options.data).is_dir():
        parser.error(f"the data folder does not exist: {options.data}")
    from benchmarks import augmentation, training
    from components.model import ModelOptions

    if not options.names or "augmentation" in options.names:
        augmentation.measure(options.data)
    if not options.names or "training" in options.names:
        training.measure(options.data, ModelOptions(weights=options.weights), epochs=options.epochs)


if __name__ == "__main__":
    main()
