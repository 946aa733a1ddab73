"""Which rows the demo corpus has, and what is planted in them: a pure function of their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from mmdata.demo.drawings import Emoji, Photo
from mmdata.demo.page_captions import COLOURS, LANGUAGES, english_caption, foreign_caption
from mmdata.demo.web_server import PRIVATE
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
"""Planted -> share of all rows."""

KINDS = (
    "object",
    "animal",
    "face",
    "food",
    "travel",
    "symbol",
    "person",
    "flag",
    "weather",
    "hand",
    "clock",
    "plant",
)
"""From the most frequent to the rarest; photographs are rarer still."""

ZIPF_EXPONENT = 1.25
RARE_KINDS = frozenset({"hand", "clock", "plant", "photo"})
LEAST_ROWS = 150

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
    "private_url": (1, PRIVATE),
    "slow": (1, "odd/slow/{file}"),
    "html_page": (2, "odd/html/picture-{number}.jpg"),
    "opt_out": (3, "odd/noai/{file}"),
    "bomb": (1, "pictures/bomb.png"),
    "file_url": (1, "file:///etc/passwd"),
    "no_url": (2, ""),
    "no_caption": (1, "{file}"),
}
"""What is odd -> how many rows, and the path under the server (`{file}`: a sound picture of its own) or the URL."""

SOUND_ODDITIES = frozenset({"redirect_chain", "busy_once", "mislabelled", "odd_caption"})
"""The odd rows that nevertheless give a picture and its true caption."""


@dataclass(frozen=True, slots=True)
class Picture:
    """How a file of the site is made.

    Args:
        subject: what is drawn or shown.
        size_px, background, zoom, shift: as in `mmdata.demo.drawings.draw`.
        format: PNG, JPEG or WEBP.
        quality: of JPEG and WebP.
    """

    file: str
    subject: Emoji | Photo
    size_px: int
    background: str = "#ffffff"
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    format: str = "PNG"
    quality: int = 90


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the demo's metadata, and the truth about it.

    Args:
        planted: clean, rare, one of `SHARES` or one of `ODDITIES`.
        kind: of what the picture shows.
        place: path under the server, or a whole URL, or empty.
        picture: what is served there, where it is a picture.
        of: number of the row that this one copies.
    """

    planted: str
    kind: str
    place: str
    caption: str
    language: str
    picture: Picture | None = None
    of: int | None = None


def plan_rows(rows: int, emoji: Sequence[Emoji], photos: Sequence[Photo]) -> list[Row]:
    """The demo's rows, in file order.

    Args:
        rows: how many; the planted shares are of this number.

    Raises:
        UserError: fewer rows than the planted oddities need.
    """
    if rows < LEAST_ROWS:
        raise UserError(f"a demo needs at least {LEAST_ROWS} rows, not {rows}: what is planted would fill it")
    random = Random(0)
    counts = {name: max(2, round(share * rows)) for name, share in SHARES.items()}
    copies = sum(counts[name] for name in ("near_duplicate", "exact_duplicate", "repeated_row", "repeated_url"))
    odd_rows = sum(count for count, _ in ODDITIES.values())
    pictures = _subjects(rows - copies - odd_rows, emoji, photos, random)
    planned = [_clean(number, subject, random) for number, subject in enumerate(pictures)]
    plain = [n for n, row in enumerate(planned) if row.planted == "clean"]
    random.shuffle(plain)
    mismatched, plain = plain[: counts["mismatch"]], plain[counts["mismatch"] :]
    wrong = {number: _wrong_caption(number, planned, random) for number in mismatched}
    for number, donor in wrong.items():
        planned[number] = replace(planned[number], planted="mismatch", caption=donor)
    foreign, plain = plain[: counts["other_language"]], plain[counts["other_language"] :]
    for number in foreign:
        planned[number] = _in_another_language(planned[number], random)
    marked, plain = plain[: counts["watermark"]], plain[counts["watermark"] :]
    for number in marked:
        planned[number] = replace(planned[number], planted="watermark")
    near, plain = plain[: counts["near_duplicate"]], plain[counts["near_duplicate"] :]
    planned += [_near_copy(number, planned[number], random) for number in near]
    exact, plain = plain[: counts["exact_duplicate"]], plain[counts["exact_duplicate"] :]
    planned += [_mirror(number, planned[number], random) for number in exact]
    again, plain = plain[: counts["repeated_row"]], plain[counts["repeated_row"] :]
    planned += [replace(planned[number], planted="repeated_row", of=number) for number in again]
    retold = plain[: counts["repeated_url"]]
    planned += [_retold(number, planned[number], random) for number in retold]
    planned += _odd_rows(emoji, random)
    return _shuffled(planned, random)


