"""Evaluation sets: what is read of pictures and tables, and what is refused."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmdata.config import Score
from mmdata.config.evaluation_set import EvaluationSet
from mmdata.errors import UserError
from mmdata.score.scorer import load_scorer
from mmdata.select.evaluation_sets import Prints, load_prints
from mmdata.workspace.layout import Workspace

DEMO = Score(model="demo")


def load(root: Path, scorer: str = "", **given: Any) -> Prints:
    return load_prints(Workspace(str(root / "w")), EvaluationSet(name="test", **given), DEMO, scorer)


def picture(path: Path, seed: int, transparent: bool = False) -> bytes:
    levels = np.random.default_rng(seed).integers(0, 256, (12, 12, 4), np.uint8)
    levels[..., 3] = 255
    if transparent:
        levels[:6, :6, 3] = 0
    out = io.BytesIO()
    Image.fromarray(levels).resize((240, 240)).save(out, "PNG")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(out.getvalue())
    return out.getvalue()


def test_pictures_are_read_once_and_again_when_one_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pictures"
    data = [picture(folder / f"{n}.png", n) for n in range(3)]
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 broken")
    prints = load(tmp_path, pictures=str(folder))
    assert len(prints.sha256) == 4, "a picture that cannot be read still counts by its bytes"
    assert int(hashlib.sha256(data[0]).hexdigest()[:16], 16) in prints.sha256
    assert (len(prints.phash), prints.vectors.shape) == (3, (3, load_scorer(DEMO).dim))
    assert np.allclose(np.linalg.norm(prints.vectors.astype(np.float32), axis=1), 1, atol=1e-3)
    kept = tmp_path / "w" / "scores" / "evaluation-test.npz"
    modified = kept.stat().st_mtime_ns
    again = load(tmp_path, pictures=str(folder))
    assert (again.vectors == prints.vectors).all() and kept.stat().st_mtime_ns == modified
    kept.write_bytes(kept.read_bytes()[:100])
    assert (load(tmp_path, pictures=str(folder)).vectors == prints.vectors).all()
    picture(folder / "3.png", 3)
    assert len(load(tmp_path, pictures=str(folder)).phash) == 4


def test_transparency_is_white_as_in_the_download(tmp_path: Path) -> None:
    data = picture(tmp_path / "a" / "1.png", 1, transparent=True)
    with Image.open(io.BytesIO(data)) as image:
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image)
    (tmp_path / "b").mkdir()
    canvas.convert("RGB").save(tmp_path / "b" / "1.png")
    with_alpha, white = (load(tmp_path, pictures=str(tmp_path / name)) for name in "ab")
    assert (with_alpha.phash == white.phash).all() and (with_alpha.vectors == white.vectors).all()


def test_a_table_is_read_by_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    digest = hashlib.sha256(b"x").hexdigest()
    table = {
        "link": ["HTTP://Example.org:80/a.jpg", None],
        "sha256": [digest, None],
        "phash": pa.array([-1, 0], pa.int64()),
        "embedding": [[3.0, 4.0], [0.0, 0.0]],
        "text": [" A Question?", None],
    }
    pq.write_table(pa.table(table), path)
    prints = load(tmp_path, table=str(path), columns={"url": "link"})
    assert prints.urls == ["http://example.org/a.jpg"]
    assert prints.sha256.tolist() == [int(digest[:16], 16)]
    assert prints.phash.tolist() == [2**64 - 1], "0 is the hash of every flat picture"
    assert prints.vectors.tolist() == [pytest.approx([0.6, 0.8], abs=1e-3)]
    assert prints.texts == ["a question?"]
    pq.write_table(pa.table({"phash": ["00000000000000ff"]}), path)
    assert load(tmp_path, table=str(path)).phash.tolist() == [255]


@pytest.mark.parametrize(
    ("table", "columns", "problem"),
    [
        ({"id": [1]}, {}, "none of the columns url, sha256"),
        ({"url": pa.array([None], pa.string())}, {}, "no rows with a value"),
        ({"url": ["u"]}, {"text": "question"}, "no column 'question' in t.parquet; it has url"),
        ({"phash": ["xyz"]}, {}, "phash that is not 64 bits"),
        ({"embedding": [[1.0], [1.0, 2.0]]}, {}, "embeddings of different lengths"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(
    tmp_path: Path, table: dict[str, Any], columns: dict[str, str], problem: str
) -> None:
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=f"set test .*{problem}.*Remedy: correct the set"):
        load(tmp_path, table=str(tmp_path / "t.parquet"), columns=columns)


def test_what_is_missing_empty_or_of_another_scorer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder, but section select reads it"):
        load(tmp_path, pictures=str(tmp_path / "nowhere"))
    (tmp_path / "pictures").mkdir()
    with pytest.raises(UserError, match="a set of pictures, but there are none in it"):
        load(tmp_path, pictures=str(tmp_path / "pictures"))
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"broken")
    with pytest.raises(UserError, match="none of them can be read"):
        load(tmp_path, pictures=str(tmp_path / "pictures"))
    picture(tmp_path / "pictures" / "b.png", 1)
    with pytest.raises(UserError, match=r"would be embedded by demo.*and the parts were by another"):
        load(tmp_path, scorer="another", pictures=str(tmp_path / "pictures"))
