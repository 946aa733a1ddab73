"""A file of the Open Clip Art Library, as Debian's package unpacks it."""

from __future__ import annotations

from pathlib import Path

CLIP_ART = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:dc="d" xmlns:rdf="r" width="20" height="20"><metadata>
<dc:title>{title}</dc:title><rdf:li>{keyword}</rdf:li><rdf:li>Ann Artist</rdf:li>
<dc:title>Ann Artist</dc:title></metadata><rect width="20" height="9" fill="{colour}"/></svg>"""


def write_clip_art(folder: Path, name: str, title: str, keyword: str, colour: str = "blue") -> None:
    path = folder / "usr/share/openclipart/svg" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CLIP_ART.format(title=title, keyword=keyword, colour=colour))
