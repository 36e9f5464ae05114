"""The host's share of a promise that names no meter: the same limit, and on top of it what the
host's readings cannot tell.

A device's readings are exact. The host's are not: threads keep scratch memory, TensorFlow traces
functions in the first epoch, and the pages of the emulated device stay with the process once they
were touched. ``python -m harness doctor`` does not tell how much that is, since it depends on the
body; docs/your-own-loader.md has what clean bodies needed.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

HOST_METER = "host_anon"
"""What a process itself has allocated and holds."""
GROWTH_MORE = "32 MiB"
"""What a phase may take on the host besides twice its limit. Chosen: twice the most that the first
epoch of a clean body took that its device did not, 16.4 MiB (Keras' fit of a small network, which
builds and traces its step in it); 35.6 MiB where the device itself had 43 MiB (a network's scratch
memory), which the doubled limit allows."""
LEAK_MORE = "1 MiB"
"""What each epoch of each run may end with besides. Chosen: twice what every repeat of a clean body
showed, 0.66 MiB and less; single ones showed up to 27 MiB (scratch memory of a network, taken in
the second epoch), which is why all have to."""
OVER_ALL_MORE = "2 MiB"
"""What the largest size may take besides. Measured: batches under way differ by up to 4 of 0.5 MiB
from run to run."""
OVER_ALL_UNSURE = GROWTH_MORE
"""What the interval of a host's slope may leave open over all sizes."""

_NET_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "growth": "growth",
        "retained": "retained",
        "peak": "net_peak",
        "end": "net_end",
        "net_peak": "net_peak",
        "net_end": "net_end",
    }
)
"""TensorFlow alone takes 200 MiB and more of a host, so that amounts are taken over what there was
before the first phase."""


def host_rule(section: str, rule: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a rule about the device, which names no meter, promises of the host; None where it
    promises nothing.

    A floor (at_least) is about what the device's meter has seen, and the start of a phase is that
    of the process.
    """
    if "at_most" not in rule:
        return None
    host = {**rule, "meters": [HOST_METER]}
    host.pop("at_least", None)
    match section:
        case "budget" if rule.get("field", "growth") in _NET_FIELDS:
            host["field"] = _NET_FIELDS[rule.get("field", "growth")]
            host["at_most"] = f"{_doubled(rule['at_most'])} + {GROWTH_MORE}"
            what = (
                f"twice as much and {GROWTH_MORE}, since what is on its way to a device is "
                "there as well"
            )
            return _without_pages(_explained(host, what))
        case "leak" if rule["field"] == "end":
            host |= {"at_most": f"{rule['at_most']} + {LEAK_MORE}", "every_time": True}
            return _explained(host, f"{LEAK_MORE} more, which its readings may differ by")
        case "leak":
            host["at_most"] = f"{rule['at_most']} + {GROWTH_MORE}"
            return _explained(host, f"{GROWTH_MORE} more, which its peaks may differ by")
        case "slope":
            host |= {"at_most_over_all": OVER_ALL_MORE, "resolve_over_all": OVER_ALL_UNSURE}
            return _without_pages(
                _explained(
                    host, f"{OVER_ALL_MORE} more over all sizes, which its readings may differ by"
                )
            )
    return None


def _without_pages(rule: dict[str, Any]) -> dict[str, Any]:
    """Growth alone has no more pages of the emulated device than the device itself grew by in the
    phase.
    """
    if rule.get("field", "growth") == "growth":
        return rule
    return {
        **rule,
        "without_device_pages": True,
        "because": f"{rule['because']}, less the pages of an emulated device",
    }


def _doubled(amount: str) -> str:
    """Twice an amount that the policy has accepted."""
    number, rest = re.fullmatch(r"\s*([0-9.]+)(.*)", amount, re.DOTALL).groups()  # type: ignore[union-attr]
    return f"{2 * float(number):g}{rest}"


def _explained(rule: Mapping[str, Any], what: str) -> dict[str, Any]:
    return {**rule, "because": f"{rule['because']}: on the host {what}"}
