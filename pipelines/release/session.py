"""A release that goes on: what was seen is written down, then judged; a decision is written down, then carried out.

Killed anywhere, the same command goes on: what is not written was not judged, and each way to carry out a decision may
be gone again.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from components.artifacts import release as records
from components.artifacts.labels import LABEL, NONE, find_current, read_decisions
from components.artifacts.release import ReleaseRecord
from components.errors import ReleaseError
from components.monitoring.observation import Observation, Reply
from components.monitoring.release import CANNOT_TELL, PROMOTE, ROLL_BACK, Release, ReleaseOptions
from pipelines.authorship import now
from pipelines.release import models_config
from pipelines.release.servers import ModelServer, Proxy

log = logging.getLogger(__name__)

_POLL_S, _REPORT_S = 0.1, 10.0
_STATUS = {
    PROMOTE: records.PROMOTING,
    ROLL_BACK: records.ROLLING_BACK,
    CANNOT_TELL: records.CANNOT_TELL,
    "stop": records.STOPPED,
}
TESTS = "tests"


class Session:
    """A release, held by this process: its lock must be.

    Args:
        folder: of the model's releases.
        record: the release.
        config_path: `models.config`; `None` decides, and carries nothing out.
        server: that reads it.
        labels_path: decisions of people on photos.
    """

    def __init__(
        self,
        folder: Path,
        record: ReleaseRecord,
        *,
        config_path: Path | None = None,
        server: ModelServer | None = None,
        labels_path: Path | None = None,
    ) -> None:
        self._folder, self.record = folder, record
        self._config_path, self._server, self._labels_path = config_path, server, labels_path
        records.cut_evidence(folder, record["number"])
        self._labelled: set[str] = set()
        self._unlabelled: set[str] = set()
        self._labels_size = -1
        self._truths: dict[str, str | None] = {}
        self.release = Release(ReleaseOptions(**record["options"]))  # type: ignore[arg-type]
        for line in records.read_evidence(folder, record["number"]):
            self._take(line)

    @property
    def photos(self) -> set[str]:
        """The SHA-256 of all photos that were seen."""
        return self._labelled | self._unlabelled

    def install(self) -> None:
        """Load both versions and give them their labels; a canary that cannot be loaded is rolled back.

        Raises:
            ReleaseError: stable does not serve, or the server does not poll the configuration.
        """
        stable, canary, name = self.record["stable"], self.record["canary"], self.record["model_name"]
        if not (self._server and self._config_path):
            return
        # Without a policy a server loads the newest version alone: the canary, that is.
        models_config.change(self._config_path, name, versions=[stable, canary], labels={})
        if error := self._server.wait_for_version(stable):
            raise ReleaseError(f"Version {stable} must serve in a release, and cannot be loaded: {error}")
        models_config.change(self._config_path, name, labels={"stable": stable})
        self._server.wait_for_label("stable", stable)
        if error := self._server.wait_for_version(canary):
            self.decide(ROLL_BACK, who=TESTS, reason=f"the server cannot load it: {error}")
            return
        # Only now: a label may point only at a version that serves.
        models_config.change(self._config_path, name, labels={"canary": canary})
        self._server.wait_for_label("canary", canary)

    def watch(self, proxy: Proxy, plan: dict[str, Any]) -> None:
        """Judge what the proxy sees, until there is a decision."""
        last, num_skipped, reported, report_s = 0, 0, "", time.monotonic() + _REPORT_S
        if self.record["status"] == records.RUNNING:
            # What the proxy has seen before may be in the evidence: a release that was killed had the same plan.
            last = proxy.begin(plan)
        while self.record["status"] == records.RUNNING:
            document = proxy.observations(last, self.record["salt"])
            if not document["has_plan"]:  # the proxy was started again, or this process was asleep
                log.warning("the proxy had no plan; it has it again")
                # One that was started again counts from 1; else what was read before must not be read twice.
                last = min(last, proxy.begin(plan))
            seen = document["observations"]
            if seen and last and seen[0]["number"] > last + 1:
                log.warning("%d observations were lost: more came than were read", seen[0]["number"] - last - 1)
            if document["num_skipped"] > num_skipped:
                log.warning("%d requests were not compared: too many at once", document["num_skipped"] - num_skipped)
                num_skipped = document["num_skipped"]
            last = seen[-1]["number"] if seen else last
            self.judge(seen)
            if time.monotonic() > report_s and (described := self.release.describe()) != reported:
                log.info("%s", described)
                reported, report_s = described, time.monotonic() + _REPORT_S
            if not seen:
                time.sleep(_POLL_S)

    def judge(self, seen: Iterable[Mapping[str, Any]]) -> bool:
        """Take in observations, labels and what a person asks; return whether the release still goes on."""
        self._obey()
        self._settle()  # of one that was killed, what it stands on may be written, and the decision not
        for line in seen:
            self._judge([{name: line[name] for name in ("photo", "stable", "canary", "estimated_drop")}])
            self._judge(self._read_labels())
        self._judge(self._read_labels())
        return self.record["status"] == records.RUNNING

    def _judge(self, lines: list[dict[str, Any]]) -> None:
        # What comes after a decision would be evidence that it does not stand on.
        if not lines or self.record["status"] != records.RUNNING:
            return
        records.add_evidence(self._folder, self.record["number"], lines)
        for line in lines:
            self._take(line)
        self._settle()

    def _settle(self) -> None:
        """Decide, if the tests do and nobody has."""
        verdict = self.release.verdict()
        if verdict.decision in _STATUS and self.record["status"] == records.RUNNING:
            self.decide(verdict.decision, who=TESTS, reason=verdict.reason)

    def decide(self, decision: str, *, who: str, reason: str) -> None:
        """Write a decision down."""
        self.record["status"], self.record["who"], self.record["reason"] = _STATUS[decision], who, reason
        self.record["evidence"] = self.release.evidence()
        self.record["decided"] = now()
        records.write_release(self._folder, self.record)
        log.info("%s: %s (%s)", decision, reason, who)

    def carry_out(self) -> None:
        """Let the server do as was decided: labels first, and what is not needed any more is unloaded behind them.

        Where somebody has let a third version serve meanwhile, that stays, and the release is stopped.

        Raises:
            ReleaseError: the server does not follow; the same command tries again.
        """
        stable, canary = self.record["stable"], self.record["canary"]
        chosen = {records.PROMOTING: canary, records.ROLLING_BACK: stable}.get(self.record["status"])
        if chosen is None:
            return
        if self._server and self._config_path:
            name, labels = self.record["model_name"], {"stable": chosen, "canary": chosen}
            serving = models_config.read_labels(self._config_path, name).get("stable", stable)
            if serving not in (stable, canary):
                self.record["status"] = records.STOPPED
                self.record["reason"] += f"; not carried out: the label stable was moved to version {serving} meanwhile"
                records.write_release(self._folder, self.record)
                log.warning("%s", self.record["reason"])
                return
            versions = {stable, chosen}  # of one that was not installed, neither may be loaded
            models_config.change(self._config_path, name, versions=versions, labels={})
            if error := self._server.wait_for_version(chosen):
                raise ReleaseError(f"Version {chosen} must serve, as was decided, and cannot be loaded: {error}")
            models_config.change(self._config_path, name, labels=labels)
            for label in labels:
                self._server.wait_for_label(label, chosen)
            if chosen == stable:  # after a promotion the version before stays loaded: going back takes no time
                models_config.change(self._config_path, name, versions=[stable], labels={})
        self.record["status"] = records.PROMOTED if chosen == canary else records.ROLLED_BACK
        records.write_release(self._folder, self.record)

    def _obey(self) -> None:
        if order := records.read_order(self._folder):
            self.decide(order["what"], who=order["who"], reason=order["why"])
            records.remove_order(self._folder)  # only now: a release that is killed here obeys when it goes on

    def _take(self, line: Mapping[str, Any]) -> None:
        photo = line["photo"]
        if "label" in line:
            self.release.add_label(photo, line["label"])
            self._labelled.add(photo)
            self._unlabelled.discard(photo)
            return
        stable, canary = (line[name] and Reply(**line[name]) for name in ("stable", "canary"))
        self.release.observe(Observation(photo, stable, canary, line["estimated_drop"]))
        if photo not in self._labelled:
            self._unlabelled.add(photo)

    def _read_labels(self) -> list[dict[str, Any]]:
        """Return the labels that people gave to photos that were seen and not labelled yet."""
        if not self._labels_path or not self._labels_path.exists():
            return []
        size = self._labels_path.stat().st_size
        if size != self._labels_size:
            self._labels_size = size
            current = find_current(read_decisions(self._labels_path))
            self._truths = {p: d["label"] for p, d in current.items() if d["decision"] in (LABEL, NONE)}
        return [
            {"photo": photo, "label": self._truths[photo]} for photo in sorted(self._unlabelled & self._truths.keys())
        ]


def option_names() -> list[str]:
    """Return the names of the options of the comparison."""
    return [field.name for field in fields(ReleaseOptions)]
