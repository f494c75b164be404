"""One joint step in the `official` formulation from official checkpoints, for comparison number by number.

    python benchmarks/official_step.py INPUT.npz CHECKPOINTS OUTPUT.npz

INPUT.npz: `x` (B,3,H,W), `mesh`, `mesh_nv` (B,1,H,W), `bank` (N,512), `labels` (N), `index` (B). CHECKPOINTS:
folder with id_*.pt, gen_*.pt and dis_*.pt. CPU, float32, or float64 where `x` is. OUTPUT.npz: networks in
evaluation mode (`eval_*`, `structure`, `decoded`, `dis_*`), the forward pass in training mode (`fwd_*`), the terms
of the step under the names that the authors' implementation gives them (`loss_*`, `memory_loss_id`) and the memory
afterwards (`bank_after`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from jgcl_ray.arguments import Parser
from jgcl_ray.batches import PairedBatch
from jgcl_ray.config import Config, load_config
from jgcl_ray.errors import UserError, exit_on_user_error
from jgcl_ray.losses.joint import JointOutputs, StepPlan
from jgcl_ray.losses.reconstruction import Fake
from jgcl_ray.memories.instances import MemoryBank
from jgcl_ray.models import official
from jgcl_ray.models.networks import Networks, build_networks
from jgcl_ray.training.optim import build_optimisers
from jgcl_ray.training.precision import prepare
from jgcl_ray.training.step import StepResult, joint_step, translate

TERMS = {
    "loss_dis_recon": "discriminator_reconstruction",
    "loss_dis_nv": "discriminator_novel",
    "loss_dis_nv2recon": "discriminator_cycle",
    "loss_dis_total": "discriminator_total",
    "loss_gen_recon_x": "image_reconstruction",
    "loss_gen_cycrecon_x": "image_cycle",
    "loss_gen_recon_f": "feature_reconstruction",
    "loss_gen_nv2recon_f": "feature_cycle",
    "loss_gen_adv_recon": "adversarial_reconstruction",
    "loss_gen_adv_nv": "adversarial_novel",
    "loss_gen_adv_nv2recon": "adversarial_cycle",
    "loss_gen_total": "generator_total",
}
Arrays = dict[str, torch.Tensor]


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    with exit_on_user_error():
        given = read_input(arguments.input)
        results = official_step(given, arguments.checkpoints)
        np.savez(arguments.output, **{name: value.numpy() for name, value in results.items()})


def official_step(given: Arrays, checkpoints: Path) -> Arrays:
    """All arrays of OUTPUT.npz from those of INPUT.npz, computed in the type of `x`.

    A small batch through batch norm in training mode multiplies rounding a hundredfold with each pass of the encoder.
    So sums are taken in the order of the plain formulas: no folded convolution, no other layout.
    """
    config = load_config(
        overrides=[
            "losses.formulation=official",
            "encoder.weights=random",
            "encoder.separate_batch_norm=false",
            "precision.channels_last=false",
            "generator.fold_upsampling=false",
            f"memory_bank.negatives={len(given['bank'])}",
        ]
    )
    networks = prepare(load_networks(config, checkpoints), config.precision)
    for _, module in networks.named():
        module.to(given["x"].dtype)
    batch = PairedBatch(given["x"], given["mesh"], given["mesh_nv"], torch.zeros_like(given["index"]), given["index"])
    bank = MemoryBank(given["bank"], given["labels"], config.memory_bank)

    results = evaluation_outputs(networks, batch)
    networks.encoder.train()
    with torch.no_grad():
        plan = StepPlan.of(config.losses, contrasts=True)
        results |= forward_outputs(translate(networks, batch, config, plan))
    step = joint_step(networks, build_optimisers(networks, config.optim), bank, batch, config, step=0)
    return results | losses(step) | {"bank_after": bank.state_dict()["rows"]}


@torch.no_grad()
def evaluation_outputs(networks: Networks, batch: PairedBatch) -> Arrays:
    networks.encoder.eval()
    seen = networks.encoder(batch.image)
    structure = networks.structure_encoder(batch.mesh)
    maps = {f"dis_{scale}": scores for scale, scores in enumerate(networks.discriminator(batch.image))}
    decoded = networks.generator(structure, seen.code)
    return {"eval_part": seen.code, "eval_emb": seen.embedding, "structure": structure, "decoded": decoded, **maps}


def forward_outputs(outputs: JointOutputs) -> Arrays:
    suffixes: dict[Fake, str] = {"reconstruction": "_recon", "novel": "_nv", "cycle": "_cyc"}
    arrays = {f"fwd_x{suffix}": outputs.images[fake] for fake, suffix in suffixes.items()}
    seen = {"": outputs.real} | {suffix: outputs.encoded[fake] for fake, suffix in suffixes.items()}
    for suffix, encoded in seen.items():
        arrays[f"fwd_feat{suffix}"], arrays[f"fwd_f{suffix}"] = encoded.code, encoded.embedding
    return arrays


def losses(step: StepResult) -> Arrays:
    contrast = [step.terms[name] for name in ("contrast_image", "contrast_views", "contrast_novel")]
    return {theirs: step.terms[ours] for theirs, ours in TERMS.items()} | {
        "memory_loss_id": torch.stack(contrast).sum()
    }


def load_networks(config: Config, checkpoints: Path) -> Networks:
    """The networks with the weights of the three files in `checkpoints`."""
    networks = build_networks(config)
    official.load_encoder(networks.encoder, newest(checkpoints, "id"))
    official.load_generator(networks.structure_encoder, networks.generator, newest(checkpoints, "gen"))
    official.load_discriminator(networks.discriminator, newest(checkpoints, "dis"))
    return networks


def newest(folder: Path, kind: str) -> Path:
    """The last of KIND_*.pt by name; their names end on the iteration."""
    files = sorted(folder.glob(f"{kind}_*.pt"))
    if not files:
        raise UserError(f"no {kind}_*.pt in {folder}: expected id_*.pt, gen_*.pt and dis_*.pt")
    return files[-1]


def read_input(path: Path) -> Arrays:
    try:
        with np.load(path) as arrays:
            return {
                name: torch.from_numpy(arrays[name]) for name in ("x", "mesh", "mesh_nv", "bank", "labels", "index")
            }
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: {error}; expected an npz with x, mesh, mesh_nv, bank, labels and index") from None


if __name__ == "__main__":
    main()
