"""Freely licensed captioned pictures that the small offline scorer's projections are trained on."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from mmdata.errors import DataError, UserError

ICON_SETS = {"noto": "Apache-2.0", "flat-color-icons": "MIT"}  # npm package @iconify-json/<name> -> licence
EMOJI_SETS = {"noto"}

_RENDER_PIXELS = 256
_MAX_SVG_BYTES = 1_000_000
_SKIN_TONES = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}
_NO_CONTENT = re.compile(
    r"clip ?art by|part of|collection|untitled|^\W*$|^(image|drawing|new|unknown|none|clip ?art|icon|svg)$|https?:",
    re.I,
)


@dataclass(frozen=True, slots=True)
class CaptionedPicture:
    """One training picture: where it comes from, what may be said of it, and how it is read.

    Args:
        source: the source's name, such as `openclipart`.
        key: unique in the source; for emoji the code points, upper-case hex joined by `-`, without FE0F.
        captions: texts that describe it, the best first; never empty.
        read: gives the picture as RGBA, or raises DataError naming it.
    """

    source: str
    key: str
    captions: tuple[str, ...]
    read: Callable[[], Image.Image]


def openclipart(folder: Path) -> Iterator[CaptionedPicture]:
    """The public-domain Open Clip Art Library 0.18 as Debian's package `openclipart-svg` unpacks it.

    A picture without a title or keyword of its own (or larger than 1 MB) is left out.

    Args:
        folder: any folder above the SVG files; a key is the path from the folder `svg` on.
    """
    seen: set[str] = set()
    for path in sorted(folder.rglob("*.svg")):
        key = path.relative_to(folder).as_posix().partition("openclipart/svg/")[2]
        if not key or path.is_symlink() or path.stat().st_size > _MAX_SVG_BYTES:
            continue
        svg = path.read_text(encoding="utf-8", errors="replace")
        if svg in seen:
            continue
        seen.add(svg)
        captions = _clip_art_captions(svg, key)
        if captions:
            yield CaptionedPicture("openclipart", key, captions, _renderer(svg, key))


def icon_set(package: Path, prefix: str) -> Iterator[CaptionedPicture]:
    """One icon set from its npm package `@iconify-json/<prefix>`, a `.tgz` as `npm pack` fetches it.

    Emoji are keyed by code points, so that they follow the demo's split; skin tones and aliases are left out.
    """
    with tarfile.open(package) as tar:
        icons = json.loads(_member(tar, "package/icons.json"))
        chars = json.loads(_member(tar, "package/chars.json")) if prefix in EMOJI_SETS else {}
    codes: dict[str, str] = {}
    for code, name in chars.items():
        codes.setdefault(name, code.upper().replace("-FE0F", ""))
    for name, icon in sorted(icons["icons"].items()):
        key = codes.get(name) if prefix in EMOJI_SETS else name
        if key is None or _SKIN_TONES & set(key.split("-")):
            continue
        width = icon.get("width", icons.get("width", 16))
        height = icon.get("height", icons.get("height", 16))
        left, top = icon.get("left", 0), icon.get("top", 0)
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
        ).replace("currentColor", "#202020")
        words = name.replace("-", " ")
        captions = (emoji_names(key) if prefix in EMOJI_SETS else ()) or (words,)
        if words not in captions:
            captions = (*captions, words)
        yield CaptionedPicture(prefix, key, captions, _renderer(svg, f"{prefix}:{name}"))


def emoji_names(key: str) -> tuple[str, ...]:
    """English names and aliases of an emoji from the package `emoji` (CLDR), the official one first."""
    import emoji

    text = "".join(chr(int(code, 16)) for code in key.split("-"))
    entry = emoji.EMOJI_DATA.get(text) or emoji.EMOJI_DATA.get(text + "\ufe0f")
    if entry is None:
        return ()
    names = [entry["en"], *entry.get("alias", [])]
    return tuple(dict.fromkeys(name.strip(":").replace("_", " ") for name in names))


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    try:
        file = tar.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise UserError(f"{tar.name!s}: no {name} inside. Remedy: fetch it with `npm pack @iconify-json/<set>`.")
    return file.read()


def _renderer(svg: str, name: str) -> Callable[[], Image.Image]:
    def read() -> Image.Image:
        import resvg_py

        try:
            png = resvg_py.svg_to_bytes(svg_string=svg, width=_RENDER_PIXELS, skip_system_fonts=True)
            image = Image.open(io.BytesIO(bytes(png)))
            image.load()
        except (ValueError, OSError, Image.DecompressionBombError) as error:
            raise DataError(f"{name}: cannot be rendered: {error}") from None
        return image.convert("RGBA")

    return read


def _clip_art_captions(svg: str, key: str) -> tuple[str, ...]:
    titles = [_text(found) for found in re.findall(r"<dc:title>(.*?)</dc:title>", svg, re.S)]
    keywords = [_text(found) for found in re.findall(r"<rdf:li[^>]*>(.*?)</rdf:li>", svg, re.S)]
    people = set(titles[1:])
    folders = [part.replace("_", " ") for part in key.split("/")[:-1]]
    title = next((text for text in titles[:1] if _says_something(text)), "")
    words = [w for w in dict.fromkeys(keywords) if _says_something(w) and w not in people and len(w) < 40]
    if not title and not words:
        return ()
    captions = [title, ", ".join(filter(None, [title, *words[:4]])), " ".join(words[:3])]
    if folders:
        captions.append(", ".join(filter(None, [title or words[0], folders[-1]])))
    return tuple(dict.fromkeys(c for c in captions if c))


def _says_something(text: str) -> bool:
    return len(text) > 2 and not _NO_CONTENT.search(text) and not re.search(r"[\\/]|\.svg", text)


def _text(xml: str) -> str:
    try:
        text = "".join(ElementTree.fromstring(f"<a>{xml}</a>").itertext())
    except ElementTree.ParseError:
        text = re.sub(r"<[^>]*>", " ", xml)
    return re.sub(r"[\s_]+", " ", text).strip(" .")
