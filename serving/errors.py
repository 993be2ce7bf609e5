"""The failures of serving that callers handle."""

from pathlib import Path

_TAIL_LINES = 30


class ServerError(Exception):
    """There is no server: no engine for it, or it did not come up.

    Attributes:
        reason: the rule, what was received and what to do next, on one line.
    """

    def __init__(self, reason: str, *, log_path: Path | None = None) -> None:
        tail = read_tail(log_path) if log_path else ""
        super().__init__(f"{reason}\n{log_path} ends with:\n{tail}" if tail else reason)
        self.reason = reason


def read_tail(log_path: Path) -> str:
    """Read the last lines of a server's log."""
    return "\n".join(log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:])
