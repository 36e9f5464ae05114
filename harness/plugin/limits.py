"""Arguments of ``@pytest.mark.memory`` that promise something: short forms to rules of a policy,
each one checked.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from harness.errors import PolicyError, UsageError
from harness.meters import DEVICE_IN_USE, HOST_ANON, MEASURED_METERS
from harness.words import closest, nearest

SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "budgets": "budget",
        "slopes": "slope",
        "leaks": "leak",
        "growth_class": "growth_class",
        "arithmetic": "arithmetic",
    }
)
"""Arguments of the marker, and the section of a policy that each becomes."""

SCHEMA_VERSION = 1
"""Of the policy that is made of them (harness.judge.policy)."""
FURTHER_REPEATS = 3
"""How often an offender is measured again. Chosen: with the two planned that makes five, of which
three decide."""
REMEASURE: Mapping[str, Any] = MappingProxyType(
    {
        "repeats": FURTHER_REPEATS,
        "because": (
            "With the two planned that makes five, of which three decide: no single run does."
        ),
    }
)
"""The same, as a policy says it."""
DEFAULT_OVER = "image_count"
"""What a slope is over where no test says so and none has a whole-number parameter yet."""

_DEFAULT_FIELDS: Mapping[str, str] = MappingProxyType({"leak": "end"})
"""The amount that a rule is about which names none; of all others it is growth, the policy's own
default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Promise:
    """One argument of one marker: what its rules have in common."""

    argument: str
    because: str
    """Whose marker it is."""
    phases: Sequence[str]
    """Those of the test, as far as they are known."""
    over: str
    """The parameter of slopes that name none."""

    @property
    def section(self) -> str:
        """The section of a policy that the argument becomes."""
        return SECTIONS[self.argument]


def read_rules(
    argument: str, value: object, *, because: str, phases: Sequence[str], over: str
) -> list[dict[str, Any]]:
    """The rules of one argument, complete but for the points that they are about.

    ``because`` says whose marker it is; ``phases`` are those of the test, as far as they are known;
    ``over`` is the parameter of slopes that name none. Raises UsageError, one sentence for each
    mistake.
    """
    if value is None:
        raise UsageError(f"{argument} is None; leave it out where nothing is promised")
    entries = list(value) if isinstance(value, list | tuple) else [value]
    if not entries:
        raise UsageError(f"{argument} is an empty list; leave it out where nothing is promised")
    promise = _Promise(argument=argument, because=because, phases=phases, over=over)
    return [rule for entry in by_meters(entries) for rule in _with_host_rule(promise, entry)]


def _with_host_rule(promise: _Promise, entry: object) -> list[dict[str, Any]]:
    """The rule, and that of the host beside it where none of the meters is named."""
    rule = _keys(promise, entry)
    names_meters = "meters" in rule
    _complete(promise, rule)
    _check(promise, rule)
    host = None if names_meters else host_rule(promise.section, rule)
    if host is None:
        return [rule]
    _check(promise, host)
    return [rule, host]


def _keys(promise: _Promise, entry: object) -> dict[str, Any]:
    if isinstance(entry, Mapping):
        return {str(name): each for name, each in entry.items()}
    if promise.section == "arithmetic":
        raise UsageError(
            f"{promise.argument}: {entry!r} is no dict; write "
            "{'declared': 'image', 'within_percent': 2}"
        )
    if isinstance(entry, str):
        return {"at_most": entry}
    raise UsageError(
        f"{promise.argument}: {entry!r} is no limit; write an amount, as '16 MiB', or a dict, as "
        "{'at_most': '16 MiB'}"
    )


