"""Calls that are made until they are answered, whatever happens to the service meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TypeVar

from service.client.calls import Client
from service.client.failures import ClientError, NoAnswer, NotRunning
from service.demo.supervise import Supervised
from service.errors import ServiceError

BUSY = (408, 429, 500, 503, 504)
NOTHING_YET = (404, *BUSY)
PATIENCE_SECONDS = 120.0
_PAUSE_SECONDS = 0.2

T = TypeVar("T")


class Delivery:
    """Speaks to a supervised service as any client would, and does not give up at a restart.

    What is sent must be safe to be sent twice: predictions have ids, labels have keys.

    Parameters
    ----------
    service
        Whom to ask, and to start again where it has died.
    sleep
        Waits so many seconds.
    """

    def __init__(self, service: Supervised, sleep: Callable[[float], object] = time.sleep) -> None:
        self._service, self._sleep = service, sleep
        self._client = Client(service.url, retries=0)

    def ask(self, call: Callable[[Client], T]) -> T:
        """Return what the call returns, made again until it is answered.

        Raises
        ------
        ClientError
            If the service refuses.
        ServiceError
            If it does not answer for two minutes, or does not start again.
        """
        return self._asked(call, BUSY)

    def look(self, call: Callable[[Client], T]) -> T | None:
        """Return what the call returns; None where there is nothing to see yet."""
        try:
            return self._asked(call, ())
        except ClientError as error:
            if error.status in NOTHING_YET:
                return None
            raise

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _asked(self, call: Callable[[Client], T], busy: Collection[int]) -> T:
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return call(self._client)
            except ClientError as error:
                if error.status not in busy or time.monotonic() > end:
                    raise
            except (NotRunning, NoAnswer) as error:
                if self._service.revive():
                    end = time.monotonic() + PATIENCE_SECONDS
                elif time.monotonic() > end:
                    raise ServiceError(f"no answer for {PATIENCE_SECONDS:g} s: {error}") from error
            self._sleep(_PAUSE_SECONDS)
