"""Reads the bodies of requests within limits of size, time and memory.

Who is refused for the size of a body mostly still sends it, and never reads the answer if the
connection is cut meanwhile. So the rest of such a body is read and thrown away, but only so much
of it: a body without an end is cut off.
"""

import asyncio

from starlette.requests import ClientDisconnect, Request

from hyperrec_jax.serving.limits import MAX_BODY_BYTES
from hyperrec_jax.serving.refusal import Refused

DISCARDED_BYTES = 64 << 20
"""Bytes of a refused body that are read and thrown away before the connection is closed."""


class BodyReader:
    """Reads bodies, and knows how many bytes all of them hold together.

    Attributes:
      held: Bytes of the bodies that are being received or wait to be decoded.
    """

    def __init__(self, max_held: int, seconds: float) -> None:
        """Limits that hold for all bodies of a server.

        Args:
          max_held: Bytes that all bodies may hold together.
          seconds: Time in which a body must have arrived, from the request's head on.
        """
        self.held = 0
        self._max_held = max_held
        self._seconds = seconds

    async def read(self, request: Request) -> bytearray:
        """The body of a request. It counts as held until it is given to `release`.

        Raises:
          Refused: it is too large, took too long, all bodies together hold too much, or the client
            left. Nothing of it is held then.
        """
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                await self._receive(request, body)
        except BaseException as error:
            self.release(body)
            if isinstance(error, TimeoutError):
                raise Refused(
                    408, f"the body did not arrive within {self._seconds:g} seconds", close=True
                ) from None
            if isinstance(error, ClientDisconnect):
                raise Refused(400, "the client left before the end of the body") from None
            raise
        return body

    def release(self, body: bytearray) -> None:
        """Counts a body as held no longer, and empties it."""
        self.held -= len(body)
        body.clear()

    async def _receive(self, request: Request, body: bytearray) -> None:
        refusal = None
        if int(request.headers.get("content-length", 0)) > MAX_BODY_BYTES:
            refusal = Refused(413, _TOO_LARGE)
            if "expect" in request.headers:  # the client asks before it sends: it hears us at once
                refusal.close = True
                raise refusal
        discarded = 0
        async for chunk in request.stream():
            refusal = refusal or self._refusal(len(body), len(chunk))
            if refusal is None:
                self.held += len(chunk)
                body += chunk
                continue
            self.release(body)
            discarded += len(chunk)
            if discarded > DISCARDED_BYTES:
                refusal.close = True
                raise refusal
        if refusal:
            raise refusal

    def _refusal(self, received: int, more: int) -> Refused | None:
        """Why a body of so many bytes may not have some more of them."""
        if received + more > MAX_BODY_BYTES:
            return Refused(413, _TOO_LARGE)
        if self.held + more > self._max_held:
            return Refused(
                503, "the bodies of all requests hold too much memory; try again in a second"
            )
        return None


_TOO_LARGE = f"the body is larger than {MAX_BODY_BYTES >> 20} MiB; send fewer rows in a request"
