"""Samples as a WAV file: the header that says how they are to be played; knows no format that they came in.

Format: http://soundfile.sapp.org/doc/WaveFormat/. Samples are linear, 16 bits, little-endian, as every provider that
sends bare ones has them.
"""

from __future__ import annotations

import re
import struct

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_BYTES = 2
_RATE = re.compile(r"rate=(\d{1,9})")
_CHANNELS = re.compile(r"channels=(\d{1,2})")


def wav(samples: bytes, rate: int, channels: int = 1) -> bytes:
    """A WAV file of these samples."""
    block = channels * _BYTES
    size = len(samples)
    head = (b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, channels, rate, rate * block, block, 8 * _BYTES, b"data", size)
    return _HEADER.pack(*head) + samples


def samples_of(data: bytes) -> tuple[bytes, int, int] | None:
    """The samples of a plain WAV file, their rate and channels; None of what is anything else."""
    if len(data) < _HEADER.size:
        return None
    riff, _, wave, fmt, length, kind, channels, rate, _, _, bits, chunk, size = _HEADER.unpack_from(data)
    is_plain = (riff, wave, fmt, length, kind, bits, chunk) == (b"RIFF", b"WAVE", b"fmt ", 16, 1, 8 * _BYTES, b"data")
    return (data[_HEADER.size : _HEADER.size + size], rate, channels) if is_plain else None


def told_rate(media_type: str, usual: int) -> tuple[int, int]:
    """The rate and the channels that a media type tells (RFC 2586), such as `audio/L16;rate=24000`."""
    rate, channels = _RATE.search(media_type), _CHANNELS.search(media_type)
    return (int(rate[1]) or usual) if rate else usual, (int(channels[1]) or 1) if channels else 1
