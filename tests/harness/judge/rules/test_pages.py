"""What is left on the host once a loader has given everything back: pages of the emulated device,
which are nobody's fault.
"""

import pytest

from harness.judge.gate import judge
from harness.judge.policy import parse_policy
from harness.judge.table import load_run
from harness.plugin.limits import host_rule
from harness.records import Point
from harness.words import KIB, MIB

COUNTS = (256, 512, 1024)
PHASES = ("load", "use", "release")
IMAGE = 64 * KIB
BASE = 300 * MIB


def device(count, phase):
    """All images come with ``load``, and go with ``release``."""
    made = count * IMAGE
    return {"load": (0, made, made), "use": (made, made, made), "release": (made, made, 0)}[phase]


def host(count, phase, kept_bytes):
    """The pages of all images from ``load`` on, and what numpy keeps of each image."""
    left = BASE + count * (IMAGE + kept_bytes)
    return (BASE, left, left) if phase == "load" else (left, left, left)


@pytest.fixture
def found(synthetic_run, edges, tmp_path):
    """The findings of a promise about the device and the host: ``found(section, kind of device,
    bytes kept of an image, rule)``.
    """

    def found(section, kind, kept_bytes, **rule):
        synthetic_run.points = [
            Point(
                scenario="own",
                body="own:body",
                parameters={"image_count": count},
                fixed={},
                phases=PHASES,
            )
            for count in COUNTS
        ]
        synthetic_run.declared = lambda _: {}
        synthetic_run.manifest["device"] = {**synthetic_run.run_json()["device"], "kind": kind}
        synthetic_run.amounts = lambda point, _, phase: {
            "device_in_use": edges(*device(point.parameters["image_count"], phase)),
            "host_anon": edges(*host(point.parameters["image_count"], phase, kept_bytes)),
        }
        asked = {"scenarios": ["own"], "meters": ["device_in_use"], "because": "chosen", **rule}
        policy = parse_policy(
            {"schema_version": 1, section: [asked, host_rule(section, asked)]}, "own.toml"
        )
        findings = judge(
            load_run(synthetic_run.write()), policy, tmp_path / "none", partial=True
        ).verdict.findings
        return [check for check in findings if check.rule == section]

    return found


SLOPE = {"over": "image_count", "at_most": "1 KiB", "resolve": "1 KiB"}
PROMISES = [
    ("slope", {**SLOPE, "field": "net_end", "phases": ["release"]}),
    ("budget", {"field": "net_end", "phases": ["release"], "at_most": "1 MiB"}),
    ("budget", {"field": "end", "phases": ["release"], "at_most": "1 MiB"}),
]


@pytest.mark.parametrize(("section", "rule"), PROMISES)
def test_a_loader_that_gives_everything_back_is_red_nowhere(found, section, rule):
    """The device ends where it began, at every size; pages of up to 64 MiB stay with the
    process.
    """
    assert found(section, "emulated", 0, **rule) == []


@pytest.mark.parametrize(("section", "rule"), PROMISES)
def test_what_numpy_keeps_of_every_image_is_red_on_the_host_alone(found, section, rule):
    """And it is as much as numpy keeps, without the pages."""
    checks = found(section, "emulated", IMAGE, **rule)

    assert {check.meter for check in checks} == {"host_anon"}
    assert max(check.measured for check in checks) == pytest.approx(
        IMAGE if section == "slope" else COUNTS[-1] * IMAGE
    )
    assert all(check.because.endswith("less the pages of an emulated device") for check in checks)


def test_memory_of_a_card_is_none_of_the_hosts(found):
    """What stays on the host there is kept by somebody."""
    checks = found("slope", "card", 0, **SLOPE, field="net_end", phases=["release"])

    assert [(check.meter, check.measured) for check in checks] == [
        ("host_anon", pytest.approx(IMAGE))
    ]


def test_what_a_phase_keeps_is_without_the_pages_that_it_touched_itself(found):
    """``load`` holds all images, which is for the device to say; ``net_start`` and ``net_peak`` of
    the next one are alike.
    """
    kept = found("slope", "emulated", 0, **SLOPE, field="retained", phases=["load"])
    began = found("slope", "emulated", 0, **SLOPE, field="net_start", phases=["use"])

    assert {check.meter for check in (*kept, *began)} == {"device_in_use"}


def test_growth_is_as_it_was_read(found):
    """A phase touches no more pages than its device grows by, so that nothing has to be taken
    off.
    """
    checks = found("slope", "emulated", 0, **SLOPE, phases=["load"])

    assert {check.meter for check in checks} == {"device_in_use", "host_anon"}
    assert not any("pages" in check.because for check in checks)
