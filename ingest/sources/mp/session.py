"""The HTTP session that every request to the API goes through.

urllib3's own retries see neither the body of a 429, which tells a busy server from a blocked
address, nor a body that ends early. So the session does the repeating itself.
"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any

from requests import PreparedRequest, Response, Session
from requests.exceptions import ChunkedEncodingError, ConnectionError, ContentDecodingError, Timeout

from ingest.sources.mp.rate_limiter import RETRIED, RateLimiter
from registry.errors import SourceError

__all__ = ["BLOCKED", "WHERE_KEYS_COME_FROM", "PoliteSession", "retry_after"]

WHERE_KEYS_COME_FROM = "get one at https://next-gen.materialsproject.org/api and set MP_API_KEY to it"

BLOCKED = (
    "the Materials Project has blocked this machine's address for asking too often; "
    "wait some hours, then run the same command again"
)

_KEY_HEADER = "x-api-key"
# What may go better the next time; a refused certificate or a wrong URL is none of it.
_PASSING = (ConnectionError, Timeout, ChunkedEncodingError, ContentDecodingError)


class PoliteSession(Session):
    """A session with a rate, timeouts and patience.

    Parameters
    ----------
    key
        Sent as a header to the host that was asked, never to one that it redirects to.
    manners
        Rates and patience.
    """

    def __init__(self, key: str, manners: RateLimiter) -> None:
        super().__init__()
        self._manners = manners
        self.headers[_KEY_HEADER] = key
        self.headers["user-agent"] = "ecdreg, with mp-api"

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:
        """Send a request until it is answered, as long as that makes sense.

        Raises
        ------
        SourceError
            If the key is refused, the machine's address is blocked, or the service does not
            answer after several attempts.
        requests.RequestException
            What another attempt would not change.
        """
        manners = self._manners
        # The client's own timeout is one number for everything, and its heartbeat has none.
        kwargs["timeout"] = (manners.connect_timeout, manners.read_timeout)
        reason = ""
        for attempt in range(1, manners.attempts + 1):
            manners.wait_for_turn()
            asked = None
            try:
                response = super().send(request, **kwargs)
            except _PASSING as error:
                reason = f"{type(error).__name__}: {error}"
            else:
                self._complain(response)
                if response.status_code not in RETRIED:
                    return response
                reason = f"status {response.status_code}"
                asked = retry_after(response.headers.get("Retry-After"))
                if asked is not None and asked > manners.longest_pause:
                    raise SourceError(
                        f"the Materials Project answers {response.status_code} and asks for {asked:.0f} s of patience; "
                        "run the same command again then"
                    )
            if attempt < manners.attempts:
                time.sleep(manners.pause(attempt, asked))
        where = (request.url or "").partition("?")[0]
        raise SourceError(
            f"{where} cannot be reached, after {manners.attempts} attempts ({_short(reason)}); "
            "run the same command again later"
        )

    def rebuild_auth(self, prepared_request: PreparedRequest, response: Response) -> None:
        """Keep the key from a host that the answer redirects to."""
        super().rebuild_auth(prepared_request, response)
        if self.should_strip_auth(str(response.request.url), str(prepared_request.url)):
            prepared_request.headers.pop(_KEY_HEADER, None)

    def _complain(self, response: Response) -> None:
        if response.status_code in (401, 403):
            raise SourceError(
                f"the Materials Project refuses the key in MP_API_KEY ({response.status_code}); {WHERE_KEYS_COME_FROM}"
            )
        if response.status_code == 429 and b"blocked" in response.content.lower():
            raise SourceError(BLOCKED)


def retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for: a number, or a date; None where it says nothing."""
    if value is None:
        return None
    value = value.strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 160 else text[:159] + "…"
