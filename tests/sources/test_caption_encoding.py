"""Files of captions are decoded rightly, or not at all."""

from __future__ import annotations

import pytest

from mmdata.sources.caption_encoding import decoded

HEAD = "1\n00:00:00,000 --> 00:00:06,000\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_is_known_with_and_without_a_mark(encoding: str) -> None:
    text = f"{HEAD}café 猫 Привет\n"
    assert decoded(text.encode(encoding)) == text
    assert decoded(b"") == ""


@pytest.mark.parametrize(
    "text",
    [
        "café déjà vu",
        "Où es-tu\xa0? “Été” … l’œuvre – créée «ici»",  # noqa: RUF001
        "Größe 5° C, ½ Tasse, 20 £",
        "Señor, ¿dónde está? ¡Aquí!",
        "São Paulo: não, informação",
        "på Åland får vi smörgåsbord",
        "100 €",
    ],
)
def test_western_text_is_windows_1252(text: str) -> None:
    assert decoded((HEAD + text).encode("cp1252")) == HEAD + text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "мы режем хлеб и масло"),
        ("koi8-r", "мы режем хлеб и масло"),
        ("cp1253", "κόβουμε το ψωμί"),
        ("cp1255", "אנחנו חותכים לחם"),
        ("cp1256", "نحن نقطع الخبز"),
        ("cp1250", "přidáme máslo, děkuji"),
        ("cp1250", "najpierw weź mąkę i wodę, później zamieszaj"),
        ("cp1254", "ekmeği kesiyoruz, şimdi çok güzel"),
        ("cp874", "วันนี้เราจะทำขนมปัง"),
        ("shift_jis", "パンを切ります"),
        ("euc_kr", "빵을 자르고 버터를 넣으세요"),
        ("gb18030", "我们切面包,然后加黄油"),
        ("big5", "我們切麵包,然後加奶油"),
    ],
)
def test_another_encoding_is_not_guessed_but_can_be_named(encoding: str, text: str) -> None:
    data = (HEAD + text).encode(encoding)
    assert decoded(data) is None
    assert decoded(data, encoding) == HEAD + text
    assert decoded((HEAD + text).encode(), encoding) == HEAD + text, "UTF-8 comes first"


def test_damaged_utf8_stays_utf8() -> None:
    assert decoded("déjà vu, c\ufffdest ça".encode().replace("\ufffd".encode(), b"\xff")) == "déjà vu, c\ufffdest ça"
    assert decoded("déjà".encode()[:-1]) == "déj\ufffd", "a file that is cut off within a letter"
