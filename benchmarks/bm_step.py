"""Seconds and peak memory of a joint step, by precision and formulation, with a breakdown.

    python benchmarks/bm_step.py [--batch 16] [--height 256] [--width 128] [--steps 3] [--baseline] [--compile]

One JSON object a line, each measured in a process of its own. `seconds`: median of the whole step; `cpu_seconds`: of
all its threads (the better one on a busy machine, with OMP_WAIT_POLICY=passive). `phases`: of its parts. `networks`:
one forward and backward pass of one batch through one network. --baseline adds the step as METHOD writes it: every
pass on its own, the real image and its penalty by double backward once for each fake, float32.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from jgcl_ray.arguments import Parser, whole
from jgcl_ray.batches import PairedBatch
from jgcl_ray.config import Config, load_config
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.losses.joint import Terms, weighted_sum
from jgcl_ray.losses.reconstruction import feature_loss, image_loss
from jgcl_ray.memories.instances import MemoryBank
from jgcl_ray.models.networks import Networks, build_networks
from jgcl_ray.training import step
from jgcl_ray.training.optim import Optimisers, build_optimisers
from jgcl_ray.training.precision import autocast, laid_out, prepare

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Name of a measurement -> what of the configuration it sets.
VARIANTS = {
    "official_float32": ["losses.formulation=official", "encoder.separate_batch_norm=false"],
    "paper_float32": [],
    "paper_bf16": ["precision.dtype=bf16"],
}
BASELINE = {
    "baseline_float32": [
        "losses.formulation=official",
        "encoder.separate_batch_norm=false",
        "generator.fold_upsampling=false",
        "precision.channels_last=false",
    ]
}
Step = Callable[[Networks, Optimisers, MemoryBank, PairedBatch, Config, int], object]


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=whole(1), default=16)
    parser.add_argument("--height", type=whole(1), default=256)
    parser.add_argument("--width", type=whole(1), default=128)
    parser.add_argument("--steps", type=whole(1), default=3)
    parser.add_argument("--baseline", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", choices=[*VARIANTS, *BASELINE], help="measure this one, in this process")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments)), flush=True)
        return
    for name in [*VARIANTS, *(BASELINE if arguments.baseline else ())]:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only", name], check=True)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    name = arguments.only
    overrides = [*(VARIANTS | BASELINE)[name], "encoder.weights=random", f"precision.compile={arguments.compile}"]
    overrides += [f"data.height={arguments.height}", f"data.width={arguments.width}"]
    config = load_config(overrides=overrides)
    torch.manual_seed(0)
    networks = prepare(build_networks(config).to(DEVICE), config.precision)
    optimisers = build_optimisers(networks, config.optim)
    batch = make_batch(arguments.batch, arguments.height, arguments.width)
    bank = MemoryBank(torch.randn(12_936, 512, device=DEVICE), torch.arange(12_936) // 20, config.memory_bank)
    one_step: Step = plain_step if name in BASELINE else step.joint_step

    seconds, cpu_seconds, phases = [], [], defaultdict(list)
    time_phases(phases)
    for number in range(arguments.steps + 1):
        cpu_before = time.process_time()
        taken = timed(lambda: one_step(networks, optimisers, bank, batch, config, number))  # noqa: B023
        if number:  # the first one warms up
            seconds.append(taken)
            cpu_seconds.append(time.process_time() - cpu_before)
    peak = peak_memory()
    return {
        "benchmark": "joint_step",
        "variant": name,
        "batch": arguments.batch,
        "height": arguments.height,
        "width": arguments.width,
        "device": torch.cuda.get_device_name()
        if DEVICE.type == "cuda"
        else f"cpu, {torch.get_num_threads()} threads",
        "compile": arguments.compile,
        "seconds": round(statistics.median(seconds), 3),
        "cpu_seconds": round(statistics.median(cpu_seconds), 3),
        "images_per_second": round(arguments.batch / statistics.median(seconds), 2),
        "peak_memory_mb": round(peak),
        "phases": {phase: round(statistics.median(taken[1:]), 3) for phase, taken in phases.items() if taken},
        "networks": network_seconds(networks, batch, config),
    }


def make_batch(size: int, height: int, width: int) -> PairedBatch:
    image = torch.randn(size, 3, height, width, device=DEVICE)
    meshes = torch.rand(2, size, 1, height, width, device=DEVICE) * 2 - 1
    index = torch.arange(size, device=DEVICE) * 50
    return PairedBatch(image, meshes[0], meshes[1], torch.full_like(index, 45), index)


def time_phases(phases: dict[str, list[float]]) -> None:
    """Have the parts of the step write down their seconds; backward and optimiser count to the update they end."""
    for phase, function in (("forward", "translate"), ("update_discriminator", "update_discriminator")):
        setattr(step, function, noting(getattr(step, function), phases[phase]))


def noting(function: Callable[..., Any], into: list[float]) -> Callable[..., Any]:
    def noted(*arguments: Any) -> Any:
        result = None

        def call() -> None:
            nonlocal result
            result = function(*arguments)

        into.append(timed(call))
        return result

    return noted


def timed(function: Callable[[], object]) -> float:
    wait()
    start = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - start


def wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def peak_memory() -> float:
    """MB of this process on a CPU, of PyTorch's tensors on a GPU."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def network_seconds(networks: Networks, batch: PairedBatch, config: Config) -> dict[str, float]:
    """Forward and backward of one batch: E_id; E_str and G; D; and D with the gradient penalty."""
    image, mesh = (laid_out(x, config.precision) for x in (batch.image, batch.mesh))
    code = torch.randn(len(image), networks.encoder.code_width, device=DEVICE)

    def penalised() -> torch.Tensor:
        judged = networks.discriminator.with_input_gradient(image)
        return sum_all(judged.maps) + sum_all([gradient.square() for gradient in judged.gradients])

    passes: dict[str, Callable[[], torch.Tensor]] = {
        "encoder": lambda: networks.encoder(image).code.sum(),
        "generator": lambda: networks.generator(networks.structure_encoder(mesh), code).sum(),
        "discriminator": lambda: sum_all(networks.discriminator(image)),
        "discriminator_with_penalty": penalised,
    }

    def run(forward: Callable[[], torch.Tensor]) -> None:
        with autocast(config.precision, DEVICE):
            loss = forward()
        loss.backward()

    return {
        name: round(statistics.median([timed(lambda: run(forward)) for _ in range(4)][1:]), 3)  # noqa: B023
        for name, forward in passes.items()
    }


