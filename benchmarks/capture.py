"""The local server with a tenth of its requests captured beside the same server without: what capture costs.

The model is the int8 LiteRT file, whose requests (pixels, 150 KB each) come fastest. Both servers take rounds in pairs,
each time the other one first; the clients run in this process, on the same processors as the servers.
"""

import shutil
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import photos, serving
from benchmarks.machine import processor_s
from benchmarks.peak import MultiplyAdds, read_multiply_adds, share_of_peak
from benchmarks.serving import NAME, NUM_CLIENTS, Call, crowd_rate, grpc_pixels, report, served
from export import preprocessing
from export.spec import read_spec
from serving.launcher import Server

NUM_PAIRS = 8
NUM_PHOTOS = 16
RATE = 0.1

_CONFIG = """model_config_list {{ config {{
  name: "{name}" base_path: "{base_path}" model_platform: "tensorflow"
  logging_config {{
    log_collector_config {{ type: "file" filename_prefix: "{prefix}" }}
    sampling_config {{ sampling_rate: {rate} }}
  }}
}} }}"""


def measure(data: str, model_dir: Path, file: Path) -> None:
    """Print the ratios of throughput and of processor time.

    Args:
        data: a folder `{train,validation,test}/<class>/*.jpg`, or `synthetic`.
        model_dir: a folder with the classifier's SavedModel in it.
        file: its int8 LiteRT file.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(photos.folder(data))
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        size_px = read_spec(model_dir)["image_size_px"]
        paths = sorted(folder.glob("test/*/*.jpg"))[:NUM_PHOTOS]
        pixels = [preprocessing.load(path.read_bytes(), size_px).numpy() for path in paths]
        shutil.copytree(model_dir, work / NAME / "1")
        shutil.copy(file, work / NAME / "1" / "model.tflite")
        config = work / "models.config"
        captured = work / "captured"
        config.write_text(
            _CONFIG.format(name=NAME, base_path=work / NAME, prefix=captured / NAME, rate=RATE), encoding="utf-8"
        )
        flags = ("--prefer_tflite_model", f"--model_config_file={config}")
        with (
            served(work / NAME, work / "with.log", *flags) as capturing,
            served(work / NAME, work / "without.log", flags[0]) as plain,
        ):
            _compare(capturing, plain, pixels, read_multiply_adds(file)[0])
        size_mb = sum(path.stat().st_size for path in captured.iterdir()) / 1e6
        print(f"capture, MB captured: {size_mb:.1f}", flush=True)


def _compare(capturing: Server, plain: Server, pixels: Sequence[object], of_file: MultiplyAdds) -> None:
    calls: dict[Server, list[Call]] = {
        server: [grpc_pixels(server, pixels) for _ in range(NUM_CLIENTS)] for server in (capturing, plain)
    }
    rates: dict[Server, list[float]] = {capturing: [], plain: []}
    spent_ms: dict[Server, list[float]] = {capturing: [], plain: []}
    for crowd in calls.values():
        crowd_rate(crowd)
    for number in range(NUM_PAIRS):
        for server in (capturing, plain) if number % 2 else (plain, capturing):
            before_s = processor_s(server.process_id)
            rates[server].append(crowd_rate(calls[server]))
            num_calls = rates[server][-1] * serving.ROUND_S
            spent_ms[server].append(1000 * (processor_s(server.process_id) - before_s) / num_calls)
    for what, found in (("photos a second", rates), ("processor time of a photo (ms)", spent_ms)):
        ours, peer = (statistics.median(found[server]) for server in (capturing, plain))
        shares = [
            share_of_peak(of_file, each) if found is rates else share_of_peak(of_file, 1000 / each, num_threads=1)
            for each in (ours, peer)
        ]
        report(f"capture of {RATE:.0%}, {what} of {NUM_CLIENTS} clients", ours, "without", peer, shares=shares)
        low, median, high = statistics.quantiles((a / b for a, b in zip(*found.values(), strict=True)), n=4)
        print(f"  of {NUM_PAIRS} pairs: median {median:.3f}, middle half {low:.3f} to {high:.3f}", flush=True)
