"""Pixels of a PNG file of 8 bits a channel, not interlaced: what sample and web_demo write."""

import struct
import zlib


def chunks(data):
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("not a PNG file")
    at = 8
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        yield kind, data[at + 8:at + 8 + length]
        at += 12 + length


def paeth(left, up, corner):
    near = left + up - corner
    return min((abs(near - left), 0, left), (abs(near - up), 1, up), (abs(near - corner), 2, corner))[2]


def unfiltered(kind, line, above, step):
    """A line of bytes without its filter."""
    out = bytearray(line)
    for i, byte in enumerate(line):
        left = out[i - step] if i >= step else 0
        corner = above[i - step] if i >= step else 0
        out[i] = (byte + (0, left, above[i], (left + above[i]) // 2, paeth(left, above[i], corner))[kind]) % 256
    return bytes(out)


def decode(data):
    """(width, height, channels, bytes of all lines)."""
    packed = b""
    for kind, body in chunks(data):
        if kind == b"IHDR":
            width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            packed += body
    if bits != 8 or interlaced:
        raise ValueError("not a PNG file of the kind that is read here")
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    raw = zlib.decompress(packed)
    length = width * channels
    lines = [bytes(length)]
    for y in range(height):
        start = y * (length + 1)
        lines.append(unfiltered(raw[start], raw[start + 1:start + 1 + length], lines[-1], channels))
    return width, height, channels, b"".join(lines[1:])
