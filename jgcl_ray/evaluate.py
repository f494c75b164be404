"""Evaluate: `python -m jgcl_ray.evaluate --checkpoint PATH --data NAME [--root DIR] [--json OUT] [--report DIR]`."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jgcl_ray.arguments import Parser
from jgcl_ray.config import Config, Section, load_config
from jgcl_ray.errors import UserError, exit_on_user_error
from jgcl_ray.ownership import is_scores
from jgcl_ray.places import absolute, at_home, check_apart, check_file, check_folder, check_outside

DESCRIPTION = """\
Score an encoder. Each query is a photo of a person; the gallery is ranked by distance to it. By the protocol of
Market-1501 photos of the same person by the query's own camera do not count, neither for nor against; across cameras
(--protocol cross_camera, the default of some sets of two cameras) no photo by that camera does.

  mAP     mean over the queries of the average precision: 1 where all photos of the person come first
  rank-k  share of queries with a photo of the person among the first k (the CMC curve)
  mINP    how early the last photo of the person comes, mean over the queries

The last line on standard output is `mAP M rank-1 R`; the line before it has the 95 % interval of mAP, by bootstrap
over people. Fractions everywhere: 0.87 is 87 %."""

EXAMPLES = """\
examples:
  python -m jgcl_ray.evaluate --checkpoint runs/walkers --data walkers --json scores.json --report report
  python -m jgcl_ray.evaluate --checkpoint id_00100000.pt --data market1501 --root ~/Market-1501 --rerank
  python -m jgcl_ray.evaluate --checkpoint runs/other --data walkers --against scores.json --flip --camera-means

