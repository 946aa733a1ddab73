"""Pictures that samples are compared with are read as the download stores them."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from upath import UPath

from mmdata.config import Score
from mmdata.config.select_scores import Target
from mmdata.score.scorer import load_scorer
from mmdata.select import reference_pictures
from mmdata.select.reference_pictures import ReferencePictures, read_pictures
from mmdata.select.scores.targets import load_target
from mmdata.workspace.layout import Workspace

DEMO = Score(model="demo")
TURN_RIGHT = 6  # EXIF


def drawing() -> Image.Image:
    """Two halves, so that a turned picture differs, with a hole that hides black."""
    image = Image.new("RGBA", (240, 200), (200, 30, 30, 255))
    image.paste((20, 20, 200, 255), (0, 0, 120, 200))
    image.paste((0, 0, 0, 0), (40, 40, 200, 160))
    return image


def on_white() -> Image.Image:
    canvas = Image.new("RGBA", (240, 200), "white")
    canvas.alpha_composite(drawing())
    return canvas.convert("RGB")


def read(folder: Path, **pictures: tuple[Image.Image, str, dict[str, object]]) -> ReferencePictures:
    paths = []
    for name, (image, kind, options) in pictures.items():
        out = io.BytesIO()
        image.save(out, kind, **options)
        paths.append(UPath(folder / name))
        paths[-1].write_bytes(out.getvalue())
    return read_pictures(paths, load_scorer(DEMO), "target set")


def test_transparency_is_white_in_every_form(tmp_path: Path) -> None:
    palette = drawing().convert("RGB").quantize(4)
    palette.info["transparency"] = palette.getpixel((100, 100))
    found = read(
        tmp_path,
        white=(on_white(), "PNG", {}),
        rgba=(drawing(), "PNG", {}),
        webp=(drawing(), "WEBP", {"lossless": True}),
        palette=(palette, "PNG", {"transparency": palette.getpixel((100, 100))}),
    )
    assert (found.phash == found.phash[0]).all()
    assert np.abs(found.vectors.astype(np.float32) - found.vectors[0]).max() < 0.01


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = TURN_RIGHT
    lying = on_white().transpose(Image.Transpose.ROTATE_90)
    found = read(tmp_path, upright=(on_white(), "PNG", {}), lying=(lying, "PNG", {"exif": exif}))
    assert found.phash[0] == found.phash[1]


def test_what_cannot_be_read_counts_by_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").write_bytes(b"\xff\xd8 broken")
    on_white().save(tmp_path / "whole", "PNG")
    files = [UPath(tmp_path / name) for name in ("broken", "whole")]
    found = read_pictures(files, load_scorer(DEMO), "target set")
    assert (len(found.sha256), len(found.phash), len(found.vectors)) == (2, 1, 1)
    assert found.sha256[0] == int(hashlib.sha256(b"\xff\xd8 broken").hexdigest()[:16], 16)
    monkeypatch.setattr(reference_pictures, "MAX_PIXELS", 100)
    assert len(read_pictures(files, load_scorer(DEMO), "target set").vectors) == 0


def test_a_plain_picture_is_embedded_as_before(tmp_path: Path) -> None:
    from mmdata.score.decode import decode_pixels

    found = read(
        tmp_path, png=(on_white(), "PNG", {}), jpeg=(on_white(), "JPEG", {}), grey=(on_white().convert("L"), "PNG", {})
    )
    model = load_scorer(DEMO)
    pixels = [decode_pixels((tmp_path / name).read_bytes(), model.preprocess) for name in ("png", "jpeg", "grey")]
    np.testing.assert_allclose(found.vectors, model.embed_images(np.stack(pixels)), atol=1e-3)  # of float16


def test_a_target_set_reads_its_pictures_so(tmp_path: Path) -> None:
    for name, image in (("alpha", drawing()), ("white", on_white())):
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "1.png")
    model = load_scorer(DEMO)
    targets = [Target(pictures=str(tmp_path / name)) for name in ("alpha", "white")]
    workspace = Workspace(str(tmp_path / "w"))
    alpha, white = (load_target(workspace, target, DEMO, model.fingerprint, model.dim) for target in targets)
    assert alpha.digest == white.digest
