"""Models of transformers that hear: CLAP scores sound against captions, Whisper's kind writes down what is said."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from mmdata.config import Score
from mmdata.errors import UserError
from mmdata.score.foreign import NOT_TENSORS
from mmdata.score.sound_measures import SAMPLE_RATE

AT_ONCE = 16
MAX_NEW_TOKENS = 200


class ClapScorer:
    """A CLAP model: cosine of sound and caption.

    Args:
        place: a folder, or a hub's id.

    Raises:
        UserError: there is no such model, or it is of another kind.
    """

    def __init__(self, place: str, device: str = "cpu") -> None:
        from transformers import ClapModel, ClapProcessor

        self._processor, self._model = _loaded(place, "score.audio_model", ClapProcessor, ClapModel)
        self._model.to(device)
        self._device = device
        self._rate = int(self._processor.feature_extractor.sampling_rate)

    def scores(self, waves: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
        """Cosines, float32 N.

        Args:
            waves: float32, 16 kHz mono.
        """
        import torch

        found = []
        with torch.inference_mode():
            for at in range(0, len(waves), AT_ONCE):
                sounds = [self._middle(_resampled(wave, self._rate)) for wave in waves[at : at + AT_ONCE]]
                heard = self._processor.feature_extractor(sounds, sampling_rate=self._rate, return_tensors="pt")
                words = self._processor.tokenizer(
                    list(captions[at : at + AT_ONCE]), padding=True, truncation=True, return_tensors="pt"
                )
                sound = _features(self._model.get_audio_features(**heard.to(self._device)))
                text = _features(self._model.get_text_features(**words.to(self._device)))
                found.append(torch.nn.functional.cosine_similarity(sound.float(), text.float(), dim=-1).cpu().numpy())
        return np.concatenate(found) if found else np.empty(0, np.float32)

    def _middle(self, wave: np.ndarray) -> np.ndarray:
        """As much as the model hears; of a longer sound the processor would take pieces at random."""
        most = int(self._processor.feature_extractor.max_length_s * self._rate)
        start = max(0, (len(wave) - most) // 2)
        return wave[start : start + most]


class Transcriber:
    """A speech-to-text model of Whisper's kind. Args and errors as of ClapScorer."""

    def __init__(self, place: str, device: str = "cpu") -> None:
        from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

        self._processor, self._model = _loaded(place, "score.transcriber", AutoProcessor, AutoModelForSpeechSeq2Seq)
        self._model.to(device)
        self._device = device

    def transcripts(self, waves: Sequence[np.ndarray]) -> list[str]:
        """What is said, a text a sound; empty where nothing is.

        Args:
            waves: float32, 16 kHz mono.
        """
        import torch

        texts: list[str] = []
        with torch.inference_mode():
            for at in range(0, len(waves), AT_ONCE):
                heard = self._processor(list(waves[at : at + AT_ONCE]), sampling_rate=SAMPLE_RATE, return_tensors="pt")
                ids = self._model.generate(**heard.to(self._device), max_new_tokens=MAX_NEW_TOKENS)
                texts += [text.strip() for text in self._processor.batch_decode(ids, skip_special_tokens=True)]
        return texts


@cache
def clap_scorer(place: str, device: str) -> ClapScorer:
    """This process's scorer."""
    return ClapScorer(place, device)


@cache
def transcriber(place: str, device: str) -> Transcriber:
    """This process's transcriber."""
    return Transcriber(place, device)


def device_of(score: Score) -> str:
    """Where these models run: as the scorer does."""
    import torch

    if score.device != "auto":
        return score.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _loaded(place: str, key: str, processor: Any, model: Any) -> tuple[Any, Any]:
    try:
        own = {"trust_remote_code": False}
        return processor.from_pretrained(place, **own), model.from_pretrained(place, weights_only=True, **own).eval()
    except (OSError, ValueError, KeyError, *NOT_TENSORS) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{key}: {place!r} cannot be loaded ({line}). Remedy: a folder or a hub id of such a model."
        ) from None


def _features(found: Any) -> Any:
    """Later versions of transformers wrap them."""
    return found if hasattr(found, "shape") else found.pooler_output


def _resampled(wave: np.ndarray, rate: int) -> np.ndarray:
    if rate == SAMPLE_RATE:
        return wave
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[None], np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = SAMPLE_RATE, 0
    resampler = av.AudioResampler("fltp", "mono", rate)
    return np.concatenate([one.to_ndarray()[0] for one in (*resampler.resample(frame), *resampler.resample(None))])
