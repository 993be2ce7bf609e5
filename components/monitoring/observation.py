"""What two versions of a model returned for a photo."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """What a version returned for a photo.

    Attributes:
        label: of the highest probability; `None` where it failed.
        probability: of that label.
        is_known: `False` where the photo is refused; `None` of a model that knows no limits.
        latency_ms: of its request; `None` where another photo of the request has it.
        failed: it returned an error for a request that the other one could respond to.
    """

    label: str | None = None
    probability: float | None = None
    is_known: bool | None = None
    latency_ms: float | None = None
    failed: bool = False

    def is_right(self, truth: str | None) -> bool:
        """Return whether it is the true label; what is none of the classes, `None`, must be refused."""
        return not self.failed and (self.is_known is False if truth is None else self.label == truth)


@dataclass(frozen=True)
class Observation:
    """What the versions returned for a photo: both in pairs, one of them in split, `None` is the other.

    Attributes:
        photo: identifies it; a photo that was seen before tells nothing new of labels.
        stable: the reply of the version that serves.
        canary: the reply of the version to be released.
        estimated_drop: how much worse the canary's label is by the probabilities of both; `None` where not known.
    """

    photo: str
    stable: Reply | None
    canary: Reply | None
    estimated_drop: float | None = None
