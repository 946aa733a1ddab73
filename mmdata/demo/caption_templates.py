"""Captions of the demo's pictures: short English phrases and, for some pictures, one in another language."""

from __future__ import annotations

from random import Random

COLOURS = {
    "white": "#ffffff",
    "cream": "#fdf3d7",
    "yellow": "#ffe680",
    "orange": "#ffc58a",
    "pink": "#ffd0dc",
    "lavender": "#dcd0ff",
    "light blue": "#c4e3ff",
    "turquoise": "#b0ece4",
    "light green": "#cdf0c0",
    "grey": "#d4d7db",
}
"""Backgrounds of pictures: English name -> CSS colour."""

_ENGLISH = (
    "the {kind} {name}",
    "{name}, {kind} clip art",
    "{name} in colour ({kind})",
    "{name}, drawing from the {kind} set",
    "a drawing of {name} ({kind})",
    "{name} ({kind}) on {colour}",
)
_ENGLISH_FLAGS = (
    "the flag of {name} on a {colour} background",
    "drawing of the national flag of {name}",
    "a small picture of the flag of {name}",
)
_OTHER_LANGUAGES = {
    "de": "Zeichnung: {name}, auf einem farbigen Hintergrund",
    "es": "dibujo de {name} sobre un fondo de color",
    "fr": "un dessin de {name} sur un fond de couleur",
    "it": "disegno di {name} su uno sfondo colorato",
    "pt": "desenho de {name} em um fundo colorido",
    "ru": "рисунок: {name} на цветном фоне",
    "zh": "{name}的彩色插图",
    "ja": "{name}のイラスト、色付きの背景",
    "ko": "색깔 배경에 그린 {name} 그림",
}
LANGUAGES = tuple(_OTHER_LANGUAGES)


def english_caption(name: str, kind: str, colour: str, random: Random) -> str:
    """A caption that names the subject, its kind, and sometimes the colour of the background."""
    if kind != "flag":
        return random.choice(_ENGLISH).format(name=name, kind=kind, colour=colour)
    if "flag" in name:
        return f"picture of a {name}"
    return random.choice(_ENGLISH_FLAGS).format(name=name, colour=colour)


def foreign_caption(names: dict[str, str], language: str) -> str:
    """A caption in one of `LANGUAGES`; `names` are those of the subject, by language."""
    return _OTHER_LANGUAGES[language].format(name=names[language])
