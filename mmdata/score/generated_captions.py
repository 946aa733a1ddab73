"""Captions that a vision-language model makes: which samples get one, and the columns that the features gain by them.

Captions are kept while picture, caption, model and prompt stay the same; their scores, while the scorer does too. So
switching them on scores nothing again, and another scorer makes no caption again. The source's caption is never
touched. The idea of mixing both kinds of captions, and of judging each by its CLIP score, is that of Nguyen et al.
2023 ("Improving Multimodal Datasets with Image Captioning"); that of rewriting, of Li et al. 2024 (Recap-DataComp-1B).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from upath import UPath

from mmdata.config import Recaption
from mmdata.config.recaption import CAPTION_PLACEHOLDER
from mmdata.engine.stage_fingerprints import CAPTION_VERSION
from mmdata.fingerprint import fingerprint
from mmdata.observe import logs
from mmdata.samples import Column, draws
from mmdata.score.captioner import EMPTY, Answer, Captioner, load_captioner
from mmdata.score.features_reader import scorer_mark
from mmdata.score.picture_scoring import picture_members
from mmdata.score.scorer import ClipScorer, pair_scores
from mmdata.score.text_measures import text_features
from mmdata.score.text_refill import TEXT_KEY

COLUMNS = (
    Column("generated_caption", pa.string(), "Caption made by the model in `recaption.model`, in one line."),
    Column("generated_problem", pa.string(), "Why the model gave no caption: `too_long`, `empty` or `undecodable`."),
    Column("generated_score", pa.float32(), "Cosine of `embedding` and the generated caption."),
    Column("caption_agreement", pa.float32(), "Cosine of the generated caption and the sample's own, as texts."),
    Column("generated_lang", pa.string(), "Language detected in the generated caption."),
    Column("generated_lang_prob", pa.float32(), "Probability of that language, in [0, 1]."),
    Column("generated_n_words", pa.int32(), "Number of words in the generated caption."),
    Column("generated_n_chars", pa.int32(), "Number of characters in the generated caption."),
)
"""Columns of the features table that follow the others where `recaption.model` is set."""

NAMES = tuple(column.name for column in COLUMNS)
STAGE = "recaption"  # of the draws
METADATA_KEY = "captioner"
MAX_PROMPT_CAPTION_CHARS = 1_000  # of the source's caption that the model is shown
_ANSWER = ("generated_caption", "generated_problem")
_TEXT_MEASURES = {"generated_lang": "lang", "generated_lang_prob": "lang_prob"} | {
    "generated_n_words": "n_words",
    "generated_n_chars": "n_chars",
}
_TEXT_KEY = TEXT_KEY.encode()
_PICTURES_AT_ONCE = 256  # encoded pictures in memory

_log = logs.logger(__name__)


class CaptionerMark(NamedTuple):
    """What made the captions of a features table."""

    name: str
    fingerprint: str
    prompt: str | None
    max_tokens: int


def captioner_mark(metadata: Mapping[bytes, bytes] | None) -> CaptionerMark | None:
    """The captioner that a features table's schema metadata names; None where it has no generated captions."""
    mark = (metadata or {}).get(METADATA_KEY.encode())
    return None if mark is None else CaptionerMark(**json.loads(mark))


def mark_of(captioner: Captioner, settings: Recaption) -> CaptionerMark:
    """What tables say of a captioner; its fingerprint also covers the prompt and the length."""
    model = (captioner.name, captioner.fingerprint)
    decides = fingerprint(CAPTION_VERSION, *model, settings.prompt or "", settings.max_tokens)
    return CaptionerMark(captioner.name, decides, settings.prompt, settings.max_tokens)


