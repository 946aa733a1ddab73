"""Pictures in every kind of file, made by hand where no library writes it, and how Pillow alone shows them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps

from mmdata.media.colour_profile import matrix_profile
from tests.support.encoded_images import chunk, encoded, gradient, pillow

PROFILES = {
    "Display P3": matrix_profile(
        ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
        (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),
    ),
    "Adobe RGB": matrix_profile(
        ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)), (563 / 256,)
    ),
    "ProPhoto": matrix_profile(((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491)), (1.8,)),
    "sRGB": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
}


def tagged_profile(space: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of a kind of device with some tags."""
    table, data, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(data), len(content))
        data += content.ljust(-(-len(content) // 4) * 4, b"\0")
    connection = b"XYZ " if space == b"GRAY" else b"Lab "
    header = struct.pack(">I4sI4s4s4s12x4s", start + len(data), b"\0" * 4, 0x02400000, kind, space, connection, b"acsp")
    header = header.ljust(68, b"\0") + struct.pack(">iii", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + data


def grey_profile(gamma: float) -> bytes:
    """A profile of grey levels."""
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    return tagged_profile(b"GRAY", b"mntr", {b"wtpt": white, b"kTRC": curve})


def cmyk_profile() -> bytes:
    """A profile of a printer whose inks are weak: a table of 2 x 2 x 2 x 2 colours in Lab."""
    colours = b""
    for number in range(16):
        cyan, magenta, yellow, black = (number >> place & 1 for place in (3, 2, 1, 0))
        light = 255 - 40 * (cyan + magenta + yellow) - 90 * black
        colours += bytes([light, 128 - 30 * cyan + 40 * magenta, 128 - 30 * cyan + 50 * yellow])
    straight = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (place % 4 == 0) for place in range(9)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + straight * 4 + colours + straight * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061)
    return tagged_profile(b"CMYK", b"prtr", {b"wtpt": white, b"A2B0": table})


def exif_with(orientation: bytes, kind: int, count: int, order: str) -> bytes:
    """An EXIF block whose orientation is a field of a kind (3: SHORT); `order` is "<" or ">"."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    field = struct.pack(order + "HHI", 0x0112, kind, count) + orientation.ljust(4, b"\0")
    return b"Exif\0\0" + start + struct.pack(order + "IH", 8, 1) + field + b"\0\0\0\0"


def png(rows: list[bytes], width: int, depth: int, colour: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    """A PNG of packed rows, which are the passes of Adam7 if it is interlaced."""
    height = len(rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    lines = _adam7(rows, width) if interlaced else rows
    pixels = zlib.compress(b"".join(b"\0" + line for line in lines))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _adam7(rows: list[bytes], width: int) -> list[bytes]:
    size = len(rows[0]) // width
    grid = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), width, size)
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    return [line.tobytes() for top, left, down, right in passes for line in grid[top::down, left::right]]


def packed_png(depth: int, colour: int, transparency: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG of any depth and kind of colours (0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA)."""
    colours = cv2.cvtColor(gradient(200, 152), cv2.COLOR_BGR2RGB)
    alpha = np.tile(np.linspace(0, 255, 200).astype(np.uint8)[::-1, None], (152, 1, 1))
    levels = {0: colours[..., :1], 2: colours, 3: colours[..., :1], 4: np.dstack([colours[..., 0], alpha])}
    values = levels.get(colour, np.dstack([colours, alpha]))
    if depth == 16:
        rows = [line.astype(">u2").__mul__(257).astype(">u2").tobytes() for line in values]
    else:
        rows = [np.packbits(_bits(line.reshape(-1) >> (8 - depth), depth)).tobytes() for line in values]
    chunks = []
    if colour == 3:
        spread = np.linspace(0, 255, 2**depth).astype(np.uint8)
        chunks.append(chunk(b"PLTE", np.stack([spread, spread[::-1], spread // 2], -1).tobytes()))
    if transparency:
        chunks.append(chunk(b"tRNS", transparency))
    return png(rows, 200, depth, colour, *chunks, interlaced=interlaced)


def _bits(values: np.ndarray, depth: int) -> np.ndarray:
    return (values[:, None] >> np.arange(depth)[::-1] & 1).astype(np.uint8)


def bmp(bits: int, top_down: bool = False, compression: int = 0, alpha: int | None = None) -> bytes:
    """A BMP of 8 bits in runs (compression 1), or of 16 or 32 bits; `alpha` makes a header that has transparency."""
    height, width = 150, 200
    colours = gradient(width, height)
    lines = colours if top_down else colours[::-1]
    palette, fields = b"", b""
    if bits == 8:
        grey = lines[..., 2]
        data = b"".join(b"".join(bytes([1, value]) for value in line) + b"\0\0" for line in grey) + b"\0\1"
        palette = b"".join(bytes([level, level, level, 0]) for level in range(256))
    elif bits == 16:
        five = lines.astype(np.uint16) >> 3
        data = (five[..., 2] << 10 | five[..., 1] << 5 | five[..., 0]).astype("<u2").tobytes()
    else:
        fourth = np.full((height, width, 1), alpha or 0, np.uint8)
        data = np.dstack([lines, fourth]).tobytes()
    if alpha is not None:
        compression, fields = 3, struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000).ljust(84, b"\0")
    size = 40 + len(fields)
    rows = -height if top_down else height
    info = struct.pack("<IiiHHIIiiII", size, width, rows, 1, bits, compression, len(data), 0, 0, len(palette) // 4, 0)
    start = 14 + size + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + fields + palette + data


def ycck_jpeg() -> bytes:
    """A JPEG in luma, chroma and black, as Photoshop writes them."""
    body = bytearray(pillow(gradient(200, 150), "JPEG", "CMYK"))
    body[body.index(b"Adobe") + 11] = 2
    return bytes(body)


def transparent_gif() -> bytes:
    image = Image.fromarray(gradient(200, 150)).quantize(16)
    out = io.BytesIO()
    image.save(out, "GIF", transparency=image.getpixel((100, 70)))
    return out.getvalue()


def film(form: str, **options: object) -> bytes:
    """An animation of three frames."""
    first = Image.fromarray(gradient(200, 150))
    out = io.BytesIO()
    first.save(out, form, save_all=True, append_images=[first.rotate(90), first.rotate(180)], **options)
    return out.getvalue()


def rgba(form: str, **options: object) -> bytes:
    colours = cv2.cvtColor(gradient(200, 150), cv2.COLOR_BGR2RGB)
    alpha = np.tile(np.linspace(255, 0, 200).astype(np.uint8), (150, 1))
    out = io.BytesIO()
    Image.fromarray(np.dstack([colours, alpha])).save(out, form, **options)
    return out.getvalue()


def small(form: str, mode: str = "RGB", **options: object) -> bytes:
    return pillow(gradient(200, 150), form, mode, **options)


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "TIFF", **options)
    return out.getvalue()


GREY = gradient(200, 150)[..., 2]

FILES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: small("JPEG", quality=95),
    "JPEG progressive": lambda: small("JPEG", progressive=True),
    "JPEG 4:4:4": lambda: small("JPEG", subsampling=0),
    "JPEG grey": lambda: small("JPEG", "L"),
    "JPEG CMYK": lambda: small("JPEG", "CMYK"),
    "JPEG YCCK": ycck_jpeg,
    "JPEG restarts": lambda: encoded(gradient(200, 150), ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 5),
    "JPEG MPO": lambda: film("MPO"),
    **{f"PNG grey {depth}": lambda depth=depth: packed_png(depth, 0) for depth in (1, 2, 4, 8, 16)},
    **{f"PNG palette {depth}": lambda depth=depth: packed_png(depth, 3) for depth in (1, 2, 4, 8)},
    **{f"PNG RGB {depth}": lambda depth=depth: packed_png(depth, 2) for depth in (8, 16)},
    **{f"PNG grey alpha {depth}": lambda depth=depth: packed_png(depth, 4) for depth in (8, 16)},
    **{f"PNG RGBA {depth}": lambda depth=depth: packed_png(depth, 6) for depth in (8, 16)},
    "PNG palette tRNS": lambda: packed_png(8, 3, bytes(range(0, 200, 2))),
    "PNG grey tRNS": lambda: packed_png(4, 0, b"\0\3"),
    "PNG RGB tRNS": lambda: packed_png(8, 2, bytes(6)),
    "PNG interlaced": lambda: packed_png(8, 2, interlaced=True),
    "PNG interlaced RGBA": lambda: packed_png(8, 6, interlaced=True),
    "APNG": lambda: film("PNG"),
    "GIF": lambda: small("GIF", "P"),
    "GIF transparent": transparent_gif,
    "GIF film": lambda: film("GIF"),
    "WebP": lambda: small("WEBP", quality=95),
    "WebP lossless": lambda: small("WEBP", lossless=True),
    "WebP alpha": lambda: rgba("WEBP", quality=95),
    "WebP lossless alpha": lambda: rgba("WEBP", lossless=True, exact=True),
    "WebP film": lambda: film("WEBP", quality=95),
    "BMP 1": lambda: small("BMP", "1"),
    "BMP 4": lambda: pillow(gradient(200, 150), "BMP", "P", bits=4),
    "BMP 8": lambda: small("BMP", "P"),
    "BMP 8 grey": lambda: small("BMP", "L"),
    "BMP 8 runs": lambda: bmp(8, compression=1),
    "BMP 16": lambda: bmp(16),
    "BMP 24": lambda: small("BMP"),
    "BMP 32": lambda: bmp(32),
    "BMP 32 top down": lambda: bmp(32, top_down=True),
    "BMP 16 top down": lambda: bmp(16, top_down=True),
    "BMP 32 transparent": lambda: bmp(32, alpha=128),
    "TIFF": lambda: small("TIFF"),
    "TIFF LZW": lambda: small("TIFF", compression="tiff_lzw"),
    "TIFF JPEG": lambda: small("TIFF", compression="jpeg", quality=95),
    "TIFF 1": lambda: small("TIFF", "1", compression="group4"),
    "TIFF palette": lambda: small("TIFF", "P"),
    "TIFF CMYK": lambda: small("TIFF", "CMYK"),
    "TIFF alpha": lambda: rgba("TIFF"),
    "TIFF 16": lambda: tiff(GREY.astype(np.uint16) * 257),
    "TIFF float": lambda: tiff(GREY.astype(np.float32) / 255),
    "TIFF pages": lambda: film("TIFF"),
    "AVIF": lambda: small("AVIF", quality=95),
    "AVIF alpha": lambda: rgba("AVIF", quality=95),
    "AVIF film": lambda: film("AVIF", quality=95),
    "JPEG grey, grey profile": lambda: small("JPEG", "L", icc_profile=grey_profile(1.0)),
    "PNG grey alpha, grey profile": lambda: small("PNG", "LA", icc_profile=grey_profile(1.4)),
    "JPEG CMYK, printer's profile": lambda: small("JPEG", "CMYK", icc_profile=cmyk_profile()),
    "TIFF CMYK, printer's profile": lambda: small("TIFF", "CMYK", icc_profile=cmyk_profile()),
    **{
        f"{form}, {name}": lambda form=form, profile=profile: small(form, icc_profile=profile)
        for name, profile in PROFILES.items()
        for form in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
    },
    "PNG palette, Display P3": lambda: small("PNG", "P", icc_profile=PROFILES["Display P3"]),
    "PNG RGBA, Adobe RGB": lambda: rgba("PNG", icc_profile=PROFILES["Adobe RGB"]),
    "PNG, printer's profile": lambda: small("PNG", icc_profile=cmyk_profile()),
    "JPEG, broken profile": lambda: small("JPEG", icc_profile=PROFILES["Adobe RGB"][:200]),
}
"""Name -> a file of 200 x about 150 pixels, which are stored without resizing."""


def as_pillow_shows(body: bytes) -> np.ndarray:
    """What Pillow, its `exif_transpose` and LittleCMS make of a file: uint8 H,W,3 BGR, transparency on white."""
    image: Any = Image.open(io.BytesIO(body))
    profile = image.info.get("icc_profile")
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        image = Image.fromarray((np.asarray(image) * 255).astype(np.uint8))
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    if profile:
        try:
            target = ImageCms.createProfile("sRGB")
            alpha = image.getchannel("A") if "A" in image.getbands() else None
            colours = image.convert({"RGBA": "RGB", "LA": "L"}.get(image.mode, image.mode))
            image = ImageCms.profileToProfile(colours, io.BytesIO(profile), target, outputMode="RGB")
            if alpha is not None:
                image.putalpha(alpha)
        except ImageCms.PyCMSError:
            pass  # of other colours than the picture, or broken
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return cv2.cvtColor(np.asarray(Image.alpha_composite(white, image).convert("RGB")), cv2.COLOR_RGB2BGR)
