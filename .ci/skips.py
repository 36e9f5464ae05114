"""Fail when a test was skipped that should have run: python .ci/skips.py JUNIT_XML ALLOWED."""

import sys
from pathlib import Path
from xml.etree import ElementTree as ET


def main(junit: str, allowed: str) -> int:
    """Print each unexpected skip with its reason; 1 if there is one, or if nothing ran."""
    lines = (
        line.partition("#")[0].strip()
        for line in Path(allowed).read_text(encoding="utf-8").splitlines()
    )
    expected = {line for line in lines if line}
    cases = list(ET.parse(junit).iter("testcase"))  # noqa: S314 - pytest wrote it a moment ago
    skipped = {
        f"{case.get('classname')}::{case.get('name')}": case.find("skipped") for case in cases
    }
    wrong = {
        name: skip.get("message", "")
        for name, skip in skipped.items()
        if skip is not None and name not in expected
    }
    for name, reason in sorted(wrong.items()):
        print(f"skipped, but should have run: {name}: {reason}")
    print(f"{len(cases)} tests, {len(wrong)} wrongly skipped")
    return 1 if wrong or not cases else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
