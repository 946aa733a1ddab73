"""Whether this machine is ready: each examination says what it found, and what to do about a problem."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import secrets
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmdata.errors import UserError
from mmdata.media.cores import cores

if TYPE_CHECKING:
    from mmdata.config import Corpus

Verdict = Literal["ok", "warning", "error"]

OPTIONAL = {
    "s3fs": "s3:// workspaces: pip install 'mmdata[s3]'",
    "ray": "engine.backend ray: pip install 'mmdata[ray]'",
    "resvg_py": "the demo corpus: pip install 'mmdata[demo]'",
}
CV2_PACKAGES = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
LOW_DISK_GB, LOW_MEMORY_GB = 10, 4


@dataclass(frozen=True, slots=True)
class Examination:
    """The result of one examination.

    Args:
        remedy: what to do; empty if all is well.
    """

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


def examine(config_path: Path | None = None) -> Iterator[Examination]:
    """Examine Python, torch and its devices, memory, disk, optional packages, the network, and a corpus if given."""
    yield _python()
    yield _torch()
    yield _memory()
    yield _disk(Path.cwd())
    yield from _optional_packages()
    yield _network()
    if config_path is not None:
        yield from _corpus(config_path)


def _python() -> Examination:
    version = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {cores()} cores"
    return Examination("python", "ok", version)


def _torch() -> Examination:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Examination("torch", "error", str(error), "pip install torch: see pytorch.org for this machine's build")
    devices = [f"cuda:{n} {torch.cuda.get_device_name(n)}" for n in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    found = f"{torch.__version__}, {', '.join(devices) or 'cpu only'}"
    if not devices:
        return Examination("torch", "warning", found, "scoring on a CPU is slow: tens of pictures a second and core")
    return Examination("torch", "ok", found)


def _memory() -> Examination:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    total_gb = pages * size / 1e9
    if total_gb < LOW_MEMORY_GB:
        return Examination("memory", "warning", f"{total_gb:.1f} GB", "lower score.batch_size and engine.workers")
    return Examination("memory", "ok", f"{total_gb:.1f} GB")


def _disk(folder: Path) -> Examination:
    free_gb = shutil.disk_usage(folder).free / 1e9
    found = f"{free_gb:.1f} GB free at {folder}"
    if free_gb < LOW_DISK_GB:
        remedy = "a million pictures of 256 pixels take about 25 GB, twice while a release is made"
        return Examination("disk", "warning", found, remedy)
    return Examination("disk", "ok", found)


def _optional_packages() -> Iterator[Examination]:
    for module, use in OPTIONAL.items():
        if find_spec(module) is None:
            yield Examination(module, "warning", "not installed", f"needed only for {use}")
        else:
            yield Examination(module, "ok", "installed")
    owners = [name for name in CV2_PACKAGES if _is_installed(name)]
    if len(owners) > 1:
        remedy = f"they overwrite each other's cv2: pip uninstall {' '.join(owners)}, then install one again"
        yield Examination("cv2", "error", f"installed by {', '.join(owners)}", remedy)


def _network() -> Examination:
    """Resolve a name, then connect. Without a network, the demo and local mirrors still work."""
    try:
        address = socket.getaddrinfo("example.com", 443, type=socket.SOCK_STREAM)[0][4]
    except OSError as error:
        remedy = "names cannot be resolved: only local mirrors can be fetched from; the demo works offline"
        return Examination("network", "warning", f"DNS: {error}", remedy)
    try:
        with socket.create_connection((str(address[0]), 443), timeout=3):
            return Examination("network", "ok", "names resolve, and connections to the outside work")
    except OSError as error:
        remedy = "behind a proxy? Downloads connect directly, so that each address can be checked"
        return Examination("network", "warning", f"connecting to example.com: {error}", remedy)


def _corpus(config_path: Path) -> Iterator[Examination]:
    from mmdata.config.load import load_corpus
    from mmdata.workspace.layout import Workspace

    try:
        corpus = load_corpus(config_path)
    except UserError as error:
        yield Examination("corpus", "error", str(error), "correct the file; `mmdata init DIR` writes a valid one")
        return
    yield Examination("corpus", "ok", f"{config_path}: {len(corpus.sources)} sources")
    yield _scorer(corpus)
    yield _contact(corpus)
    workspace = Workspace(corpus.workspace)
    probe = workspace.root / f".probe-{secrets.token_hex(4)}"
    try:
        workspace.root.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"mmdata")
        probe.unlink()
    except Exception as error:  # noqa: BLE001 - each store's client has its own errors
        found = f"{workspace.root}: {type(error).__name__}: {error}"
        yield Examination("workspace", "error", found, "give a folder or a bucket that can be written")
        return
    yield Examination("workspace", "ok", f"{workspace.root} can be written")


def _scorer(corpus: Corpus) -> Examination:
    from mmdata.config.scorers import scorer_name
    from mmdata.score.weights_check import check_weights

    try:
        check_weights(corpus.score, corpus.recaption)
    except UserError as error:
        found, _, remedy = str(error).partition(" Remedy: ")
        return Examination("scorer", "error", found, remedy)
    return Examination("scorer", "ok", f"{scorer_name(corpus.score)}: the weights are here or within reach")


def _contact(corpus: Corpus) -> Examination:
    if corpus.download.contact:
        return Examination("contact", "ok", f"sites are told `{corpus.download.agent}`")
    remedy = "set download.contact to a page or a mail address"
    return Examination("contact", "warning", f"sites are told no place to complain: `{corpus.download.agent}`", remedy)


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
