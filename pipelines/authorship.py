"""Who decides, and when, as the records of decisions have it."""

import getpass
from datetime import datetime, timezone


def find_login() -> str:
    """Return the login name; empty where there is none, as of a container's user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""


def now() -> str:
    """Return the time: UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
