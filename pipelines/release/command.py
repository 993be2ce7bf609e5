"""The command `release`: its options, and what they become.

Exit status: 0 the canary is promoted, 3 it is rolled back, 4 the release cannot tell, was stopped, or still goes on.
"""

import argparse
import json
import logging
import os
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any

from client.classifier_client import ConnectionOptions
from client.classifier_client.transports.connection import TOKEN_VARIABLE
from components.artifacts import release as records
from components.artifacts.release import ReleaseRecord
from components.errors import ReleaseError
from components.monitoring.release import PROMOTE, ROLL_BACK, ReleaseOptions
from components.storage.bucket import is_url
from components.storage.files import file_lock
from components.storage.models import open_models
from pipelines.authorship import find_login, now
from pipelines.folders import Folders
from pipelines.release import models_config, session
from pipelines.release.servers import ModelServer, Proxy
from pipelines.release.session import Session

log = logging.getLogger(__name__)

PROMOTED, ROLLED_BACK, CANNOT_TELL = 0, 3, 4
_STATUSES = {records.PROMOTED: PROMOTED, records.ROLLED_BACK: ROLLED_BACK}
_STOP = "stop"
_OFFLINE = "offline"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    default = ReleaseOptions()
    parser.add_argument("--mode", choices=("shadow", "split", _OFFLINE), default="shadow", help="default: shadow")
    parser.add_argument("--candidate", type=int, metavar="VERSION", help="to be released (default: the newest)")
    parser.add_argument("--stable", type=int, metavar="VERSION", help="that serves (default: the label stable)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="models.config, which the server polls")
    parser.add_argument("--server", metavar="HOST:PORT", help="REST address of the server that polls it")
    parser.add_argument("--tls", action="store_true", help="speak TLS with the server")
    parser.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="PEM certificates that vouch for the server; implies --tls"
    )
    parser.add_argument("--proxy", default="127.0.0.1:8512", metavar="HOST:PORT", help="its control port")
    parser.add_argument("--input", type=Path, metavar="FOLDER", help="for offline: photos, or captured traffic")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="labels.jsonl: decisions of people on the photos")
    parser.add_argument("--share", type=float, default=0.1, help="of the photos, in split (default: %(default)s)")
    for name in ("min_requests", "max_requests", "max_accuracy_drop", "max_disagreement", "max_refusal_increase"):
        value = getattr(default, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help="default: %(default)s")
    parser.add_argument("--max-slowdown", type=float, default=default.max_slowdown, help="default: %(default)s")
    parser.add_argument("--canary-timeout-s", type=float, default=10.0, help="then stable responds (default: 10)")
    parser.add_argument("--wait-s", type=float, default=120.0, help="for the server to follow (default: 120)")
    person = parser.add_mutually_exclusive_group()
    person.add_argument("--status", action="store_true", help="print all releases and the evidence of the newest")
    person.add_argument("--promote", dest="what", action="store_const", const=PROMOTE, help="whatever the tests say")
    person.add_argument("--roll-back", dest="what", action="store_const", const=ROLL_BACK, help="the same")
    person.add_argument("--stop", dest="what", action="store_const", const=_STOP, help="decide nothing, change nothing")
    parser.add_argument("--who", default="", metavar="NAME", help="who decides (default: the login name)")
    parser.add_argument("--why", default="", metavar="TEXT", help="kept with the decision")


def release(options: argparse.Namespace, folders: Folders) -> tuple[str, int]:
    """Run a release, or do what a person asks of one; return what to print and the exit status.

    Raises:
        ReleaseError: it cannot begin or go on.
        ValueError: the options do not fit.
    """
    if is_url(folders.models):
        raise ValueError(f"release reads models of this machine. Received: {folders.models}. Give a folder.")
    folder = records.releases_dir(Path(folders.models), options.model_name)
    if options.status:
        return describe(records.read_releases(folder)), 0
    if bool(options.config) != bool(options.server):
        raise ValueError("--config and --server belong together: the file, and the server that polls it. Give both.")
    try:
        with file_lock(folder / ".lock", waits=False):
            return _hold(options, folders, folder)
    except BlockingIOError as exc:
        if not options.what:
            raise ReleaseError(
                f"One release of a model goes on at a time, and one of {options.model_name} does. Wait, or end it: "
                "release --stop"
            ) from exc
    records.write_order(folder, {"what": options.what, "who": _who(options), "why": _why(options)})
    return f"Asked: {options.what}. The release that goes on does it, if it is not decided yet.", 0


def _hold(options: argparse.Namespace, folders: Folders, folder: Path) -> tuple[str, int]:
    past = records.read_releases(folder)
    last = past[-1] if past else None
    if options.what and (last is None or last["status"] in _STATUSES):
        raise ReleaseError(
            f"--{options.what.replace(' ', '-')} decides a release that is open, and there is none of "
            f"{options.model_name}. See release --status; rollback withdraws a pushed version."
        )
    is_open = last is not None and (options.what or last["status"] in records.OPEN)
    if last and is_open and not options.what:
        _check_same(options, last)
    record = last if last and is_open else _begin(options, folders, folder, len(past) + 1)
    if options.server:
        record["config"], record["server"] = str(options.config.absolute()), options.server
    address = record["server"]
    connection = ConnectionOptions(
        tls=options.tls or options.ca_file is not None,
        ca_file=options.ca_file,
        token=os.environ.get(TOKEN_VARIABLE) or None,
    )
    server = ModelServer(address, options.model_name, timeout_s=options.wait_s, options=connection) if address else None
    config = Path(record["config"]) if record["config"] else None
    held = Session(folder, record, config_path=config, server=server, labels_path=options.labels)
    if options.what:
        if options.what == _STOP and record["status"] in (records.PROMOTING, records.ROLLING_BACK):
            raise ReleaseError(
                f"--stop ends a release that is not decided yet. This one is {record['status']}: let the same command "
                "go on, or decide otherwise with --promote or --roll-back."
            )
        held.decide(options.what, who=_who(options), reason=_why(options))
    if record["status"] == records.RUNNING:
        _compare(options, folders, held)
    held.carry_out()
    if late := records.read_order(folder):
        records.remove_order(folder)
        log.warning("--%s of %s came too late: the release was decided", late["what"].replace(" ", "-"), late["who"])
    note = "" if server or record["status"] not in _STATUSES else " No --config: nothing was changed on a server."
    words = f"{record['status']}: version {record['canary']} of {record['model_name']} beside {record['stable']}"
    return f"{words} ({record['who']}: {record['reason']}).{note}", _STATUSES.get(record["status"], CANNOT_TELL)


