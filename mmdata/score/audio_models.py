"""Audio models of transformers: CLAP scores sound against captions, Whisper-like models transcribe speech."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from mmdata.config import Score
from mmdata.media.flac import SAMPLE_RATE
from mmdata.score.safe_loading import load_pretrained

BATCH_SIZE = 16
MAX_NEW_TOKENS = 200  # of a transcript


class ClapScorer:
    """A CLAP model: gives the cosine of a sound and its caption.

    Args:
        name: a folder, or the id of a model on the Hugging Face hub.

    Raises:
        UserError: there is no such model, or it is of another kind.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        from transformers import ClapModel, ClapProcessor

        self._processor, self._model = load_pretrained(name, "score.audio_model", ClapProcessor, ClapModel)
        self._model.to(device)
        self._device = device
        self._rate = int(self._processor.feature_extractor.sampling_rate)

    def scores(self, waves: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
        """Cosines of N sounds (float32 samples, 16 kHz mono) and N captions, float32 N."""
        import torch

        cosines = []
        with torch.inference_mode():
            for start in range(0, len(waves), BATCH_SIZE):
                batch = slice(start, start + BATCH_SIZE)
                sounds = [self._middle(_resample(wave, self._rate)) for wave in waves[batch]]
                sound_inputs = self._processor.feature_extractor(sounds, sampling_rate=self._rate, return_tensors="pt")
                text_inputs = self._processor.tokenizer(
                    list(captions[batch]), padding=True, truncation=True, return_tensors="pt"
                )
                sound = _embeddings(self._model.get_audio_features(**sound_inputs.to(self._device)))
                text = _embeddings(self._model.get_text_features(**text_inputs.to(self._device)))
                cosines.append(torch.nn.functional.cosine_similarity(sound.float(), text.float(), dim=-1).cpu().numpy())
        return np.concatenate(cosines) if cosines else np.empty(0, np.float32)

    def _middle(self, wave: np.ndarray) -> np.ndarray:
        """Cut to the length that the model takes; the processor would cut longer sounds at a random place."""
        max_samples = int(self._processor.feature_extractor.max_length_s * self._rate)
        start = max(0, (len(wave) - max_samples) // 2)
        return wave[start : start + max_samples]


class Transcriber:
    """A speech-to-text model like Whisper. Arguments and errors as for ClapScorer."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

        self._processor, self._model = load_pretrained(
            name, "score.transcriber", AutoProcessor, AutoModelForSpeechSeq2Seq
        )
        self._model.to(device)
        self._device = device

    def transcripts(self, waves: Sequence[np.ndarray]) -> list[str]:
        """The words spoken in each sound (float32 samples, 16 kHz mono); empty where there are none."""
        import torch

        texts: list[str] = []
        with torch.inference_mode():
            for start in range(0, len(waves), BATCH_SIZE):
                batch = list(waves[start : start + BATCH_SIZE])
                inputs = self._processor(batch, sampling_rate=SAMPLE_RATE, return_tensors="pt")
                ids = self._model.generate(**inputs.to(self._device), max_new_tokens=MAX_NEW_TOKENS)
                texts += [text.strip() for text in self._processor.batch_decode(ids, skip_special_tokens=True)]
        return texts


clap_scorer = cache(ClapScorer)
transcriber = cache(Transcriber)
"""The models of a name on a device, loaded once in a process."""


def audio_device(score: Score) -> str:
    """The device of the audio models: `score.device`; `auto` is a CUDA GPU, or else the CPU."""
    import torch

    if score.device != "auto":
        return score.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _embeddings(output: Any) -> Any:
    """A tensor N,D of what `get_*_features` returns; later versions of transformers wrap it."""
    return output if hasattr(output, "shape") else output.pooler_output


def _resample(wave: np.ndarray, rate: int) -> np.ndarray:
    """Bring a wave from 16 kHz to another sample rate."""
    if rate == SAMPLE_RATE:
        return wave
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[None], np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = SAMPLE_RATE, 0
    resampler = av.AudioResampler("fltp", "mono", rate)
    frames = (*resampler.resample(frame), *resampler.resample(None))
    return np.concatenate([resampled.to_ndarray()[0] for resampled in frames])
