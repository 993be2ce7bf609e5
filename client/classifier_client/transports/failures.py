"""Turn a failed call into an error: the same over REST and gRPC."""

from ..errors import AnswerError, DeadlineError, ModelNotFoundError, RefusedError, ServerError, UnavailableError

_MAX_REASON_CHARS = 300


def to_error(code: str, reason: str, *, target: str, model: str, timeout_s: float) -> ServerError:
    """Return the error for a failed call.

    Args:
        code: gRPC's name for it, such as "NOT_FOUND".
        reason: the message of the server, or of a library on the way to it.
        target: the server's address.
        model: the name of the model in the request.
        timeout_s: how long the server had.
    """
    # A reason may quote what came over the wire, as when the other side speaks another protocol.
    reason = "".join(char if char.isprintable() else " " for char in reason)
    reason = " ".join(reason.split())[:_MAX_REASON_CHARS] or "no reason given"
    if code == "UNAVAILABLE":
        return UnavailableError(
            f"No server is available at {target} ({reason}). Start it, or check the address and TLS: "
            "by default a server listens on port 8500 for gRPC and 8501 for REST, without TLS."
        )
    if code == "DEADLINE_EXCEEDED":
        return DeadlineError(
            f"The server at {target} must answer within {timeout_s:g} s, and did not. "
            "Allow more time, or see what keeps it busy."
        )
    if code == "NOT_FOUND":
        return ModelNotFoundError(
            f"The server at {target} serves no model {model!r} ({reason}). Check the name, or wait until it is loaded."
        )
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return RefusedError(f"The server at {target} refuses the caller ({reason}). Check the token.")
    if code == "UNIMPLEMENTED":
        return AnswerError(
            f"The server at {target} is not TensorFlow Serving ({reason}). Check the address: "
            "by default a server listens on port 8500 for gRPC and 8501 for REST."
        )
    return RefusedError(f"The server at {target} refuses the request ({code}: {reason}). Its log may say more.")
