"""The limits that hold, scenario by scenario, out of the policy: ``python -m scenarios.limits --out
docs/limits.md``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.errors import HarnessError
from harness.judge.policy import DEFAULT_POLICY, read_policy
from scenarios.limits.table import page


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page, or write it: exit code 0, 2 where the policy or the file is of no use."""
    parser = argparse.ArgumentParser(prog="python -m scenarios.limits", description=__doc__)
    parser.add_argument(
        "--policy",
        type=Path,
        default=DEFAULT_POLICY,
        metavar="FILE",
        help=f"default: {DEFAULT_POLICY}",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="where to write it; without, it is printed"
    )
    options = parser.parse_args(arguments)
    try:
        text = page(read_policy(options.policy))
        if options.out is None:
            print(text, end="")
        else:
            options.out.write_text(text, encoding="utf-8")
    except HarnessError as error:
        print(f"limits: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"limits: {options.out} cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
