"""Audio models of random weights: scores and transcripts come from the folder that corpus.yaml names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmdata.config import Score
from mmdata.engine import stage_fingerprints
from mmdata.errors import UserError
from mmdata.media.flac import SAMPLE_RATE, flac
from mmdata.score import audio_models
from mmdata.score.audio_models import ClapScorer, Transcriber
from mmdata.score.stage import score_part
from tests.support.hostile_tars import Touch
from tests.support.scoring import PartMaker, Sample, save_model

pytest.importorskip("av", reason="mmdata[video] is not installed")
pytest.importorskip("onnxruntime", reason="mmdata[video] is not installed")

PART = "web-000000"
SMALL = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 32}


def vocabulary(folder: Path, *special: str) -> tuple[str, str]:
    from tokenizers import ByteLevelBPETokenizer

    tokens = ByteLevelBPETokenizer()
    tokens.train_from_iterator(
        ["wash the green apple", "a dog barks"] * 5, vocab_size=300, special_tokens=list(special)
    )
    tokens.save_model(str(folder))
    return str(folder / "vocab.json"), str(folder / "merges.txt")


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor, RobertaTokenizerFast

    folder = tmp_path_factory.mktemp("clap")
    vocab, merges = vocabulary(folder, "<s>", "<pad>", "</s>", "<unk>", "<mask>")
    tokenizer = RobertaTokenizerFast(vocab=vocab, merges=merges)
    cut = {"padding": "repeatpad", "truncation": "rand_trunc"}
    ears = ClapFeatureExtractor(feature_size=64, max_length_s=4, nb_max_samples=192_000, **cut)
    ClapProcessor(feature_extractor=ears, tokenizer=tokenizer).save_pretrained(folder)
    text = {**SMALL, "vocab_size": 300, "max_position_embeddings": 80, "projection_dim": 8}
    audio = {"patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [1, 2], "num_hidden_layers": 2}
    audio |= {"hidden_size": 16, "spec_size": 256, "num_mel_bins": 64, "window_size": 8, "projection_dim": 8}
    torch.manual_seed(1)
    ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=8)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizerFast,
    )

    folder = tmp_path_factory.mktemp("whisper")
    vocab, merges = vocabulary(folder, "<|endoftext|>", "<|startoftranscript|>")
    tokenizer = WhisperTokenizerFast(vocab=vocab, merges=merges)
    ears = WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    WhisperProcessor(feature_extractor=ears, tokenizer=tokenizer).save_pretrained(folder)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 1}
    places = {"num_mel_bins": 16, "max_source_positions": 100, "max_target_positions": 64}
    torch.manual_seed(0)
    config = WhisperConfig(vocab_size=len(tokenizer) + 20, **sizes, **heads, **ids, **places)
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_models, "MAX_NEW_TOKENS", 8)


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return (np.sin(np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE * 2 * np.pi * hertz) * 0.4).astype(np.float32)


def test_a_score_is_the_models_own_cosine_whatever_stands_beside_it(clap: str) -> None:
    from transformers import ClapModel, ClapProcessor

    scorer = ClapScorer(clap)
    waves = [tone(200 + 100 * n, 1 + n / 4) for n in range(3)]
    captions = ["a dog barks", "wash the green apple", "a dog"]
    scores = scorer.scores(waves, captions)
    alone = [float(scorer.scores([wave], [text])[0]) for wave, text in zip(waves, captions, strict=True)]
    assert scores == pytest.approx(alone, abs=1e-4)
    assert len({round(float(score), 5) for score in scores}) > 1
    processor, model = ClapProcessor.from_pretrained(clap), ClapModel.from_pretrained(clap).eval()
    words = processor.tokenizer(captions[:1], return_tensors="pt")
    wave = audio_models._resample(waves[0], 48_000)
    assert len(wave) == pytest.approx(48_000, abs=64)
    heard = processor.feature_extractor([wave], sampling_rate=48_000, return_tensors="pt")
    with torch.no_grad():
        text, sound = model.get_text_features(**words), model.get_audio_features(**heard)
    text, sound = (output if torch.is_tensor(output) else output.pooler_output for output in (text, sound))
    assert scores[0] == pytest.approx(float(torch.nn.functional.cosine_similarity(text, sound)), abs=1e-4)


def test_a_long_sound_has_the_same_score_again(clap: str) -> None:
    """transformers cuts a long sound at random; we take its middle."""
    scorer, long = ClapScorer(clap), np.concatenate([tone(200 + 50 * n) for n in range(9)])
    first = scorer.scores([long], ["a dog barks"])[0]
    assert all(scorer.scores([long], ["a dog barks"])[0] == first for _ in range(4))
    begin = round(2.5 * SAMPLE_RATE)
    middle = scorer.scores([long[begin : begin + 4 * SAMPLE_RATE]], ["a dog barks"])[0]
    assert first == pytest.approx(middle, abs=1e-3)


def test_a_transcript_for_each_sound(whisper: str) -> None:
    texts = Transcriber(whisper).transcripts([tone(300), tone(500)])
    assert len(texts) == 2
    assert all(isinstance(text, str) for text in texts)


@pytest.mark.parametrize("kind", [ClapScorer, Transcriber])
def test_a_model_that_is_not_there_is_named(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"score\.(audio_model|transcriber): .* cannot be loaded"):
        kind(str(tmp_path / "nowhere"))


def test_the_stage_scores_what_has_words_and_writes_down_what_has_none(clap: str, whisper: str, tmp_path: Path) -> None:
    model = f"local-dir:{save_model(tmp_path / 'model', 0)}"
    media = {"audio_s": 1.0}
    samples = [
        Sample("a dog barks", kind="audio", members={"flac": flac(tone(300))}, media=media),
        Sample(None, kind="audio", members={"flac": flac(tone(500))}, media=media),
        Sample("words alone", kind="text", media={"status": "success"}),
    ]
    score = Score(model=model, pretrained=None, device="cpu", audio_model=clap, transcriber=whisper)
    maker = PartMaker(tmp_path, score)
    maker.write([samples])
    score_part(maker.corpus, maker.workspace, PART)
    features = maker.features()
    worded, wordless, text = (features[sample.uid(number)] for number, sample in enumerate(samples))
    assert -1 <= worded["audio_score"] <= 1
    assert worded["transcript"] is None
    assert wordless["audio_score"] is None
    assert wordless["transcript"] == Transcriber(whisper).transcripts([tone(500)])[0]
    assert wordless["n_chars"] == len(wordless["transcript"])
    assert text["audio_score"] is text["transcript"] is None


def test_another_model_makes_the_features_stale_and_nothing_else(clap: str) -> None:
    base = {"workspace": "w", "sources": [{"name": "a", "kind": "laion", "files": "x"}]}
    from mmdata.config.load import parse_corpus
    from mmdata.workspace.layout import Part

    part = Part("a-000000", "a", "x", 0, 1, "d")
    plain, with_audio = parse_corpus(base), parse_corpus({**base, "score": {"audio_model": clap}})
    faces = parse_corpus({**base, "privacy": {"count_faces": True}})
    blurred = parse_corpus({**base, "privacy": {"blur_faces": True}})
    corpora = (plain, with_audio, faces, blurred)
    stages = {
        stage: [stage_fingerprints.stage_settings(corpus, part, stage) for corpus in corpora]
        for stage in ("rows", "media", "features")
    }
    assert len(set(stages["rows"])) == 1
    assert len(set(stages["media"][:3])) == 1
    assert stages["media"][3] != stages["media"][0]
    assert len(set(stages["features"][:3])) == 3
    assert stages["features"][3] == stages["features"][0], "blurred faces were counted before"


@pytest.mark.parametrize("which", ["clap", "whisper"])
def test_weights_that_are_a_pickle_are_refused_and_not_run(which: str, request, tmp_path: Path) -> None:
    shutil.copytree(request.getfixturevalue(which), tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save({"weight": Touch(tmp_path / "mark")}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        (ClapScorer if which == "clap" else Transcriber)(str(tmp_path / "model"))
    assert not (tmp_path / "mark").exists()