exit codes: 0 done; 2 something that you can correct, named in one line"""


def main() -> None:
    """Parse, load, assess, write."""
    arguments = _parser().parse_intermixed_args()
    with exit_on_user_error(), ExitStack() as held:
        config = _config(arguments)
        # Slow to import: a mistake in the arguments is reported before that.
        from jgcl_ray.atomic import write_json
        from jgcl_ray.data.datasets import open_dataset
        from jgcl_ray.data.image_check import check_images
        from jgcl_ray.encoder import Encoder
        from jgcl_ray.evaluation.assessment import assess, labelled
        from jgcl_ray.evaluation.clusters import for_gallery
        from jgcl_ray.evaluation.comparison import check_comparable, compare
        from jgcl_ray.evaluation.query_scores import ScoresFile
        from jgcl_ray.evaluation.report import PAGE, check_report, keep_with_run, write_report
        from jgcl_ray.models.shipped import SHIPPED
        from jgcl_ray.progress import plain_console
        from jgcl_ray.training.checkpoint import checkpoints_in
        from jgcl_ray.writer_lock import only_writer

        console = plain_console()
        if arguments.report is not None:
            check_report(arguments.report)
            check_apart({"--json": arguments.json, "--report": arguments.report / PAGE})
        other = None if arguments.against is None else ScoresFile.read(arguments.against)
        path = at_home(arguments.checkpoint)
        checkpoint = checkpoints_in(path)[0] if path.is_dir() and str(path) not in SHIPPED else path
        size = {name: value for name, value in _given(config.data).items() if name in ("height", "width")}
        encoder = Encoder.load(checkpoint, config.scaling.device, **size, multi_scale=arguments.multi_scale)
        dataset = open_dataset(config.data, config.walkers)  # walkers may be rendered here, for minutes
        labelled(dataset)
        protocol = arguments.protocol or dataset.protocol
        console.print(f"{encoder.description}; {dataset.description}")
        dataset = check_images(dataset, config.data.on_bad_image)
        if other is not None:
            query, gallery = labelled(dataset)
            check_comparable(other, query, len(gallery), protocol, arguments.rerank)
        if arguments.report is not None:
            held.enter_context(only_writer(arguments.report, "give another --report"))
        found = assess(
            encoder,
            dataset,
            protocol=protocol,
            batch_size=config.eval.batch_size,
            reranked=arguments.rerank,
            camera_pairs=any((arguments.cross_camera, arguments.report, arguments.json, other)),
            flip=arguments.flip,
            camera_means=arguments.means_of if arguments.camera_means else None,
            progress=True,
        )
        given = {"path": str(checkpoint), "fingerprint": encoder.fingerprint, "multi_scale": encoder.multi_scale}
        document = found.document() | {"checkpoint": given}
        comparison = None if other is None else compare(found.query_scores(), other)
        if comparison is not None:
            document |= comparison.document()
        if not (arguments.cross_camera or arguments.report):
            document.pop("cross_camera", None)
        try:
            if arguments.json is not None:
                arguments.json.parent.mkdir(parents=True, exist_ok=True)
                write_json(arguments.json, document)
            if arguments.cross_camera:
                print("\n".join(found.camera_lines()))
            if comparison is not None:
                print("\n".join(comparison.lines(found.camera_name)))
            if arguments.report is not None:
                console.print("drawing the report")
                trained = (encoder.config or config).pseudo_labels
                labelling = for_gallery(trained, len(dataset.train), len(found.gallery))
                labelling = labelling.model_copy(update=_given(config.pseudo_labels))
                files = write_report(arguments.report, found, encoder, labelling, document, comparison)
                console.print(f"report: {arguments.report / 'index.html'}")
                console.print(keep_with_run(checkpoint, files, dataset.name))
        finally:  # a disk may be full: the scores are there
            print("\n".join(found.lines()))
            print(f"mAP {document['mAP']:.4f} rank-1 {document['rank-1']:.4f}")


def _given(section: Section) -> dict[str, Any]:
    """The fields that were named on the command line."""
    return {name: getattr(section, name) for name in section.model_fields_set}


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jgcl_ray.evaluate",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="PATH",
        help="rendered, the package's own; or run folder, checkpoint folder, exported safetensors, id_*.pt of the "
        "GCL authors, or a backbone under the names of torchvision (ResNet), torchreid (OSNet) or "
        "EfficientNet-lite0's releases",
    )
    parser.add_argument("--data", required=True, metavar="NAME", help="a labelled data set, as data.name")
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="folder of the data set; walkers come from the cache without it"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="OUT",
        help="write the scores there: mAP, cmc (list), queries, gallery and more",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="write index.html, which opens offline, and its pictures as PNG: rankings of 20 queries, CMC, t-SNE, "
        "clusters, activation maps; for a checkpoint in a run folder they are kept there, too, and in the run's "
        "MLflow run",
    )
    parser.add_argument(
        "--rerank",
        action="store_true",
        help="rank by k-reciprocal re-ranking (Zhong et al., CVPR 2017; k1 20, k2 6, lambda 0.3); the scores before "
        "it are kept in the JSON under before_reranking",
    )
    parser.add_argument(
        "--cross-camera",
        action="store_true",
        help="besides, score each pair of cameras on its own: the queries of one camera against the gallery photos "
        "of one other camera and nothing else, mAP and rank-1 over the queries that have a right photo there; lines "
        "on standard output, and cross_camera in the JSON",
    )
    parser.add_argument(
        "--protocol",
        choices=("market", "cross_camera"),
        help="what a query's ranking leaves out: market, the photos of its person by its camera; cross_camera, all "
        "photos by its camera; the data set's own without it",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="OTHER.json",
        help="what --json wrote for another encoder on the same set: besides, the difference in mAP over the same "
        "queries in pairs, with its 95 %% interval, by pair of cameras and, on walkers, by difference of viewpoint",
    )
    parser.add_argument(
        "--flip",
        action="store_true",
        help="besides, the scores of embeddings averaged over image and mirror image; under corrected in the JSON",
    )
    parser.add_argument(
        "--multi-scale",
        action=argparse.BooleanOptionalAction,
        help="read the photos at the encoder's size, 5/6 and 4/3 of it; all scores are then of the mean embeddings, "
        "in 3.5 times the time (rendered: yes; others: no)",
    )
    parser.add_argument(
        "--camera-means",
        action="store_true",
        help="besides, the scores after each camera's mean embedding is taken off; with --flip also of both together",
    )
    parser.add_argument(
        "--means-of",
        choices=("train", "gallery"),
        default="train",
        help="whose mean: of the training images, or of the gallery's, which a deployed system has, too (train)",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.field=value",
        help="changes to the configuration, such as data.on_bad_image=skip, eval.batch_size=256, "
        "scaling.device=cpu, data.height=384, or pseudo_labels.rho=0.004 for the report's clusters",
    )
    return parser


def _config(arguments: argparse.Namespace) -> Config:
    from jgcl_ray.data.datasets import OF_ALL_BELOW

    config = load_config(None, arguments.overrides)
    root = None if arguments.root is None else absolute(arguments.root)
    changes = {"name": arguments.data} | ({} if root is None else {"root": root})
    if arguments.means_of != "train" and not arguments.camera_means:
        raise UserError(f"--means-of {arguments.means_of} is of --camera-means; give that, too")
    check_apart({"--json": arguments.json, "--report": arguments.report, "--against": arguments.against})
    if arguments.json is not None:
        check_file(arguments.json, "--json", is_scores, parents=True)
    if arguments.report is not None:
        check_folder(arguments.report, "--report")
        if root is not None and arguments.data in OF_ALL_BELOW:
            check_outside(arguments.report, "--report", root, "--root ")
    return config.model_copy(update={"data": config.data.model_copy(update=changes)})


if __name__ == "__main__":
    main()
