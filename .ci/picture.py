"""The pictures of the README: the first screen of a run's page, in a browser, light and dark.

``python .ci/picture.py RUN`` writes page-light.png and page-dark.png of RUN/report.html into
docs/images.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1280, 800
"""Pixels. Chosen: the window of a small laptop."""
MOST_BYTES = 200_000
"""Chosen: two pictures that a README loads at once."""
COLOURS = 128
"""Chosen: a page of text and lines loses nothing that can be seen, and half of its bytes."""
SCHEMES = {"light": 1, "dark": 0}
"""How Chromium numbers the reader's preference (preferredColorScheme of its blink-settings)."""


def picture(browser: str, page: Path, scheme: str, target: Path) -> None:
    """Open a page and keep its first screen, as a PNG with few colours."""
    from PIL import Image  # of matplotlib

    with tempfile.TemporaryDirectory() as profile:
        shot = Path(profile) / "shot.png"
        arguments = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--hide-scrollbars", f"--user-data-dir={profile}/browser"),
            f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
            f"--window-size={WIDTH},{HEIGHT}",
            # Milliseconds that scripts of the page may draw for, as the page counts time.
            "--virtual-time-budget=5000",
            f"--screenshot={shot}",
        ]
        done = subprocess.run(
            [browser, *arguments, page.resolve().as_uri()],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "TZ": "UTC"},
        )
        if not shot.exists():
            sys.exit(f"{browser} made no picture of {page}:\n{done.stderr}")
        with Image.open(shot) as found:
            found.convert("RGB").quantize(COLOURS).save(target, optimize=True)


def main() -> None:
    """Write both pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run directory with a report.html")
    folder = ROOT / "docs" / "images"
    parser.add_argument("--out", type=Path, default=folder, help="folder (default: docs/images)")
    arguments = parser.parse_args()

    page = arguments.run / "report.html"
    if not page.is_file():
        sys.exit(f"{page} is not there; write it first: python -m harness report {arguments.run}")
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is installed; a picture needs a browser")

    for scheme in SCHEMES:
        target = arguments.out / f"page-{scheme}.png"
        picture(browser, page, scheme, target)
        size = target.stat().st_size
        print(f"{target}: {size:,} B")
        if size > MOST_BYTES:
            sys.exit(f"{target} has {size:,} B; more than {MOST_BYTES:,} are too many for a README")


if __name__ == "__main__":
    main()
