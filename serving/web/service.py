"""What the API and the page share: admit a request, read it photo by photo, classify each."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from starlette.requests import Request

from serving.web.bodies import Bodies
from serving.web.capture import PhotoLog
from serving.web.classifier import Classified, Classifier
from serving.web.errors import RequestError
from serving.web.limits import Gate, RateLimiter, name_client
from serving.web.metrics import Metrics
from serving.web.settings import Settings
from serving.web.tokens import is_right, read_bearer
from serving.web.turns import Turns
from serving.web.unreadable import TOO_COMPLEX, TOO_LARGE, Unreadable, too_large
from serving.web.uploads import Field, Photo, read

Result: TypeAlias = Classified | Unreadable
T = TypeVar("T")

# What a photo counts that took so much to decode that it was given up.
_COMPLEX_PHOTOS = 20


class Service:
    """Handles requests that hold photos.

    Args:
        classifier: classifies the photos.
        settings: the token and the limits.
        metrics: counts what happens.
        samples: encoded photos by name, which a form may name instead of sending them.
        photo_log: captures photos, but for the samples; `None` for none.
    """

    def __init__(
        self,
        classifier: Classifier,
        settings: Settings,
        metrics: Metrics,
        *,
        samples: Mapping[str, bytes],
        photo_log: PhotoLog | None = None,
    ) -> None:
        self.classifier = classifier
        self.settings = settings
        self.metrics = metrics
        self.samples = samples
        self._photo_log = photo_log
        limits = settings.limits
        self._gate = Gate(limits.max_requests_per_client)
        self._turns = Turns(settings.num_workers, limits.max_at_work)
        self._bodies = Bodies(limits.max_waiting_bytes)
        self._rate = RateLimiter(per_minute=limits.photos_per_minute, burst=limits.burst_photos)
        metrics.watch_work(lambda: self._gate.num_inside)

    def check_token(self, request: Request) -> None:
        """Admit a request with the right bearer token; where none is set, admit every request.

        Raises:
            RequestError: it has none, or another one, or the client tried too many.
        """
        if self.settings.token is None:
            return
        client = _name_client(request)
        self._rate.check(client)
        if not self._accepts(read_bearer(request)):
            raise self._refuse(client)

    async def handle(
        self, request: Request, handle_photo: Callable[[Photo], Awaitable[T]], *, is_form: bool = False
    ) -> list[T]:
        """Admit a request, and handle each of its photos as it arrives.

        Args:
            request: holds photos, or names a sample in the field `sample`.
            handle_photo: called with each photo.
            is_form: a token may stand in the field `token`, before any photo: a form cannot send headers.

        Returns:
            What `handle_photo` returns for each photo, in their order.

        Raises:
            RequestError: the request is refused, or the model does not respond.
            ClientDisconnect: the client hung up.
        """
        client = _name_client(request)
        self._rate.check(client)
        is_allowed = self._accepts(read_bearer(request))
        if not is_allowed and (not is_form or "authorization" in request.headers):
            raise self._refuse(client)
        results: list[T] = []
        with self._gate.enter(client), self._bodies.hold(client) as body:
            async for part in read(request, self.settings.limits, body):
                if isinstance(part, Field) and part.name == "token":
                    is_allowed = is_allowed or self._accepts(part.value.strip())
                elif photo := self._find_photo(part):
                    if not is_allowed:
                        break
                    self._rate.take(client)
                    async with self._turns.take(client):
                        results.append(await handle_photo(replace(photo, client=client)))
                    body.release()
        if not is_allowed:
            raise self._refuse(client)
        if not results:
            raise RequestError(400, "There was no photo in the request. Choose one, and send it.")
        return results

    async def classify(self, photo: Photo) -> Result:
        """Classify one photo.

        Raises:
            RequestError: the model does not respond.
        """
        if photo.content is None:
            self.metrics.photos.labels(TOO_LARGE).inc()
            return too_large(photo.name, self.settings.limits.max_photo_bytes)
        result, decoding_s = await self.classifier.classify(photo.content, image=photo.name)
        self._turns.note(photo.client, decoding_s)
        if isinstance(result, Unreadable) and result.code == TOO_COMPLEX:
            self._rate.take(photo.client, _COMPLEX_PHOTOS)
        if self._photo_log and isinstance(result, Classified) and photo.content is not self.samples.get(photo.name):
            self._photo_log.add(photo, result, self.classifier.info)
        return result

    def _accepts(self, token: str) -> bool:
        return is_right(token, self.settings.token)

    def _refuse(self, client: str) -> RequestError:
        """Return the error for a wrong token, and count it as a photo, so that nobody tries many."""
        self._rate.take(client)
        return RequestError(401, "Photos are looked at for those who have the access token. Enter it, and try again.")

    def _find_photo(self, part: Photo | Field) -> Photo | None:
        """Return the photo that a part is, or the sample that it names."""
        if isinstance(part, Photo):
            return part
        is_sample = part.name == "sample" and part.value in self.samples
        return Photo(part.value, self.samples[part.value]) if is_sample else None


def status_of(results: Sequence[Result]) -> int:
    """Return the HTTP status: 200 where any photo has a prediction, else 422."""
    return 200 if any(isinstance(result, Classified) for result in results) else 422


def _name_client(request: Request) -> str:
    return name_client(request.client.host if request.client else "")
