"""Captions lose their markup and nothing else."""

from __future__ import annotations

import time

import pytest

from mmdata.sources.markup import plain_text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ('<font color="#ffff00">cut</font> it', "cut it"),
        ("<FONT Color='yellow' size=12 face=Arial>cut</Font>", "cut"),
        ('<font color="#ffff00>cut</font>', "cut"),  # the quotation mark is open
        ('<font color="#ffff00" cut it', " cut it"),  # the tag is open
        ('cut <font color="#ff', "cut "),
        ("<v.loud Mary O'Neil>stir", " stir"),
        ("<v Renée>stir</v><v Bob>now</v>", " stir  now "),
        ("<v.first.loud Esme & co.>stir", " stir"),
        ("<c.yellow.bg_blue>salt</c> <c>or</c.yellow> sugar", "salt or sugar"),
        ("<lang en-GB>colour</lang>", " colour "),
        ("so<00:00:00.400><c> today</c><00:00:01.000> we<00:01.5> bake", "so today we bake"),
        ("<i>un<b>believ</b>able</i>, he said", "unbelievable, he said"),
        ("<I><U>loud</u ></i>", "loud"),
        ("<b>never closed", "never closed"),
        ("one<br>two<BR/>three<br />four", "one two three four"),
        ("<ruby>漢<rt>kan</rt>字</ruby>", "漢 kan 字"),
        (r"{\an8}{\pos(192,210)}up\Nhere {i}slanted{/i} {y:i}too", "up here slanted too"),
        ("bread &amp; butter &#39;n&#x27; jam&nbsp;!", "bread & butter 'n' jam\xa0!"),
        ("&lt;i&gt; makes text slanted, 3 &lt; 4", "<i> makes text slanted, 3 < 4"),
    ],
)
def test_known_tags_and_entities_go(text: str, plain: str) -> None:
    assert plain_text(text) == plain


@pytest.mark.parametrize(
    "text",
    [
        "if a < b and c > d then",
        "if a <b and c> d then",
        "a<b, b>c",
        "i <3 you >> me",
        "<<turn left>>",
        "the List<String> of <div-by-zero> and #include <stdio.h>",
        "say {now} {x: 1}",
        "<velocity> and <color>",
        "press <enter>",
        "at 10:30 <today 10:30>",
        "-> here <-",
    ],
)
def test_what_is_no_tag_stays(text: str) -> None:
    assert plain_text(text) == text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("&#" + "9" * 5_000 + ";", "\ufffd"),
        ("&#" + "0" * 5_000 + "65;", "A"),
        ("&#" + "0" * 5_000 + ";", "\ufffd"),
        ("&#x" + "F" * 5_000 + ";", "\ufffd"),
        ("&#xD800;&#55296;", "\ufffd\ufffd"),
        ("&#;&#x;&;&" + "a" * 50, "&#;&#x;&;&" + "a" * 50),
    ],
    ids=range(6),
)
def test_no_entity_is_too_long(text: str, plain: str) -> None:
    assert plain_text(text) == plain


@pytest.mark.parametrize(
    "piece",
    ["<", "<font ", "<font a=b ", "<font a='", "<c.", "<v ", "{", "{\\", "&#", "&#0", "&", "<00:", "< ", "<b ", "{y:"],
)
def test_no_text_takes_long(piece: str) -> None:
    text = piece * (400_000 // len(piece))
    started = time.perf_counter()
    plain_text(text)
    assert time.perf_counter() - started < 2
