"""Tables of the report that hold intervals: corrections, viewpoints, and the comparison with another encoder."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from jgcl_ray.evaluation.assessment import Assessment
from jgcl_ray.evaluation.bootstrap import Interval
from jgcl_ray.evaluation.comparison import Comparison, most_changed
from jgcl_ray.wording import counted

# Of the corrections, by their names in the JSON.
WORDS = {
    "flip": "image and mirror image averaged",
    "camera_means": "each camera's mean taken off",
    "flip+camera_means": "both of these",
}


def corrections_table(found: Assessment) -> str:
    """HTML: the plain score, and beside it those of the corrections."""
    plain = [("plain", _value(found.result.mAP, found.interval), f"{found.result.cmc[0]:.1%}", "")]
    rows = [
        (
            WORDS[one.name],
            _value(one.result.mAP, one.interval),
            f"{one.result.cmc[0]:.1%}",
            _value(one.difference.mean, one.difference, "+"),
        )
        for one in found.corrected
    ]
    means = f" The means are those of the {_MEANS_OF[found.means_of]} images." if found.means_of else ""
    caption = (
        "The same encoder with corrections that need no training: beside the plain score, which everything else on "
        f"this page is of.{means} In brackets: 95 % intervals; the gain is taken query by query."
    )
    return _table(caption, ("", "mAP", "rank-1", "gain in mAP"), plain + rows)


def viewpoints_table(found: Assessment) -> str:
    """HTML: mAP by how far the person turned between query and match."""
    rows = [
        (f"{low}° to {high}°", _value(interval.mean, interval), f"{queries:,}")
        for (low, high), queries, interval in found.by_viewpoint
    ]
    caption = (
        "Right photos of one difference of viewpoint alone, the others left out of the rankings: 0° shows the side "
        "that the query shows, 180° the opposite one. Over the queries that have such a photo; in brackets: 95 % "
        "intervals."
    )
    return _table(caption, ("turned by", "mAP", "queries"), rows)


def comparison_tables(comparison: Comparison, found: Assessment) -> str:
    """HTML: the difference to another encoder, and who profits."""
    difference = comparison.difference
    whose = f" ({comparison.other.checkpoint})" if comparison.other.checkpoint else ""
    words = (
        f"Against {comparison.other.path}{whose}, mAP {comparison.other.mAP:.3f}: "
        f"{_value(difference.mean, difference, '+')} over the same "
        f"{counted(comparison.queries, 'query', 'queries')} of "
        f"{counted(comparison.people, 'person', 'people')}, in pairs. {verdict(difference)}"
    )
    unpaired = comparison.only_here + comparison.only_there
    if unpaired:
        words += f" Without {counted(unpaired, 'query', 'queries')} that only one of the two has."
    parts = [f"<p>{escape(words)}</p>"]
    if comparison.by_viewpoint:
        rows = [
            (f"{share.kind[0]}° to {share.kind[1]}°", _value(share.difference.mean, share.difference, "+"),
             f"{share.queries:,}", f"{share.people:,}")
            for share in comparison.by_viewpoint
        ]  # fmt: skip
        caption = "By difference of viewpoint between query and right photo, the other right photos left out:"
        parts.append(_table(caption, ("turned by", "difference in mAP", "queries", "people"), rows))
    pairs = most_changed(comparison.by_camera_pair)
    rows = [
        (f"{found.camera_name(share.kind[0])} → {found.camera_name(share.kind[1])}",
         _value(share.difference.mean, share.difference, "+"), f"{share.queries:,}", f"{share.people:,}")
        for share in pairs
    ]  # fmt: skip
    most = "" if len(pairs) == len(comparison.by_camera_pair) else ", those that gain and lose most"
    caption = f"By cameras of query and gallery, each pair on its own{most} (of many pairs some differ by chance):"
    parts.append(_table(caption, ("cameras", "difference in mAP", "queries", "people"), rows))
    return "".join(parts)


def verdict(difference: Interval) -> str:
    """What an interval of a difference says."""
    if difference.bounds is None:
        return "One person tells nothing."
    if difference.low > 0:
        return "Better: the interval lies above 0."
    if difference.high < 0:
        return "Worse: the interval lies below 0."
    return "The interval holds 0: these people do not tell which is better."


_MEANS_OF = {"train": "training", "gallery": "gallery"}


def _value(value: float, interval: Interval, sign: str = "") -> str:
    bounds = "" if interval.bounds is None else f" [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"
    return f"{value:{sign}.3f}{bounds}"


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    lines = [
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    ]
    return (
        f'<p class="caption">{escape(caption)}</p>'
        f'<figure><table class="plain"><tr>{titles}</tr>{"".join(lines)}</table></figure>'
    )
