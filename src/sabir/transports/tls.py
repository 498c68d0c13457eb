"""TLS without a socket, so that all waiting and closing is the transport's: bytes in, bytes out.

Any SSLContext will do and is left as it was, and the bytes may themselves go through TLS, as to a proxy of https.
"""

from __future__ import annotations

import ssl

PIECE_SIZE = 65536


class Tls:
    """One side of a TLS connection, the client's. What it has `said` is to be sent, after every step."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host.rstrip("."))
        self.is_ready = False
        self.is_over = False
        self._shake()

    def decrypted(self, data: bytes) -> bytes:
        """What these bytes say; may be nothing.

        Raises:
            ssl.SSLError: they are no TLS, or the other side's certificate is not trusted.
        """
        self._incoming.write(data)
        self._shake()
        pieces: list[bytes] = []
        try:
            while self.is_ready and not self.is_over:
                pieces.append(self._tls.read(PIECE_SIZE))
                self.is_over = not pieces[-1]
        except ssl.SSLWantReadError:
            pass
        return b"".join(pieces)

    def encrypted(self, data: bytes | memoryview) -> bytes:
        """The bytes that say this."""
        self._tls.write(data)
        return self.said()

    def said(self) -> bytes:
        """What is to be sent."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def selected_alpn_protocol(self) -> str | None:
        """What both sides agreed to speak, such as h2; None if they did not say."""
        return self._tls.selected_alpn_protocol()

    def _shake(self) -> None:
        if not self.is_ready:
            try:
                self._tls.do_handshake()
                self.is_ready = True
            except ssl.SSLWantReadError:
                pass
