"""The report as one HTML file: pictures inside it, no script, nothing fetched."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np
from PIL import Image

from jgcl_ray.evaluation.assessment import Assessment
from jgcl_ray.evaluation.bootstrap import RESAMPLES, SEED
from jgcl_ray.evaluation.clusters import Clustering
from jgcl_ray.evaluation.comparison import Comparison
from jgcl_ray.evaluation.plots import chance_cmc
from jgcl_ray.evaluation.ranking import CameraPair
from jgcl_ray.evaluation.tables import WORDS, comparison_tables, corrections_table, verdict, viewpoints_table
from jgcl_ray.ownership import PAGE_MARK
from jgcl_ray.wording import counted

CLUSTERS_TITLE = "Clusters: what is taken for one person"

_STYLE = """
:root { color-scheme: light; --ink: #1d2329; --pale: #5d6872; --line: #dfe3e7; --good: #1a8a4a; --bad: #c4302b; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f6f7; color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", Roboto,
  "Helvetica Neue", "Liberation Sans", Arial, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 6px; }
h2 { font-size: 20px; margin: 0 0 6px; }
p { margin: 0 0 12px; max-width: 78ch; }
.what { color: var(--pale); max-width: none; overflow-wrap: anywhere; }
nav { margin: 14px 0 22px; font-size: 14px; }
nav a { color: #1f6fb2; margin-right: 16px; text-decoration: none; white-space: nowrap; }
nav a:hover { text-decoration: underline; }
section { background: white; border: 1px solid var(--line); border-radius: 8px; padding: 20px 22px;
  margin: 0 0 20px; }
.tiles { display: flex; flex-wrap: wrap; gap: 14px; margin: 0 0 20px; }
.tile { flex: 1 1 150px; background: white; border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; }
.tile b { display: block; font-size: 30px; line-height: 1.15; font-variant-numeric: tabular-nums; }
.tile span { color: var(--pale); font-size: 14px; }
.bar { height: 5px; border-radius: 3px; background: #e8ebee; margin: 9px 0 2px; }
.bar i { display: block; height: 100%; border-radius: 3px; background: #1f6fb2; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 20px; }
.two section { border-top: 4px solid var(--good); }
.two section.bad { border-top-color: var(--bad); }
ul { margin: 0; padding-left: 20px; }
li { margin: 4px 0; }
figure { margin: 10px 0 0; overflow-x: auto; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption, .caption { color: var(--pale); font-size: 14.5px; max-width: 92ch; }
table { border-collapse: separate; border-spacing: 3px; margin: 12px 0 4px; font-variant-numeric: tabular-nums; }
th, td { white-space: nowrap; }
th { font-weight: 600; font-size: 13px; color: var(--pale); padding: 4px 8px; text-align: center; }
td { min-width: 66px; padding: 5px 8px; text-align: center; border-radius: 4px; font-size: 15px; line-height: 1.25; }
td small { display: block; font-size: 11.5px; opacity: .8; }
table.plain th:first-child { text-align: left; }
table.plain td { background: #f3f5f7; }
td.none { color: #b4bbc2; }
footer { color: var(--pale); font-size: 14px; }
@media (max-width: 700px) { .two { grid-template-columns: 1fr; } }
@media print { body { background: white; } section { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Picture:
    """A picture of the report; `name` is that of its file."""

    name: str
    title: str
    caption: str  # plain text
    image: Image.Image
    photos: bool = False  # put into the page as JPEG, a tenth of the size


@dataclass(frozen=True)
class Findings:
    """What is good and what is bad, a sentence each."""

    good: list[str]
    bad: list[str]


def render_page(
    found: Assessment,
    encoder: str,
    clustering: Clustering,
    pictures: Sequence[Picture],
    comparison: Comparison | None = None,
) -> str:
    """The whole page. encoder: a line that describes it. comparison: with another encoder."""
    findings = find(found, clustering, comparison)
    parts = [_Part(picture.name, picture.title, _figure(picture)) for picture in pictures]
    tables = []
    if comparison is not None:
        tables.append(_Part("against", "Against another encoder", comparison_tables(comparison, found)))
    if found.corrected:
        tables.append(_Part("corrected", "Corrections without training", corrections_table(found)))
    if found.camera_pairs:
        tables.append(_Part("cameras", "Camera by camera", _camera_table(found.camera_pairs, found)))
    if found.by_viewpoint:
        tables.append(_Part("viewpoints", "Viewpoint by viewpoint", viewpoints_table(found)))
    parts[1:1] = tables
    words = f"<p>{escape(_clustering_words(clustering))}</p>"
    if clustering.clusters:
        parts = [replace(part, body=words + part.body) if part.name == "clusters" else part for part in parts]
    else:
        parts.append(_Part("clusters", CLUSTERS_TITLE, words))
    title = f"Evaluation on {found.dataset.name}"
    people = len(np.unique(found.labels.query_identities))
    cameras = len(np.union1d(found.labels.query_cameras, found.labels.gallery_cameras))
    set_words = (
        f"{found.result.queries:,} queries of {people:,} people against {len(found.gallery):,} gallery photos, "
        f"{counted(cameras, 'camera')}; {found.dataset.root}"
    )
    skipped = len(found.query) - found.result.queries
    set_words += f"; without {counted(skipped, 'query', 'queries')} that have no match" if skipped else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{PAGE_MARK}
<title>{escape(title)}: mAP {found.result.mAP:.3f}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p class="what">{escape(encoder)}<br>{escape(set_words)}</p>
<nav>{" ".join(f'<a href="#{part.name}">{escape(part.title.partition(":")[0])}</a>' for part in parts)}</nav>
{_tiles(found)}
<div class="two">
<section><h2>What is good</h2>{_list(findings.good)}</section>
<section class="bad"><h2>What is bad</h2>{_list(findings.bad)}</section>
</div>
{"".join(_section(part) for part in parts)}
<footer>
<p>{_protocol_words(found)} mAP: mean over the queries of the average precision, the mean precision at each right
photo; its 95&#8239;% interval by bootstrap over people ({RESAMPLES:,} resamples, seed {SEED}). rank-k: share of
queries with a right photo among the first k. mINP: mean of the number of right photos divided by the rank of the last
of them.{_reranking_words(found)} The pictures lie beside this page as PNG files, all numbers in scores.json.</p>
</footer>
</main>
</body>
</html>
"""


def find(found: Assessment, clustering: Clustering, comparison: Comparison | None = None) -> Findings:
    """The sentences at the top of the page."""
    good: list[str] = []
    bad: list[str] = []
    result, queries = found.result, found.result.queries
    firsts = result.first_matches[result.first_matches > 0]
    right, lost = int((firsts == 1).sum()), int((firsts > 10).sum())
    guess = chance_cmc(found.labels, 1)[0]
    first = f"{right:,} of {counted(queries, 'query', 'queries')} ({right / queries:.0%}) have the right person first"
    if result.cmc[0] < 3 * guess:
        bad.append(
            f"{first}; a random order would reach {guess:.0%}: the encoder has hardly learnt to tell people apart."
        )
    else:
        (good if right * 2 >= queries else bad).append(f"{first}; a random order would reach {guess:.1%}.")
    if lost:
        bad.append(f"{lost:,} queries ({lost / queries:.0%}) have no right photo among the first ten.")
    else:
        good.append("Every query has a right photo among the first ten.")
    if found.before_reranking is not None:
        gain = result.mAP - found.before_reranking.mAP
        words = f"Re-ranking changes mAP by {gain:+.3f}, from {found.before_reranking.mAP:.3f}."
        (good if gain > 0 else bad).append(words)
    if comparison is not None:
        words = f"mAP {comparison.difference.mean:+.3f} against {comparison.other.path}: "
        text = verdict(comparison.difference)
        (good if comparison.difference.mean > 0 else bad).append(words + text[0].lower() + text[1:])
    good += [
        f"Without training, {WORDS[one.name]} would give mAP {one.result.mAP:.3f} ({one.difference.mean:+.3f})."
        for one in found.corrected
        if one.difference.low > 0
    ]
    if found.camera_pairs and len(found.camera_pairs) > 1:
        ordered = sorted(found.camera_pairs, key=lambda pair: pair.mAP)
        good.append(f"Easiest cameras: {_pair_words(ordered[-1], found)}.")
        bad.append(f"Hardest cameras: {_pair_words(ordered[0], found)}.")
    pure, mixed = (sum(getattr(cluster, kind) for cluster in clustering.clusters) for kind in ("pure", "mixed"))
    if total := pure + mixed:
        if pure:
            good.append(
                f"Of {total} clusters with known people, {pure} hold{'s' if pure == 1 else ''} one person only."
            )
        if mixed:
            verb = "mixes people or holds" if mixed == 1 else "mix people or hold"
            bad.append(f"Of {total} clusters with known people, {mixed} {verb} distractors.")
        if clustering.split_people:
            bad.append(
                f"{clustering.split_people} of {clustering.people} clustered people are in two clusters or more."
            )
    if clustering.quality.num_outliers:
        share = clustering.quality.num_outliers / len(found.gallery)
        bad.append(f"{clustering.quality.num_outliers:,} gallery photos ({share:.0%}) are in no cluster.")
    return Findings(good, bad)


@dataclass(frozen=True)
class _Part:
    name: str
    title: str
    body: str  # HTML


def _section(part: _Part) -> str:
    return f'<section id="{part.name}"><h2>{escape(part.title)}</h2>{part.body}</section>\n'


def _figure(picture: Picture) -> str:
    content = io.BytesIO()
    kind = "jpeg" if picture.photos else "png"
    if picture.photos:
        picture.image.save(content, "JPEG", quality=88, subsampling=0)
    else:
        picture.image.save(content, "PNG", optimize=True)
    data = base64.b64encode(content.getvalue()).decode()
    width, height = picture.image.size
    image = (
        f'<img src="data:image/{kind};base64,{data}" width="{width}" height="{height}" alt="{escape(picture.title)}">'
    )
    return f'<p class="caption">{escape(picture.caption)}</p><figure>{image}</figure>'


def _tiles(found: Assessment) -> str:
    before = {} if found.before_reranking is None else found.before_reranking.summary()
    tiles = []
    for name, value in found.result.summary().items():
        words = f"{name}<br>before re-ranking {100 * before[name]:.1f}" if before else name
        if name == "mAP" and found.interval.bounds is not None:
            low, high = (100 * bound for bound in found.interval.bounds)
            words += f"<br>95&#8239;% interval {low:.1f} to {high:.1f}, over "
            words += f"{counted(found.people, 'person', 'people')}"
        bar = f'<div class="bar"><i style="width:{100 * value:.1f}%"></i></div>'
        tiles.append(f'<div class="tile"><b>{100 * value:.1f}&#8239;%</b>{bar}<span>{words}</span></div>')
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _list(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences or ["Nothing that stands out."])
    return f"<ul>{items}</ul>"


def _camera_table(pairs: Sequence[CameraPair], found: Assessment) -> str:
    by_place = {(pair.query_camera, pair.gallery_camera): pair for pair in pairs}
    rows, columns = (sorted({place[axis] for place in by_place}) for axis in (0, 1))
    head = "".join(f"<th>{escape(found.camera_name(camera))}</th>" for camera in columns)
    lines = []
    for a in rows:
        cells = []
        for b in columns:
            pair = by_place.get((a, b))
            if pair is None:
                cells.append('<td class="none">–</td>')
                continue
            hue = 8 + 130 * pair.mAP  # red to green
            title = f"{counted(pair.queries, 'query', 'queries')}, {pair.gallery:,} gallery photos"
            cells.append(
                f'<td style="background:hsl({hue:.0f} 62% 83%)" title="{title}">{pair.mAP:.3f}'
                f"<small>rank-1 {pair.rank1:.0%}</small></td>"
            )
        lines.append(f"<tr><th>{escape(found.camera_name(a))}</th>{''.join(cells)}</tr>")
    return (
        '<p class="caption">Queries of one camera (row) against the gallery photos of one other camera (column) and '
        "nothing else: mAP, and rank-1 below. Over the queries that have a right photo there. With fewer photos to "
        "rank, most of these numbers are higher than those of the whole gallery.</p>"
        f"<figure><table><tr><th>from \\ to</th>{head}</tr>{''.join(lines)}</table></figure>"
    )


def _clustering_words(clustering: Clustering) -> str:
    quality = clustering.quality
    words = f"{counted(quality.num_clusters, 'cluster')}; {counted(quality.num_outliers, 'photo')} in no cluster."
    if not np.isnan(quality.eps):
        words += f" Photos count as near up to a Jaccard distance of {quality.eps:.3f}."
    if quality.purity is not None:
        words += (
            f" Held against the true identities: purity {quality.purity:.2f} (photos of their cluster's most "
            f"frequent person), NMI {quality.nmi:.2f}, ARI {quality.ari:.2f}; 1 is perfect."
        )
    return words + (f" Note: {clustering.advice}." if clustering.advice else "")


def _protocol_words(found: Assessment) -> str:
    if found.labels.protocol == "cross_camera":
        return "Across cameras: each query on its own, against the photos of the other cameras; distractors stay in."
    return (
        "Protocol of Market-1501: each query on its own; photos of the same person by the query's camera are left "
        "out of its ranking, distractors stay in."
    )


def _reranking_words(found: Assessment) -> str:
    if found.before_reranking is None:
        return " Ranked by Euclidean distance of normalised embeddings."
    return " Ranked by k-reciprocal re-ranking (Zhong et al., CVPR 2017; k1 20, k2 6, lambda 0.3)."


def _pair_words(pair: CameraPair, found: Assessment) -> str:
    return (
        f"{found.camera_name(pair.query_camera)} → {found.camera_name(pair.gallery_camera)}, mAP {pair.mAP:.3f} and "
        f"rank-1 {pair.rank1:.0%} over {counted(pair.queries, 'query', 'queries')}"
    )