def with_generated_captions(
    table: pa.Table,
    samples: pl.DataFrame,
    tar: UPath,
    earlier: pa.Table | None,
    settings: Recaption,
    seed: int,
    scorer: ClipScorer,
) -> tuple[pa.Table, dict[str, int]]:
    """The features table of a slice with `COLUMNS`, and the number of captions that were made for it now.

    Args:
        table: features, with metadata, sorted by uid.
        samples: rows joined with media, sorted by uid: as for `score_pictures`.
        tar: holds the stored media.
        earlier: the slice's features table of an earlier run, with or without such columns.
    """
    frame = pl.DataFrame(table.select(["uid", "clip_score", "transcript", "problem", "media_sha256"]))
    frame = frame.with_columns(own=_own_text(samples["caption"], frame["transcript"]))
    places = _middle_pictures(samples)
    chosen = chosen_rows(samples, frame, settings, seed) & places["offset"].is_not_null()
    columns = pl.DataFrame({c.name: pa.nulls(len(frame), c.type) for c in COLUMNS}).with_columns(frame["uid"])
    mark, made = None, 0
    if chosen.any():
        captioner = load_captioner(settings)
        mark = mark_of(captioner, settings)
        columns = _kept(columns, frame.filter(chosen), earlier, mark, table.schema.metadata, settings)
        missing = chosen & columns.select(pl.all_horizontal(pl.col(_ANSWER).is_null())).to_series()
        numbers = np.flatnonzero(missing.to_numpy())
        answers = _ask(captioner, tar, places[numbers], frame["own"].gather(numbers), settings)
        columns, made = _with_answers(columns, numbers, answers), len(numbers)
        columns = _measured(columns, frame["own"], table["embedding"], scorer)
    arrays = columns.select(NAMES).to_arrow(compat_level=pl.CompatLevel.oldest())
    for column in COLUMNS:
        table = table.append_column(pa.field(column.name, column.type), arrays[column.name].cast(column.type))
    metadata = {} if mark is None else {METADATA_KEY: json.dumps(mark._asdict(), sort_keys=True)}
    return table.replace_schema_metadata({**table.schema.metadata, **metadata}), {"captions_made": made}


def chosen_rows(samples: pl.DataFrame, features: pl.DataFrame, settings: Recaption, seed: int) -> pl.Series:
    """Which samples get a caption, bool: those that have a picture and that the settings choose.

    Args:
        samples: uid, kind, status, problem.
        features: of the same samples: problem, clip_score, and `own`, the text of the source or the transcript.
    """
    has_text = pl.col("own").is_not_null()
    chosen = pl.col("kind").is_in(settings.kinds) & (pl.col("status") == "success")
    chosen &= pl.col("problem").is_null() & pl.col("features_problem").is_null()
    if settings.rewrites:
        chosen &= has_text
    if settings.max_clip_score is not None:
        is_weak = pl.col("clip_score") <= pl.lit(settings.max_clip_score, pl.Float32)
        chosen &= ~has_text | is_weak.fill_null(value=False)
    if settings.share < 1:
        chosen &= pl.lit(draws(samples["uid"], seed, STAGE)) < settings.share
    joined = samples.select("kind", "status", "problem").hstack(
        features.select("own", "clip_score", features_problem="problem")
    )
    return joined.select(chosen.fill_null(value=False).alias("chosen"))["chosen"]


def _own_text(captions: pl.Series, transcripts: pl.Series) -> pl.Series:
    """The text of each sample that is not generated: its caption, else its transcript; null where it has neither."""
    texts = captions.str.strip_chars()
    return pl.select(pl.coalesce(pl.when(texts.str.len_bytes() > 0).then(texts), transcripts)).to_series()


