"""The page in headless Chromium, from a file, without a network."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jgcl_ray.evaluation.assessment import Assessment

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

# Runs at the end of a copy of the page, and leaves in it what the browser made of the page.
PROBE = """
<script>
addEventListener("load", () => {
  const seen = {
    images: [...document.images].map(i => [i.alt, i.complete, i.naturalWidth, i.getBoundingClientRect().width]),
    requests: performance.getEntriesByType("resource").map(entry => entry.name),
    targets: [...document.querySelectorAll("nav a")].map(a => document.getElementById(a.hash.slice(1)) !== null),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    title: document.title,
    headings: [...document.querySelectorAll("h2")].map(heading => heading.textContent),
    cells: [...document.querySelectorAll("td")].length,
  };
  const place = document.createElement("pre");
  place.id = "probe";
  place.textContent = JSON.stringify(seen);
  document.body.append(place);
});
</script>
"""


def look(page: Path, width: int, profile: Path) -> dict[str, Any]:
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
             "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", f"--window-size={width},2000",
             "--virtual-time-budget=10000", "--dump-dom"]  # fmt: skip
    shown = subprocess.run([CHROMIUM, *flags, page.as_uri()], capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="probe">(.*?)</pre>', shown.stdout, re.DOTALL)
    assert found is not None, f"Chromium showed nothing: {shown.stderr[-2000:]}"
    return json.loads(html.unescape(found[1]))


@pytest.fixture(scope="module")
def page(written: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    probed = tmp_path_factory.mktemp("elsewhere") / "probed.html"  # alone: what lies beside the page is not there
    text = next(path for path in written if path.suffix == ".html").read_text(encoding="utf-8")
    assert "</body>" in text
    probed.write_text(text.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    return probed


@pytest.mark.parametrize("width", [1200, 600])
def test_page_is_whole_by_itself(page: Path, found: Assessment, tmp_path: Path, width: int) -> None:
    seen = look(page, width, tmp_path / "profile")
    assert len(seen["images"]) == 7
    for name, complete, natural, shown in seen["images"]:
        assert complete and natural > 300, name
        assert 0 < shown <= width, name
    assert seen["requests"] == []
    assert seen["targets"] and all(seen["targets"])
    assert seen["overflow"] <= 0
    assert f"{found.result.mAP:.3f}" in seen["title"]
    assert {"What is good", "What is bad", "Accuracy", "Camera by camera", "Best queries"} <= set(seen["headings"])
    assert seen["cells"] == 9  # three cameras by three