def _subjects(count: int, emoji: Sequence[Emoji], photos: Sequence[Photo], random: Random) -> list[Emoji | Photo]:
    """What is shown, kinds by Zipf's law; one drawing of each base before any is drawn again."""
    shown: list[Emoji | Photo] = list(photos[: max(3, count // 150)])
    weights = [1 / rank**ZIPF_EXPONENT for rank in range(1, len(KINDS) + 1)]
    drawn = count - len(shown)
    quotas = [int(drawn * weight / sum(weights)) for weight in weights]
    quotas[0] += drawn - sum(quotas)
    for kind, quota in zip(KINDS, quotas, strict=True):
        bases = list({one.base: one for one in emoji if one.kind == kind and not one.has_skin_tone}.values())
        random.shuffle(bases)
        shown += [bases[number % len(bases)] for number in range(quota)]
    return shown


def _clean(number: int, subject: Emoji | Photo, random: Random) -> Row:
    picture, colour = _picture(f"{number:05d}", subject, random)
    if isinstance(subject, Photo):
        return Row("rare", "photo", picture.file, f"photo of {subject.caption}", "en", picture)
    planted = "rare" if subject.kind in RARE_KINDS else "clean"
    caption = english_caption(subject.name, subject.kind, colour, random)
    return Row(planted, subject.kind, picture.file, caption, "en", picture)


def _picture(stem: str, subject: Emoji | Photo, random: Random) -> tuple[Picture, str]:
    colour = random.choice(sorted(COLOURS))
    size_px = random.choice((224, 256, 288, 320))
    zoom = random.uniform(0.6, 1.0)
    slack = (1 - zoom) / 2
    shift = (random.uniform(-slack, slack), random.uniform(-slack, slack))
    if isinstance(subject, Photo):
        return Picture(f"pictures/{stem}.jpg", subject, size_px, format="JPEG"), colour
    kind = random.choice(("PNG", "PNG", "PNG", "JPEG", "JPEG", "WEBP"))
    file = f"pictures/{stem}.{'jpg' if kind == 'JPEG' else kind.lower()}"
    return Picture(file, subject, size_px, COLOURS[colour], zoom, shift, kind), colour


def _wrong_caption(number: int, planned: Sequence[Row], random: Random) -> str:
    """The caption of a picture of another kind."""
    while True:
        donor = random.choice(planned)
        if donor.kind != planned[number].kind:
            return donor.caption


def _in_another_language(row: Row, random: Random) -> Row:
    subject = _drawn(row).subject
    if isinstance(subject, Photo):
        raise TypeError("photographs are captioned in English alone")
    language = random.choice(LANGUAGES)
    return replace(row, planted="other_language", caption=foreign_caption(subject.names, language), language=language)


def _near_copy(number: int, row: Row, random: Random) -> Row:
    """The same picture resized, re-encoded, and cropped or moved by about a hundredth of its side."""
    original = _drawn(row)
    nudge = (random.uniform(-0.012, 0.012), random.uniform(-0.012, 0.012))
    picture = replace(
        original,
        file=f"pictures/{number:05d}-copy.jpg",
        size_px=round(original.size_px * random.uniform(0.75, 1.15)),
        zoom=original.zoom * random.uniform(1.0, 1.025),
        shift=(original.shift[0] + nudge[0], original.shift[1] + nudge[1]),
        format="JPEG",
        quality=random.randint(60, 92),
    )
    copy = replace(row, planted="near_duplicate", place=picture.file, picture=picture, of=number)
    return replace(copy, caption=_other_words(row, random))


def _mirror(number: int, row: Row, random: Random) -> Row:
    """The same bytes under another URL."""
    picture = replace(_drawn(row), file=f"mirror/{_drawn(row).file.rpartition('/')[2]}")
    copy = replace(row, planted="exact_duplicate", place=picture.file, picture=picture, of=number)
    return replace(copy, caption=_other_words(row, random))


def _retold(number: int, row: Row, random: Random) -> Row:
    caption = row.caption
    while caption == row.caption:
        caption = _other_words(row, random)
    return replace(row, planted="repeated_url", caption=caption, of=number)


def _other_words(row: Row, random: Random) -> str:
    subject = _drawn(row).subject
    if isinstance(subject, Photo):
        return row.caption
    colour = next(name for name, value in COLOURS.items() if value == _drawn(row).background)
    return english_caption(subject.name, subject.kind, colour, random)


def _odd_rows(emoji: Sequence[Emoji], random: Random) -> list[Row]:
    objects = [one for one in emoji if one.kind == "object"]
    rows: list[Row] = []
    for planted, (count, place) in ODDITIES.items():
        for _ in range(count):
            subject = random.choice(objects)
            picture, colour = _picture(f"odd-{len(rows):03d}", subject, random)
            caption = english_caption(subject.name, subject.kind, colour, random)
            if planted == "odd_caption":
                caption = f"  {caption[:4]}\0{caption[4:]}\n\tsecond line\r\n "
            elif planted == "no_caption":
                caption = " \n"
            where = place.format(file=picture.file, number=f"{len(rows):03d}")
            own = picture if "{file}" in place else None
            rows.append(Row(planted, "object", where, caption, "en", own))
    return rows


def _shuffled(planned: list[Row], random: Random) -> list[Row]:
    order = list(range(len(planned)))
    random.shuffle(order)
    place = {number: at for at, number in enumerate(order)}
    shuffled = [planned[number] for number in order]
    return [row if row.of is None else replace(row, of=place[row.of]) for row in shuffled]


def _drawn(row: Row) -> Picture:
    if row.picture is None:
        raise ValueError(f"row {row.place!r} has no picture")
    return row.picture