def _complete(promise: _Promise, rule: dict[str, Any]) -> None:
    """Give a rule what it does not say itself."""
    from harness.judge.policy import is_swept  # pydantic, which only sessions with limits need

    section = promise.section
    if "scenarios" in rule:
        raise UsageError(
            f"{promise.argument} names scenarios; a marker's limits are about its own tests: leave "
            "it out"
        )
    for name in ("meters", "phases"):
        if isinstance(rule.get(name), str):
            rule[name] = [rule[name]]
    rule.setdefault("meters", [DEVICE_IN_USE])
    if section in _DEFAULT_FIELDS:
        rule.setdefault("field", _DEFAULT_FIELDS[section])
    if is_swept(section):
        rule.setdefault("over", promise.over)
    if section == "slope" and "at_most" in rule:
        # The interval of the slope has to be below the limit: what may be more than the limit is no
        # pass.
        rule.setdefault("resolve", rule["at_most"])
    if section == "leak" and "phases" not in rule:
        rule["phases"] = _repeated_phases(promise)
    reason = str(rule.get("because") or "").strip()
    rule["because"] = f"{promise.because}: {reason}" if reason else promise.because


def _repeated_phases(promise: _Promise) -> list[str]:
    found, argument = repeated(promise.phases), promise.argument
    if not found:
        raise UsageError(
            f"{argument} compares phases that do the same one after the other; say which, as "
            f"{argument}={{'at_most': '64 KiB', 'phases': ['epoch_0', 'epoch_1']}}"
        )
    return found


def by_meters(entries: Sequence[object]) -> Iterator[object]:
    """The entries, one for each meter where limits are given by their names: ``{"device_in_use":
    "64 KiB"}``.
    """
    for entry in entries:
        if isinstance(entry, Mapping) and entry and not set(entry) - set(MEASURED_METERS):
            for meter, limit in entry.items():
                yield {
                    **(limit if isinstance(limit, Mapping) else {"at_most": limit}),
                    "meters": [meter],
                }
        else:
            yield entry


def _check(promise: _Promise, rule: Mapping[str, Any]) -> None:
    """Raises UsageError for a rule that no policy could have, and for unknown meters and phases."""
    # pydantic is loaded where a marker promises something, nowhere else
    from harness.judge.policy import parse_policy

    argument, section = promise.argument, promise.section
    policy = {"schema_version": SCHEMA_VERSION, section: [{**rule, "scenarios": ["any"]}]}
    try:
        parse_policy(policy, argument)
    except PolicyError as error:
        raise UsageError(_of_a_marker(str(error), section, rule)) from error
    _refuse_unknown(argument, "meter", rule["meters"], MEASURED_METERS)
    if promise.phases:
        _refuse_unknown(argument, "phase", rule.get("phases") or (), promise.phases)


def _of_a_marker(sentence: str, section: str, rule: Mapping[str, Any]) -> str:
    """What the policy says of a rule, in the words of a marker: it has no number and no
    scenarios.
    """
    said = sentence.replace(f": [[{section}]] number 1", "")
    said = said.replace("because, scenarios, where", "because, where")
    if "unknown key" not in said:
        return said
    near = (closest(key, MEASURED_METERS) for key in rule if key not in MEASURED_METERS)
    meter = next(filter(None, near), "")
    return f"{said.partition(';')[0]}; did you mean the meter {meter!r}?" if meter else said


def _refuse_unknown(argument: str, what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(
                f"{argument} names the unknown {what} {name!r}; {nearest(name, known)}"
            )


# What the names of phases say: which of them do the same one after the other.


def repeated(phases: Sequence[str]) -> list[str]:
    """Phases that do the same, by their numbers (``epoch_0``, ``epoch_1``); empty where there are
    none, or several kinds.
    """
    families: dict[str, list[str]] = {}
    for phase in phases:
        if numbered := re.fullmatch(r"(.*?)\d+", phase):
            families.setdefault(numbered[1], []).append(phase)
    found = [family for family in families.values() if len(family) > 1]
    return found[0] if len(found) == 1 else []


# The host's share of a promise that names no meter: the same limit, and on top of it what the
# host's readings cannot tell. A device's readings are exact. The host's are not: threads keep
# scratch memory, TensorFlow traces functions in the first epoch, and the pages of the emulated
# device stay with the process once they were touched. How much that is depends on the body, so that
# ``python -m harness doctor`` does not say it; docs/your-own-loader.md has what clean bodies
# needed.


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
    host = {**rule, "meters": [HOST_ANON]}
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
