"""Plan the rows of the demo's picture source, and the faults planted in them: a pure function of their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random

from mmdata.demo.caption_templates import COLOURS, LANGUAGES, english_caption, foreign_caption
from mmdata.demo.drawings import Emoji, Photo, one_per_base
from mmdata.demo.web_server import PRIVATE_URL
from mmdata.errors import UserError

SHARES = {
    "mismatch": 0.20,
    "near_duplicate": 0.06,
    "exact_duplicate": 0.02,
    "other_language": 0.08,
    "watermark": 0.01,
    "repeated_row": 0.003,
    "repeated_url": 0.003,
}
"""What is planted -> share of all rows."""

KINDS = (
    *("object", "animal", "face", "food", "travel", "symbol"),
    *("person", "flag", "weather", "hand", "clock", "plant"),
)
"""Kinds of drawings, from the most frequent to the rarest; photographs are rarer still."""

ZIPF_EXPONENT = 1.25
RARE_KINDS = frozenset({"hand", "clock", "plant", "photo"})
MIN_ROWS = 150

ODDITIES: dict[str, tuple[int, str]] = {
    "redirect_chain": (2, "odd/redirect/3/{file}"),
    "busy_once": (2, "odd/busy/{file}"),
    "mislabelled": (2, "odd/mislabelled/{file}"),
    "odd_caption": (2, "{file}"),
    "not_found": (6, "pictures/missing-{number}.jpg"),
    "gone": (2, "odd/gone/{file}"),
    "server_down": (2, "odd/down/{file}"),
    "broken_image": (5, "pictures/broken-{number}.jpg"),
    "cut_short": (2, "odd/cut/{file}"),
    "oversized": (1, "odd/huge/wallpaper.png"),
    "endless": (1, "odd/endless/stream.png"),
    "redirect_private": (1, "odd/to-private/picture.png"),
    "redirect_metadata": (1, "odd/to-metadata/picture.png"),
    "redirect_loop": (1, "odd/loop/picture.png"),
    "private_url": (1, PRIVATE_URL),
    "slow": (1, "odd/slow/{file}"),
    "html_page": (2, "odd/html/picture-{number}.jpg"),
    "opt_out": (3, "odd/noai/{file}"),
    "bomb": (1, "pictures/bomb.png"),
    "file_url": (1, "file:///etc/passwd"),
    "no_url": (2, ""),
    "no_caption": (1, "{file}"),
}
"""What is odd -> how many rows, and the path on the server (`{file}`: a good picture made for the row) or the URL."""

HARMLESS_ODDITIES = frozenset({"redirect_chain", "busy_once", "mislabelled", "odd_caption"})
"""Odd rows that still give a picture with its true caption."""


@dataclass(frozen=True, slots=True)
class Picture:
    """How a picture file of the site is made.

    Args:
        size_px, background, zoom, shift: as in `mmdata.demo.drawings.draw`.
    """

    file: str  # path on the site
    subject: Emoji | Photo  # the drawing or photograph that it shows
    size_px: int
    background: str = "#ffffff"
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    format: str = "PNG"  # PNG, JPEG or WEBP
    quality: int = 90  # of JPEG and WebP


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the demo's metadata, and the truth about it."""

    planted: str  # `clean`, `rare`, one of `SHARES` or one of `ODDITIES`
    kind: str  # of the subject of the picture
    address: str  # path on the server, or a whole URL, or empty
    caption: str
    language: str
    picture: Picture | None = None  # the picture that is served there; None: there is none, or not a good one
    copy_of: int | None = None  # number of the row that this one copies


def plan_rows(rows: int, emoji: Sequence[Emoji], photos: Sequence[Photo]) -> list[Row]:
    """The demo's rows, in file order. Raises UserError for fewer rows than the oddities need."""
    if rows < MIN_ROWS:
        raise UserError(f"a demo needs at least {MIN_ROWS} rows, not {rows}. Remedy: ask for more rows.")
    random = Random(0)
    counts = {name: max(2, round(share * rows)) for name, share in SHARES.items()}
    copies = sum(counts[name] for name in ("near_duplicate", "exact_duplicate", "repeated_row", "repeated_url"))
    odd_rows = sum(count for count, _ in ODDITIES.values())
    subjects = _subjects(rows - copies - odd_rows, emoji, photos, random)
    planned = [_clean_row(number, subject, random) for number, subject in enumerate(subjects)]
    clean = [number for number, row in enumerate(planned) if row.planted == "clean"]
    random.shuffle(clean)
    untaken = iter(clean)

    def take(fault: str) -> list[int]:
        """Numbers of clean rows that get this fault, or are copied with it."""
        return list(islice(untaken, counts[fault]))

    wrong_captions = {number: _wrong_caption(number, planned, random) for number in take("mismatch")}
    for number, caption in wrong_captions.items():
        planned[number] = replace(planned[number], planted="mismatch", caption=caption)
    for number in take("other_language"):
        planned[number] = _in_another_language(planned[number], random)
    for number in take("watermark"):
        planned[number] = replace(planned[number], planted="watermark")
    planned += [_near_duplicate(number, planned[number], random) for number in take("near_duplicate")]
    planned += [_exact_duplicate(number, planned[number], random) for number in take("exact_duplicate")]
    planned += [replace(planned[number], planted="repeated_row", copy_of=number) for number in take("repeated_row")]
    planned += [_repeated_url(number, planned[number], random) for number in take("repeated_url")]
    planned += _odd_rows(emoji, random)
    return _shuffle(planned, random)


