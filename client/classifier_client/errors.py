"""The errors, as one tree: catch `ClassifierError`, or the branch that you can handle.

ClassifierError
├── ImageError
├── MissingLibraryError
├── ModelFileError
│   └── SignatureError
└── ServerError
    ├── UnavailableError
    ├── DeadlineError
    ├── ModelNotFoundError
    ├── RefusedError
    └── AnswerError
"""


class ClassifierError(Exception):
    """Any failure of this package. The message holds the rule, the value received and what to do next."""


class ImageError(ClassifierError):
    """An image that cannot be read; `Client.classify` yields it in the image's place instead of raising it.

    Args:
        image: the image's name.
        reason: why it cannot be read.
        code: the kind of reason, for programs: "empty", "too_many_pixels", "too_complex", "damaged", "not_an_image" or,
            for any other reason, "unreadable".
    """

    def __init__(self, image: str, reason: str, *, code: str = "unreadable") -> None:
        super().__init__(image, reason)
        self.image = image
        self.reason = reason
        self.code = code

    def __str__(self) -> str:
        return f"{self.image}: {self.reason}"


class MissingLibraryError(ClassifierError, ImportError):
    """A library that a transport needs is not installed."""


class ModelFileError(ClassifierError):
    """A LiteRT file that cannot be read, does not describe itself, or is no image classifier."""


class SignatureError(ModelFileError):
    """A version that is not as it was signed, or not signed by whom it should be.

    Args:
        folder: of the version.
        reason: what is wrong with it, the end of a sentence.
    """

    def __init__(self, folder: str, reason: str) -> None:
        super().__init__(folder, reason)
        self.folder = folder
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"A version must be as it was signed, with the key that verifies it. {self.folder} {self.reason}. "
            "Copy it again from where it was published, or push it again."
        )


class ServerError(ClassifierError):
    """A server that does not return predictions.

    Attributes:
        retry_after_s: when it is worth trying again, as the server says; `None` where it does not.
    """

    retry_after_s: float | None = None


class UnavailableError(ServerError):
    """No server can be reached, or it reports that it is overloaded, at every attempt."""


class DeadlineError(ServerError):
    """A server does not respond in time."""


class ModelNotFoundError(ServerError):
    """A server does not know the model."""


class RefusedError(ServerError):
    """A server refuses the caller, or the request."""


class AnswerError(ServerError):
    """The server is not TensorFlow Serving, the model is no classifier with this project's signatures, or what it
    sends is malformed."""
