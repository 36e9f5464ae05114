"""Checksums that a run gets at its end, so that a file that was cut, continued or edited later is
noticed.

They are no signature: who edits a file on purpose can write new checksums as well. Against that
stands the reviewer, who sees the run that an acceptance names, and the machine that measures again.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "seal"
"""Key of run.json; absent until the run has ended."""


def seal_of(manifest: Mapping[str, Any], rows: bytes) -> dict[str, str | int]:
    """The seal of a run whose run.json holds ``manifest`` and whose rows.jsonl holds ``rows``.

    The plan's checksum is over all of run.json but the seal itself, whatever the order of its keys.
    """
    plan = {name: value for name, value in manifest.items() if name != SEAL}
    canonical = json.dumps(plan, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return {
        "plan_sha256": digest(canonical.encode()),
        "rows_bytes": len(rows),
        "rows_sha256": digest(rows),
    }


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
