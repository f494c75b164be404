"""Doctor: `python -m jgcl_ray.doctor [--json] [--ray]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby

from jgcl_ray import __version__
from jgcl_ray.arguments import Parser
from jgcl_ray.diagnosis import Finding, diagnose
from jgcl_ray.errors import exit_on_user_error


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, look, print; exit code 1 where something needed is missing."""
    parser = Parser(
        prog="python -m jgcl_ray.doctor",
        description="Print what this machine has: versions, processor, GPU, caches, free disk and memory; and of "
        "each thing that is missing what does not work without it and how to get it.",
        epilog="exit codes: 0 all that is needed is there; 1 something needed is missing or broken; 2 bad input",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--ray", action="store_true", help="also start Ray, or reach the cluster of RAY_ADDRESS")
    given = parser.parse_args(arguments)
    with exit_on_user_error():
        found = diagnose(given.ray)
    fine = all(finding.ok for finding in found if finding.needed)
    if given.json:
        print(json.dumps({"version": __version__, "ok": fine, "findings": [asdict(finding) for finding in found]}))
    else:
        print("\n".join(_lines(found)))
    sys.exit(0 if fine else 1)


def _lines(found: Sequence[Finding]) -> Iterator[str]:
    yield f"jgcl_ray {__version__}"
    width = max(len(finding.name) for finding in found)
    for part, findings in groupby(found, key=lambda finding: finding.part):
        yield f"\n{part}"
        for finding in findings:
            mark = "ok" if finding.ok else "MISSING" if finding.needed else "-"
            yield f"  {mark:7}  {finding.name:{width}}  {finding.value}"
            if not finding.ok:
                yield f"  {'':7}  {'':{width}}    without it: {finding.lost}"
                if finding.remedy:
                    yield f"  {'':7}  {'':{width}}    to get it: {finding.remedy}"
    missing = [finding.name for finding in found if finding.needed and not finding.ok]
    yield ""
    yield f"needed and missing: {', '.join(missing)}" if missing else "all that is needed is there"


if __name__ == "__main__":
    main()
