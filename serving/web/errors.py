"""The failures of the web page's service that callers handle."""


class StartError(Exception):
    """The service cannot start. The message says the rule, what was received and what to do next."""


class RequestError(Exception):
    """A request that is refused, or fails.

    Args:
        status: the HTTP status.
        message: one or two sentences for a person: the rule, what was received and what to do next. Where trying
            again is worth it, `advice` says that.
        retry_after_s: when it is worth trying again; `None` where it is not.
        allow: the methods that the path has, of an error that is about the method.
    """

    def __init__(self, status: int, message: str, *, retry_after_s: int | None = None, allow: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s
        self.allow = allow

    @property
    def advice(self) -> str:
        """Return when to try again, for whoever has to do it: the page's script does it by itself."""
        if self.retry_after_s is None:
            return ""
        return f"Try again in {self.retry_after_s} {'second' if self.retry_after_s == 1 else 'seconds'}."
