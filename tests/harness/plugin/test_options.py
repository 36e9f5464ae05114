"""Settings of a session: from an option, from the run that is resumed, or their default; and the
way to a worker and back.
"""

import dataclasses
import json
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.plugin.options import SessionSettings, settle_settings


def settled(pytester, *arguments, resumed=None):
    """The settings of a session that is started with these arguments."""
    return settle_settings(pytester.parseconfig(*arguments), resumed)


RESUMED = {
    f"memory_{field.name}": field.default
    for field in dataclasses.fields(SessionSettings)
    if field.name not in ("repeats_given", "points")
} | {"memory_repeats": 5, "memory_device": "cpu"}


def test_without_options_each_setting_has_its_default(pytester):
    """And no option is written to."""
    config = pytester.parseconfig()
    before = dict(vars(config.option))

    assert settle_settings(config, None) == SessionSettings()
    assert vars(config.option) == before


def test_an_option_goes_before_the_default(pytester):
    """Patterns and the wish for repeats among them."""
    options = ("--memory-repeats", "7", "--memory-points", "a*", "--memory-points", "b")

    assert settled(pytester, *options) == SessionSettings(
        repeats=7, repeats_given=True, points=("a*", "b")
    )


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("out", "runs/mine", Path("runs/mine")),
        ("resume", "runs/mine", Path("runs/mine")),
        ("repeats", "3", 3),
        ("device-budget", "64MiB", 64 * 1024**2),
        ("host-budget", "1.5 GiB", 1536 * 1024**2),
        ("timeout", "2.5", 2.5),
    ],
)
def test_the_text_of_an_option_is_read_when_it_is_given(pytester, option, text, value):
    """By a function of the command line that is loaded with the first text."""
    config = pytester.parseconfig(f"--memory-{option}", text)

    assert config.getoption(f"memory_{option.replace('-', '_')}") == value


def test_a_resumed_run_goes_before_the_default(pytester):
    """What it was started with is known; whether repeats were given is its own affair."""
    assert settled(pytester, resumed=RESUMED) == SessionSettings(repeats=5, device="cpu")


def test_the_value_of_the_resumed_run_may_be_given_again(pytester):
    """It contradicts nothing."""
    assert settled(pytester, "--memory-repeats", "5", resumed=RESUMED).repeats == 5


def test_an_option_that_contradicts_the_resumed_run_is_refused(pytester):
    """With what the run was started with."""
    with pytest.raises(UsageError, match=r"^--memory-repeats 4 was given, but .* with 5; "):
        settled(pytester, "--memory-repeats", "4", resumed=RESUMED)


def test_a_worker_reads_back_what_the_controller_has_settled(pytester):
    """Through JSON, as xdist hands it over."""
    options = ("--memory-device-budget", "1GiB", "--memory-no-trace", "--memory-points", "a*")
    settings = settled(pytester, *options)

    assert SessionSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    assert (settings.device_budget, settings.traces, settings.points) == (1024**3, False, ("a*",))


def test_settings_cannot_be_changed():
    """They are settled once."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        SessionSettings().repeats = 3
