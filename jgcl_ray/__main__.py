"""The commands: `jgcl`, or `python -m jgcl_ray`, lists them; `jgcl COMMAND ...` runs one."""

from __future__ import annotations

import difflib
import runpy
import sys
from collections.abc import Sequence

from jgcl_ray import __version__
from jgcl_ray.errors import UserError, exit_on_user_error

COMMANDS = {
    "train": ("jgcl_ray.train", "Train an encoder without labels; the same command resumes a run that was stopped."),
    "evaluate": ("jgcl_ray.evaluate", "Score an encoder on a labelled data set: mAP, CMC, intervals, a report."),
    "search": ("jgcl_ray.search", "Index a gallery of crops and find a person's images in it."),
    "footage": ("jgcl_ray.footage", "Cut crops out of videos or frames, by the tracks of any tracker."),
    "generate": ("jgcl_ray.generate", "Render the people on photos from other viewpoints."),
    "export": ("jgcl_ray.export", "Write an encoder as ONNX, torch.export, TorchScript or safetensors."),
    "tune": ("jgcl_ray.tune", "Sweep over settings, with many runs at a time on a Ray cluster."),
    "pretrain": (
        "jgcl_ray.pretrain",
        "Make the weights that the package ships, or others: encoder, generator of views, estimator of bodies.",
    ),
    "walkers": ("jgcl_ray.data.walkers", "Render the synthetic benchmark."),
    "estimator": ("jgcl_ray.meshes.estimator", "Estimate the bodies of people on images."),
    "projections": ("jgcl_ray.meshes.projections", "Render the mesh projections of given body parameters."),
    "config": ("jgcl_ray.config", "Print every field of the configuration with its default and a sentence."),
    "doctor": ("jgcl_ray.doctor", "Print versions, GPU, caches, room, and what is missing for what."),
    "run_log": ("jgcl_ray.run_log", "Send to MLflow what it lacks of a run."),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """List the commands, or run one as `python -m` does; its help and its exit code are its own."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print("\n".join(_listing()))
    elif given[0] == "--version":
        print(__version__)
    else:
        with exit_on_user_error():
            module = _module(given[0])
        sys.argv[1:] = given[1:]  # run_module puts the module's file before them
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def _listing() -> list[str]:
    width = max(map(len, COMMANDS))
    return [
        f"jgcl_ray {__version__}: unsupervised person re-identification, on Ray.",
        "",
        "usage: jgcl COMMAND ... (or python -m jgcl_ray COMMAND ...); jgcl COMMAND --help says more",
        "",
        *(f"  {name:{width}}  {sentence}" for name, (_, sentence) in COMMANDS.items()),
    ]


def _module(name: str) -> str:
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"{name}: no such command; {meant}known: {', '.join(COMMANDS)}")
    return COMMANDS[name][0]


if __name__ == "__main__":
    main()
