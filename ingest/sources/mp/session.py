"""HTTP session of all requests to the API of the Materials Project: rate limit, timeouts and retries.

urllib3's own retries do not see the body of a 429, which distinguishes a busy server from a
blocked address, nor a body that ends early. Therefore the session repeats requests itself.
"""

from __future__ import annotations

from typing import Any

from requests import PreparedRequest, Response, Session
from requests.exceptions import ChunkedEncodingError, ConnectionError, ContentDecodingError, Timeout

from ingest.sources.mp.rate_limiter import RETRIED_STATUSES, RateLimiter, RetryableError, parse_retry_after
from registry.errors import SourceError

__all__ = ["BLOCKED_MESSAGE", "KEY_ADVICE", "RateLimitedSession"]

KEY_ADVICE = "get a key at https://next-gen.materialsproject.org/api and set MP_API_KEY to it"

BLOCKED_MESSAGE = (
    "the Materials Project has blocked the address of this machine after too many requests; "
    "wait some hours, then run the same command again"
)

_KEY_HEADER = "x-api-key"
# A refused certificate or a wrong URL is not among them.
_TRANSIENT_ERRORS = (ConnectionError, Timeout, ChunkedEncodingError, ContentDecodingError)


class RateLimitedSession(Session):
    """A session with a rate limit, timeouts and retries.

    Parameters
    ----------
    key
        Sent as a header to the requested host, never to a host that it redirects to.
    limiter
        Rates, retries and timeouts.
    """

    def __init__(self, key: str, limiter: RateLimiter) -> None:
        super().__init__()
        self._limiter = limiter
        self.headers[_KEY_HEADER] = key
        self.headers["user-agent"] = "ecdreg, with mp-api"

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:
        """Send a request, and repeat it while another attempt may succeed.

        Raises
        ------
        SourceError
            If the key is refused, the machine's address is blocked, the server requires too long
            a delay, or does not answer after several attempts.
        requests.RequestException
            Errors that another attempt would not change.
        """
        limiter = self._limiter
        # The client has one timeout for everything, and none for its heartbeat.
        kwargs["timeout"] = (limiter.connect_timeout, limiter.read_timeout)
        try:
            return limiter.retry(lambda: self._attempt(request, kwargs))
        except RetryableError as error:
            url = (request.url or "").partition("?")[0]
            raise SourceError(
                f"{url} cannot be reached, after {limiter.attempts} attempts ({_short(str(error))}); "
                "run the same command again later"
            ) from None

    def rebuild_auth(self, prepared_request: PreparedRequest, response: Response) -> None:
        """Remove the key from a request that is redirected to another host."""
        super().rebuild_auth(prepared_request, response)
        if self.should_strip_auth(str(response.request.url), str(prepared_request.url)):
            prepared_request.headers.pop(_KEY_HEADER, None)

    def _attempt(self, request: PreparedRequest, kwargs: dict[str, Any]) -> Response:
        self._limiter.wait_for_turn()
        try:
            response = super().send(request, **kwargs)
        except _TRANSIENT_ERRORS as error:
            raise RetryableError(f"{type(error).__name__}: {error}") from None
        _raise_refusal(response)
        status = response.status_code
        if status not in RETRIED_STATUSES:
            return response
        retry_after = parse_retry_after(response.headers.get("Retry-After"))
        if retry_after is not None and retry_after > self._limiter.max_retry_after:
            raise SourceError(
                f"the Materials Project answers {status} and requires a delay of {retry_after:.0f} s; "
                "run the same command again then"
            )
        raise RetryableError(f"status {status}", retry_after=retry_after)


def _raise_refusal(response: Response) -> None:
    if response.status_code in (401, 403):
        raise SourceError(f"the Materials Project refuses the key in MP_API_KEY ({response.status_code}); {KEY_ADVICE}")
    if response.status_code == 429 and b"blocked" in response.content.lower():
        raise SourceError(BLOCKED_MESSAGE)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 160 else text[:159] + "…"
