"""Read freely licensed, captioned pictures for the training of the offline scorer: Open Clip Art, Noto Emoji, icons."""

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

from mmdata.demo.drawings import SKIN_TONES, emoji_words, unicode_entry
from mmdata.errors import DataError, UserError

ICON_SETS = {"noto": "Apache-2.0", "flat-color-icons": "MIT"}
"""Name of an icon set, which is the npm package @iconify-json/<name> -> licence."""

EMOJI_SETS = {"noto"}  # icon sets whose icons are emoji

_RENDERED_WIDTH_PX = 256
_MAX_SVG_BYTES = 1_000_000
_MAX_KEYWORD_CHARS = 40
# An element without an end reaches to the end of the file. A search that fails would be made again from each start.
_TITLE = re.compile(r"<dc:title>((?:(?!</dc:title>).)*+)", re.DOTALL)
_KEYWORD = re.compile(r"<rdf:li[^<>]*+>((?:(?!</rdf:li>).)*+)", re.DOTALL)
_MEANINGLESS = re.compile(
    r"clip ?art by|part of|collection|untitled|^\W*$|^(image|drawing|new|unknown|none|clip ?art|icon|svg)$|https?:",
    re.I,
)


@dataclass(frozen=True, slots=True)
class CaptionedPicture:
    """A training picture."""

    source: str  # name of the source, such as `openclipart`
    key: str  # unique in the source; for emoji the code points, upper-case hex joined by `-`, without FE0F
    captions: tuple[str, ...]  # texts that describe it, the best one first; never empty
    read: Callable[[], Image.Image]  # returns the picture as RGBA, or raises a DataError that names it


def openclipart(folder: Path) -> Iterator[CaptionedPicture]:
    """The public-domain Open Clip Art Library 0.18, as unpacked from Debian's package `openclipart-svg`.

    Pictures without a title or a keyword, and pictures larger than 1 MB, are left out.

    Args:
        folder: any folder above the SVG files; a key is the path below the folder `svg`.
    """
    seen: set[str] = set()  # the library holds some files twice
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
    """The icons of an npm package `@iconify-json/<prefix>`, a `.tgz` file that `npm pack` downloads.

    Emoji have their code points as keys, by which the demo's split sorts them; skin tones and aliases are left out.
    """
    with tarfile.open(package) as tar:
        icons = json.loads(_read_member(tar, "package/icons.json"))
        chars = json.loads(_read_member(tar, "package/chars.json")) if prefix in EMOJI_SETS else {}
    codes: dict[str, str] = {}
    for code, name in chars.items():
        codes.setdefault(name, code.upper().replace("-FE0F", ""))
    for name, icon in sorted(icons["icons"].items()):
        key = codes.get(name) if prefix in EMOJI_SETS else name
        if key is None or SKIN_TONES & set(key.split("-")):
            continue
        width = icon.get("width", icons.get("width", 16))
        height = icon.get("height", icons.get("height", 16))
        left, top = icon.get("left", 0), icon.get("top", 0)
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
        ).replace("currentColor", "#202020")
        words = name.replace("-", " ")
        captions = tuple(dict.fromkeys((*(emoji_names(key) if prefix in EMOJI_SETS else ()), words)))
        yield CaptionedPicture(prefix, key, captions, _renderer(svg, f"{prefix}:{name}"))


def emoji_names(key: str) -> tuple[str, ...]:
    """English names of an emoji from the package `emoji` (CLDR), the official one first; empty for an unknown key."""
    entry = unicode_entry(key)
    if entry is None:
        return ()
    return tuple(dict.fromkeys(emoji_words(name) for name in (entry["en"], *entry.get("alias", []))))


def _read_member(tar: tarfile.TarFile, name: str) -> bytes:
    try:
        file = tar.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise UserError(f"{tar.name!s}: no {name} inside. Remedy: download it with `npm pack @iconify-json/<set>`.")
    return file.read()


def _renderer(svg: str, name: str) -> Callable[[], Image.Image]:
    def read() -> Image.Image:
        import resvg_py

        try:
            png = resvg_py.svg_to_bytes(svg_string=svg, width=_RENDERED_WIDTH_PX, skip_system_fonts=True)
            image = Image.open(io.BytesIO(bytes(png)))
            image.load()
        except (ValueError, OSError, Image.DecompressionBombError) as error:
            raise DataError(f"{name}: cannot be rendered: {error}") from None
        return image.convert("RGBA")

    return read


def _clip_art_captions(svg: str, key: str) -> tuple[str, ...]:
    """Captions from title, keywords and folder of a picture; empty where it has neither title nor keyword."""
    titles = [_plain_text(xml) for xml in _TITLE.findall(svg)]
    keywords = [_plain_text(xml) for xml in _KEYWORD.findall(svg)]
    people = set(titles[1:])  # the first title is the picture's, the others are names of its authors
    folders = [part.replace("_", " ") for part in key.split("/")[:-1]]
    title = next((text for text in titles[:1] if _is_meaningful(text)), "")
    keywords = [
        keyword
        for keyword in dict.fromkeys(keywords)
        if _is_meaningful(keyword) and keyword not in people and len(keyword) < _MAX_KEYWORD_CHARS
    ]
    if not title and not keywords:
        return ()
    captions = [title, ", ".join(filter(None, [title, *keywords[:4]])), " ".join(keywords[:3])]
    if folders:
        captions.append(", ".join(filter(None, [title or keywords[0], folders[-1]])))
    return tuple(dict.fromkeys(caption for caption in captions if caption))


def _is_meaningful(text: str) -> bool:
    """Whether a title or keyword describes the picture: it is no file name, no link and no filler word."""
    return len(text) > 2 and not _MEANINGLESS.search(text) and not re.search(r"[\\/]|\.svg", text)


def _plain_text(xml: str) -> str:
    """The text of an XML fragment, without tags and repeated white space."""
    try:
        text = "".join(ElementTree.fromstring(f"<a>{xml}</a>").itertext())
    except ElementTree.ParseError:
        text = re.sub(r"<[^>]*+(?:>|\Z)", " ", xml)
    return re.sub(r"[\s_]+", " ", text).strip(" .")
