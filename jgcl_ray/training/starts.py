"""What a run starts with: weights of run.init_from and encoder.weights_file, a checkpoint of run.resume."""

from __future__ import annotations

from pathlib import Path

from jgcl_ray.config import Config, EncoderConfig
from jgcl_ray.errors import UserError
from jgcl_ray.models.encoder_files import load_encoder
from jgcl_ray.models.networks import Networks, build_networks
from jgcl_ray.models.shipped import shipped
from jgcl_ray.models.weights import load_foreign, read_state
from jgcl_ray.training.checkpoint import checkpoints_in, load_networks, newest_in, read_manifest


def check_starts(config: Config) -> None:
    """UserError where the networks cannot start with the files that are named: the workers would find it later."""
    if isinstance(config.run.resume, Path):
        read_manifest(newest_in(config.run.resume), verify=True)
    if config.encoder.weights_file is not None:
        if config.encoder.weights == "random":
            raise UserError(
                "encoder.weights_file: not read with encoder.weights=random; give encoder.weights=imagenet, which "
                "then means that file, or encoder.weights_file=null"
            )
        if config.run.init_from is not None:
            raise UserError(
                f"encoder.weights_file and run.init_from={config.run.init_from}: two starts of one encoder; set one "
                "of them to null"
            )
        build_networks(config)
    if config.run.init_from is not None:
        random = config.encoder.model_copy(update={"weights": "random", "weights_file": None})  # fetches nothing
        load_start(config.run.init_from, build_networks(config.model_copy(update={"encoder": random})), random)


def load_start(given: Path | str, networks: Networks, config: EncoderConfig) -> None:
    """The weights of run.init_from."""
    path = shipped(given)
    if not path.is_file():
        if not path.is_dir():
            raise UserError(f"run.init_from={given}: not there; give a checkpoint, a run folder, a file or rendered")
        try:
            checkpoint = checkpoints_in(path)[0]
        except UserError as error:
            raise UserError(f"run.init_from={error}") from None
        load_networks(checkpoint, networks)
    elif path.suffix == ".safetensors":
        load_encoder(networks.encoder, config, path, f"run.init_from={given}")
    else:
        load_foreign(networks.encoder, config, read_state(path), str(path))
