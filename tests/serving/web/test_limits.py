import pytest

from serving.web import limits
from serving.web.errors import RequestError
from serving.web.limits import Gate, RateLimiter, name_client
from serving.web.settings import Limits, Settings, choose_num_workers


class Clock:
    """A clock that tests set."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> RateLimiter:
    return RateLimiter(per_minute=60, burst=3, clock=clock)


def send(limiter: RateLimiter, client: str, num_photos: int) -> None:
    limiter.check(client)
    for _ in range(num_photos):
        limiter.take(client)


@pytest.mark.parametrize(("num_photos", "wait"), [(3, "1 second"), (20, "18 seconds")])
def test_a_client_that_sent_its_share_or_more_waits_and_others_do_not(
    clock: Clock, limiter: RateLimiter, num_photos: int, wait: str
) -> None:
    wait_s = int(wait.split()[0])
    send(limiter, "a", num_photos)
    with pytest.raises(RequestError, match="60 a minute") as caught:
        limiter.check("a")
    assert (caught.value.status, caught.value.retry_after_s) == (429, wait_s)
    assert caught.value.advice == f"Try again in {wait}."
    limiter.check("b")
    clock.now_s = wait_s - 0.1
    with pytest.raises(RequestError):
        limiter.check("a")
    clock.now_s = wait_s
    limiter.check("a")


def test_a_client_saves_no_more_than_a_burst(clock: Clock, limiter: RateLimiter) -> None:
    clock.now_s = 1e6
    send(limiter, "a", 3)
    with pytest.raises(RequestError):
        limiter.check("a")


def test_millions_of_clients_take_no_more_memory(limiter: RateLimiter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MAX_CLIENTS", 100)
    for number in range(1000):
        send(limiter, str(number), 1)
    assert len(limiter._buckets) == 100


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:c000:208", "192.0.2.8"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("", ""),
    ],
)
def test_what_counts_as_one_client(host: str, client: str) -> None:
    assert name_client(host) == client


def test_the_gate_lets_a_bounded_number_of_each_client_in() -> None:
    gate = Gate(1)
    with gate.enter("a"), gate.enter("b"):
        assert gate.num_inside == 2
        with pytest.raises(RequestError) as caught, gate.enter("a"):
            pass
        assert (caught.value.status, caught.value.advice) == (429, "Try again in 1 second.")
    assert gate.num_inside == 0
    with gate.enter("a"):
        pass


@pytest.mark.parametrize(
    ("num_processors", "memory_bytes", "num_workers"),
    [
        (96, 1 << 40, 16),
        (4, 1 << 40, 4),
        (1, 1 << 40, 2),
        (96, 1 << 30, 2),
        (8, 1 << 29, 1),
    ],
)
def test_workers_are_as_many_as_processors_and_memory_allow(
    num_processors: int, memory_bytes: int, num_workers: int
) -> None:
    assert choose_num_workers(num_processors, memory_bytes) == num_workers
    Settings(num_workers=num_workers)


@pytest.mark.parametrize(
    "name", ["max_photo_bytes", "max_photos", "max_at_work", "max_requests_per_client", "patience_s"]
)
def test_limits_are_above_0(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be above 0. Received: 0"):
        Limits(**{name: 0})


@pytest.mark.parametrize(
    "wrong",
    [{"port": 70000}, {"threshold": 1.5}, {"num_workers": 0}, {"num_workers": 65}, {"poll_s": 0}, {"token": "a\nb"}],
)
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        Settings(**wrong)  # type: ignore[arg-type]


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(Settings(token="secret"))