def _check_same(options: argparse.Namespace, last: ReleaseRecord) -> None:
    """Raise where a release that goes on is not the one that the options name."""
    given = {"canary": options.candidate, "stable": options.stable, "mode": options.mode}
    if other := {name: value for name, value in given.items() if value not in (None, last[name])}:  # type: ignore[literal-required]
        raise ReleaseError(
            f"A release that is open must end before another one begins: {last['stable']} → {last['canary']}, "
            f"{last['mode']}, is {last['status']}. Received: {other}. Give the same options to let it go on, or end "
            "it: release --stop"
        )
    log.info(
        "release %d goes on: version %d beside %d, with the options that it began with",
        *(last["number"], last["canary"], last["stable"]),
    )


def _compare(options: argparse.Namespace, folders: Folders, held: Session) -> None:
    record = held.record
    if record["mode"] == _OFFLINE:
        from pipelines.release import offline

        models = Path(folders.models) / record["model_name"]
        if not options.input:
            raise ValueError("--mode offline needs the photos. Give their folder: --input FOLDER")
        versions = (models / str(record[name]) for name in ("stable", "canary"))  # type: ignore[literal-required]
        photos = offline.compare(options.input, *versions, known=held.photos)
        if held.judge([]) and all(held.judge([seen]) for seen in photos):
            held.decide("cannot tell", who=session.TESTS, reason=f"all photos are seen; {held.release.describe()}")
    else:
        proxy = Proxy(options.proxy)
        plan: dict[str, Any] = {name: record[name] for name in ("model_name", "mode", "stable", "canary", "salt")}  # type: ignore[literal-required]
        plan |= {"share": record["options"]["share"] or options.share, "timeout_s": options.canary_timeout_s}
        held.install()
        held.watch(proxy, plan)
        proxy.end(record["salt"])  # before the canary is unloaded


def _begin(options: argparse.Namespace, folders: Folders, folder: Path, number: int) -> ReleaseRecord:
    if options.mode != _OFFLINE and not options.server:
        raise ValueError(f"--mode {options.mode} needs a server. Give --config and --server, or --mode offline.")
    if options.mode == _OFFLINE and not options.input:
        raise ValueError("--mode offline needs the photos. Give their folder: --input FOLDER")
    versions = open_models(folders.models).versions(options.model_name)
    labels = models_config.read_labels(options.config, options.model_name) if options.config else {}
    canary = options.candidate or (versions[-1] if versions else None)
    stable = options.stable or labels.get("stable") or max((v for v in versions if v != canary), default=None)
    if canary is None or stable is None or canary == stable or not {canary, stable} <= {*versions}:
        raise ReleaseError(
            f"A release needs two versions of {options.model_name} in {folders.models}: one that serves, and one to be "
            f"released. Received: {stable} and {canary}; there are: {', '.join(map(str, versions)) or 'none'}. "
            "Give them with --stable and --candidate."
        )
    records.remove_order(folder)  # to one that has ended meanwhile
    share = options.share if options.mode == "split" else None
    given = {name: getattr(options, name) for name in session.option_names() if name != "share"}
    record = ReleaseRecord(
        number=number,
        model_name=options.model_name,
        stable=stable,
        canary=canary,
        mode=options.mode,
        salt=secrets.token_hex(8),
        config=str(options.config.absolute()) if options.config else None,
        server=options.server,
        options=asdict(ReleaseOptions(**given, share=share)),
        status=records.RUNNING,
        who="",
        reason="",
        started=now(),
        decided=None,
        evidence={},
    )
    records.write_release(folder, record)
    return record


def read_releases_of(version: int, model_name: str, folders: Folders) -> list[ReleaseRecord]:
    """Read the releases of a version; of models in a bucket there are none."""
    if is_url(folders.models):
        return []
    past = records.read_releases(records.releases_dir(Path(folders.models), model_name))
    return [record for record in past if record["canary"] == version]


def describe(past: list[ReleaseRecord]) -> str:
    """List releases, a line each, and the evidence of the newest."""
    if not past:
        return "No release yet."
    lines = [
        f"{r['number']}  {r['started']}  {r['mode']}  {r['stable']} → {r['canary']}  {r['status']}"
        + (f"  ({r['who']}: {r['reason']})" if r["decided"] else "")
        for r in past
    ]
    evidence = past[-1]["evidence"].items()
    tests = [f"  {name}: {json.dumps(numbers)}" for name, numbers in evidence]
    return "\n".join([*lines, *tests])


def _who(options: argparse.Namespace) -> str:
    return options.who or find_login() or "a person without a name"


def _why(options: argparse.Namespace) -> str:
    return options.why or "no reason given"