def sum_all(tensors: Any) -> torch.Tensor:
    return torch.stack([tensor.sum() for tensor in tensors]).sum()


def plain_step(
    networks: Networks, optimisers: Optimisers, bank: MemoryBank, batch: PairedBatch, config: Config, number: int
) -> Terms:
    """The joint step as METHOD writes it, in the `official` formulation, nothing shared between its lines.

    Its terms, under the names and with the values of joint_step's where config.run.seed is 0.
    """
    E_id, E_str, G, D = (network for _, network in networks.named())
    E_id.train()
    x, s, s_nv = batch.image, batch.mesh, batch.mesh_novel
    real = E_id(x)
    x_rec = G(E_str(s), real.code)
    x_nv = G(E_str(s_nv), real.code)
    reconstruction, novel = E_id(x_rec), E_id(x_nv)
    x_cyc = G(E_str(s), novel.code)
    cycle = E_id(x_cyc)
    fakes = {"reconstruction": x_rec, "novel": x_nv, "cycle": x_cyc}

    terms: Terms = {}
    for name, fake in fakes.items():
        image = x.clone().requires_grad_()
        term = torch.zeros((), device=x.device)
        for of_fake, of_real in zip(D(fake.detach()), D(image), strict=True):
            (gradient,) = torch.autograd.grad(of_real.sum(), image, create_graph=True)
            penalty = gradient.square().sum((1, 2, 3)).mean()
            term = term + of_fake.square().mean() + (of_real - 1).square().mean() + 0.01 * penalty
        terms[f"discriminator_{name}"] = term
    step.descend(weighted_sum(terms, config.losses), terms, [optimisers.discriminator], batch, number)
    of_discriminator = terms

    terms = {
        "image_reconstruction": image_loss(x_rec, x),
        "image_cycle": image_loss(x_cyc, x),
        "feature_reconstruction": feature_loss(reconstruction.code, real.code),
        "feature_cycle": feature_loss(cycle.code, real.code),
    }
    for name, fake in fakes.items():
        terms[f"adversarial_{name}"] = sum_all([2 * (scores - 1).square().mean() for scores in D(fake)])
    draw = bank.draw(batch.index, seed=0, step=number, formulation="official")
    terms |= step.view_contrast(real.embedding, novel.embedding, bank, draw, 0.04, "official")
    total = weighted_sum(terms, config.losses)
    step.descend(total, terms, [optimisers.generator, optimisers.encoder], batch, number)
    bank.update(batch.index, real.embedding.detach())
    return step.as_numbers(of_discriminator, terms)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
