"""report.html opened in headless Chromium: nothing fetched, nothing to complain of, every picture decoded and shown."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from made_results import make_results
from PIL import Image

from stay_diffusion.pages.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt-get install chromium)")

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
FLAGS += ["--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
FLAGS += ["--enable-logging=stderr", "--dump-dom"]
# Added to the page, which itself may run no script.
PROBE = """<script>addEventListener("load", () => {
  const found = {
    images: [...document.images].map(image => [image.naturalWidth, image.getBoundingClientRect().width]),
    fetched: performance.getEntriesByType("resource").map(entry => entry.name),
    titles: [...document.querySelectorAll("h3")].map(title => title.innerText),
    wide: document.documentElement.scrollWidth - innerWidth,
    charts: [...document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect().height),
  };
  document.body.append(Object.assign(document.createElement("pre"), {id: "probe", textContent: JSON.stringify(found)}));
});</script>"""
NAMES = ["spots", "<script>alert(1)</script>", "Kratzer über ß 漢字"]


class Seen(NamedTuple):
    """What the probe found, and the lines of the browser's console."""

    found: dict
    console: list[str]


@pytest.fixture
def look(tmp_path):
    def at(page: Path, more: str = "") -> Seen:
        text = page.read_text(encoding="utf-8")
        allowed = text.replace("style-src 'unsafe-inline'", "style-src 'unsafe-inline'; script-src 'unsafe-inline'")
        assert allowed != text
        probed = tmp_path / "a folder" / "probed.html"
        probed.parent.mkdir()
        probed.write_text(allowed.replace("</body>", f"{more}{PROBE}</body>"), encoding="utf-8")
        command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", probed.as_uri()]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
        found = re.search('<pre id="probe">(.*?)</pre>', ended.stdout, re.S)
        assert found, ended.stderr
        return Seen(json.loads(unescape(found[1])), re.findall("CONSOLE.*", ended.stderr))

    return at


@pytest.fixture
def page(tmp_path):
    """Of pictures small and large, deep, in colour and wide, and a good part; one is near a training picture."""
    rng = np.random.default_rng(0)
    Image.new("L", (90, 90), 40).save(tmp_path / "train.png")
    images = [
        Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)),
        Image.fromarray(rng.integers(0, 65535, (700, 900), dtype=np.uint16)),
        Image.fromarray(rng.integers(0, 255, (300, 1200, 3), dtype=np.uint8)),
        Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)),
    ]
    boxes = [(0, 0, 0.2, 0.2), (0.4, 0.3, 0.6, 0.9), (0.8, 0.8, 1, 1)]
    layouts = [list(zip(NAMES, boxes, strict=True))] * 3 + [[]]
    copy = {"similarity": 0.97, "box": 1, "file": str(tmp_path / "train.png"), "training_box": [10, 10, 40, 40]}
    copies = {1: {**copy, "training_label": NAMES[1]}}
    return write_report(make_results(tmp_path, layouts, images, scores=[[0.9, 0.5, 0.1]] * 3 + [[]], copies=copies))


def test_every_picture_is_decoded_and_shown_and_nothing_is_fetched(page, look):
    seen = look(page)
    assert len(seen.found["images"]) == page.read_text(encoding="utf-8").count("<img") >= 3 * 3 + 3 + 2 + 1
    assert all(width > 0 and shown > 0 for width, shown in seen.found["images"])
    assert seen.found["fetched"] == [] and seen.console == []
    assert seen.found["titles"] == sorted(NAMES) and seen.found["wide"] <= 0
    assert len(seen.found["charts"]) > 8 and all(height > 0 for height in seen.found["charts"])


def test_the_browser_would_tell_of_what_is_broken_or_fetched(page, look):
    seen = look(page, '<img src="data:image/png;base64,AAAA"><img src="http://127.0.0.1:9/x.png">')
    assert [width for width, _ in seen.found["images"][-2:]] == [0, 0]
    assert seen.found["fetched"] == ["http://127.0.0.1:9/x.png"] and "Content Security Policy" in seen.console[0]