def _subjects(count: int, emoji: Sequence[Emoji], photos: Sequence[Photo], random: Random) -> list[Emoji | Photo]:
    """Subjects of pictures, their kinds by Zipf's law; every base of a kind is drawn once before any is drawn again."""
    subjects: list[Emoji | Photo] = list(photos[: max(3, count // 150)])
    weights = [1 / rank**ZIPF_EXPONENT for rank in range(1, len(KINDS) + 1)]
    drawings = count - len(subjects)
    quotas = [int(drawings * weight / sum(weights)) for weight in weights]
    quotas[0] += drawings - sum(quotas)
    for kind, quota in zip(KINDS, quotas, strict=True):
        bases = one_per_base(drawing for drawing in emoji if drawing.kind == kind)
        random.shuffle(bases)
        subjects += [bases[number % len(bases)] for number in range(quota)]
    return subjects


def _clean_row(number: int, subject: Emoji | Photo, random: Random) -> Row:
    picture, colour = _picture(f"{number:05d}", subject, random)
    if isinstance(subject, Photo):
        return Row("rare", "photo", picture.file, f"photo of {subject.caption}", "en", picture)
    planted = "rare" if subject.kind in RARE_KINDS else "clean"
    caption = english_caption(subject.name, subject.kind, colour, random)
    return Row(planted, subject.kind, picture.file, caption, "en", picture)


def _picture(stem: str, subject: Emoji | Photo, random: Random) -> tuple[Picture, str]:
    """A picture of a subject, with the name of its background's colour."""
    colour = random.choice(sorted(COLOURS))
    size_px = random.choice((224, 256, 288, 320))
    zoom = random.uniform(0.6, 1.0)
    slack = (1 - zoom) / 2
    shift = (random.uniform(-slack, slack), random.uniform(-slack, slack))
    if isinstance(subject, Photo):
        return Picture(f"pictures/{stem}.jpg", subject, size_px, format="JPEG"), colour
    file_format = random.choice(("PNG", "PNG", "PNG", "JPEG", "JPEG", "WEBP"))
    file = f"pictures/{stem}.{'jpg' if file_format == 'JPEG' else file_format.lower()}"
    return Picture(file, subject, size_px, COLOURS[colour], zoom, shift, file_format), colour


def _wrong_caption(number: int, planned: Sequence[Row], random: Random) -> str:
    """The caption of a row with another kind of picture."""
    while True:
        donor = random.choice(planned)
        if donor.kind != planned[number].kind:
            return donor.caption


def _in_another_language(row: Row, random: Random) -> Row:
    subject = _picture_of(row).subject
    if isinstance(subject, Photo):
        raise TypeError("photographs have only English captions")
    language = random.choice(LANGUAGES)
    return replace(row, planted="other_language", caption=foreign_caption(subject.names, language), language=language)


def _near_duplicate(number: int, row: Row, random: Random) -> Row:
    """The same picture resized, re-encoded, and cropped or moved by about a hundredth of its side."""
    original = _picture_of(row)
    move = (random.uniform(-0.012, 0.012), random.uniform(-0.012, 0.012))
    picture = replace(
        original,
        file=f"pictures/{number:05d}-copy.jpg",
        size_px=round(original.size_px * random.uniform(0.75, 1.15)),
        zoom=original.zoom * random.uniform(1.0, 1.025),
        shift=(original.shift[0] + move[0], original.shift[1] + move[1]),
        format="JPEG",
        quality=random.randint(60, 92),
    )
    copy = replace(row, planted="near_duplicate", address=picture.file, picture=picture, copy_of=number)
    return replace(copy, caption=_new_caption(row, random))


def _exact_duplicate(number: int, row: Row, random: Random) -> Row:
    """The same bytes under another URL."""
    original = _picture_of(row)
    picture = replace(original, file=f"mirror/{original.file.rpartition('/')[2]}")
    copy = replace(row, planted="exact_duplicate", address=picture.file, picture=picture, copy_of=number)
    return replace(copy, caption=_new_caption(row, random))


def _repeated_url(number: int, row: Row, random: Random) -> Row:
    """The same URL with another caption."""
    caption = row.caption
    while caption == row.caption:
        caption = _new_caption(row, random)
    return replace(row, planted="repeated_url", caption=caption, copy_of=number)


def _new_caption(row: Row, random: Random) -> str:
    """Another English caption for a row's picture; a photograph has only one."""
    picture = _picture_of(row)
    if isinstance(picture.subject, Photo):
        return row.caption
    colour = next(name for name, value in COLOURS.items() if value == picture.background)
    return english_caption(picture.subject.name, picture.subject.kind, colour, random)


def _odd_rows(emoji: Sequence[Emoji], random: Random) -> list[Row]:
    objects = [drawing for drawing in emoji if drawing.kind == "object"]
    rows: list[Row] = []
    for planted, (count, address) in ODDITIES.items():
        for _ in range(count):
            subject = random.choice(objects)
            picture, colour = _picture(f"odd-{len(rows):03d}", subject, random)
            caption = english_caption(subject.name, subject.kind, colour, random)
            if planted == "odd_caption":
                caption = f"  {caption[:4]}\0{caption[4:]}\n\tsecond line\r\n "
            elif planted == "no_caption":
                caption = " \n"
            row_address = address.format(file=picture.file, number=f"{len(rows):03d}")
            served = picture if "{file}" in address else None
            rows.append(Row(planted, "object", row_address, caption, "en", served))
    return rows


def _shuffle(planned: list[Row], random: Random) -> list[Row]:
    """Shuffle the rows, and renumber the rows that copies point at."""
    order = list(range(len(planned)))
    random.shuffle(order)
    new_number = {old: new for new, old in enumerate(order)}
    shuffled = [planned[old] for old in order]
    return [row if row.copy_of is None else replace(row, copy_of=new_number[row.copy_of]) for row in shuffled]


def _picture_of(row: Row) -> Picture:
    if row.picture is None:
        raise ValueError(f"row {row.address!r} has no picture")
    return row.picture