def _middle_pictures(samples: pl.DataFrame) -> pl.DataFrame:
    """Where the picture (or middle frame) of each sample lies in the tar: offset, length; null where it has none."""
    pictures = picture_members(samples).group_by("row", maintain_order=True).agg(pl.all().get(pl.len() // 2))
    rows = pl.DataFrame({"row": np.arange(len(samples), dtype=np.uint32)})
    return rows.join(pictures, on="row", how="left", maintain_order="left").select("offset", "length")


def _kept(
    columns: pl.DataFrame,
    chosen: pl.DataFrame,
    earlier: pa.Table | None,
    mark: CaptionerMark,
    metadata: Mapping[bytes, bytes],
    settings: Recaption,
) -> pl.DataFrame:
    """The columns, filled with what an earlier run made of the same pictures in the same way.

    The uid depends on the caption, so a row of the same uid has the same one. Its measures are taken over if they come
    from the same scorer and detector of languages, and are about the same texts.
    """
    if (
        earlier is None
        or captioner_mark(earlier.schema.metadata) != mark
        or not set(NAMES) <= set(earlier.column_names)
    ):
        return columns
    before = pl.DataFrame(earlier.select(["uid", "media_sha256", "transcript", *NAMES]))
    joined = chosen.join(before, on="uid", suffix="_before")
    same_transcript = pl.col("transcript").eq_missing(pl.col("transcript_before"))
    holds = pl.col("media_sha256") == pl.col("media_sha256_before")
    if settings.rewrites:
        holds &= same_transcript
    then, now = ((scorer_mark(m), m.get(_TEXT_KEY)) for m in (earlier.schema.metadata, metadata))
    is_measured = same_transcript & (then == now)
    measures = [name for name in NAMES if name not in _ANSWER]
    kept = joined.filter(holds).select(
        "uid", *_ANSWER, *(pl.when(is_measured).then(pl.col(name)).alias(name) for name in measures)
    )
    return columns.select("uid").join(kept, on="uid", how="left", maintain_order="left")


def _ask(captioner: Captioner, tar: UPath, places: pl.DataFrame, texts: pl.Series, settings: Recaption) -> list[Answer]:
    """An answer for each picture; pictures that are asked the same question twice are asked once."""
    questions = places.with_columns(prompt=pl.Series([_prompt(settings, text) for text in texts], dtype=pl.String))
    distinct = questions.unique(maintain_order=True).with_row_index("answer")
    answers: list[Answer] = []
    if len(distinct):
        with tar.open("rb") as file:
            for batch in distinct.iter_slices(_PICTURES_AT_ONCE):
                pictures = []
                for offset, length in batch.select("offset", "length").iter_rows():
                    file.seek(offset)
                    pictures.append(file.read(length))
                answers += captioner.answers(pictures, batch["prompt"].to_list())
                _log.debug("captions made", done=len(answers), of=len(distinct))
    keys = ["offset", "length", "prompt"]
    numbers = questions.join(distinct, on=keys, how="left", nulls_equal=True, maintain_order="left")["answer"]
    return [answers[number] for number in numbers]


def _prompt(settings: Recaption, text: str | None) -> str | None:
    if settings.prompt is None or text is None:
        return settings.prompt
    return settings.prompt.replace(CAPTION_PLACEHOLDER, text[:MAX_PROMPT_CAPTION_CHARS])


def _with_answers(columns: pl.DataFrame, numbers: np.ndarray, answers: Sequence[Answer]) -> pl.DataFrame:
    """The columns with new answers at these rows. A text with a problem is no caption, nor is one without a letter."""
    texts: list[str | None] = []
    problems: list[str | None] = []
    for answer in answers:
        text = " ".join("".join(c if c.isprintable() else " " for c in answer.text).split())
        problem = answer.problem or (None if any(c.isalnum() for c in text) else EMPTY)
        texts.append(text if problem is None else None)
        problems.append(problem)
    new = {"generated_caption": texts, "generated_problem": problems}
    rows = pl.Series(numbers, dtype=pl.UInt32)
    return columns.with_columns(
        columns[name].scatter(rows, pl.Series(values, dtype=pl.String)) for name, values in new.items()
    )


def _measured(columns: pl.DataFrame, own: pl.Series, embeddings: pa.ChunkedArray, scorer: ClipScorer) -> pl.DataFrame:
    """The columns with scores, languages and lengths of the captions that have none yet."""
    is_new = columns["generated_caption"].is_not_null() & columns["generated_n_chars"].is_null()
    rows = np.flatnonzero(is_new.to_numpy())
    if not len(rows):
        return columns
    captions, own_texts = columns["generated_caption"].gather(rows), own.gather(rows)
    vectors = _text_vectors(scorer, captions)
    scores = pair_scores(_unit_vectors(embeddings.take(pa.array(rows)), scorer.dim), vectors)
    agreement = pair_scores(vectors, _text_vectors(scorer, own_texts))
    measures = text_features(captions)
    new = {
        "generated_score": pl.Series(scores).fill_nan(None),
        "caption_agreement": pl.Series(agreement).fill_nan(None),
        **{name: measures[measure] for name, measure in _TEXT_MEASURES.items()},
    }
    at = pl.Series(rows, dtype=pl.UInt32)
    return columns.with_columns(columns[name].scatter(at, values) for name, values in new.items())


def _text_vectors(scorer: ClipScorer, texts: pl.Series) -> np.ndarray:
    """Unit vectors of texts, float32 N,D; NaN where there is no text. Each distinct text is embedded once."""
    distinct = texts.drop_nulls().unique(maintain_order=True)
    vectors = np.vstack([scorer.embed_texts(distinct.to_list()), np.full((1, scorer.dim), np.nan, np.float32)])
    numbers = dict(zip(distinct, range(len(distinct)), strict=True))
    return vectors[[numbers[text] if text is not None else -1 for text in texts]]


def _unit_vectors(embeddings: Iterable[pa.Scalar], dim: int) -> np.ndarray:
    """Embeddings of the features as float32 N,D of unit length; NaN where there is none.

    They are kept in 16 bits, which changes a cosine by some 1e-5.
    """
    missing = np.full(dim, np.nan, np.float32)
    vectors = [missing if e.as_py() is None else e.values.to_numpy(zero_copy_only=False) for e in embeddings]
    unit = np.stack(vectors).astype(np.float32)
    return unit / np.linalg.norm(unit, axis=1, keepdims=True)
