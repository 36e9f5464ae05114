"""A sentence is about its field: every rule x field against readings that would make a careless
sentence false.
"""

import itertools

import pytest

from harness.judge.gate import judge
from harness.judge.policy import parse_policy
from harness.judge.rules.fields import (
    FIELDS,
    amount_in_words,
    at_edges,
    beside,
    leak_in_words,
    search,
    slope_verb,
)
from harness.judge.rules.findings import Edges
from harness.judge.rules.sentences import closed
from harness.judge.table import load_run
from harness.records import Point
from harness.words import MIB

COUNTS = (64, 128, 256)
PHASES = ("open", "use", "release")
OTHER = {"open": "0", "use": "0", "release": "0"}

# Shapes of a phase, as multiples of one size: start, peak, end.
HELD = (1, 1, 1)
TAKEN = (0, 1, 1)
TEMPORARY = (0, 1, 0)
GIVEN_BACK = (1, 1, 0)
HALF_KEPT = (0, 2, 1)
SWAPPED = (1, 2, 1)
SHAPES = (HELD, TAKEN, TEMPORARY, GIVEN_BACK, HALF_KEPT, SWAPPED)


def fields_of(model):
    """What a policy may name as the field of a rule."""
    from harness.judge import limits

    return getattr(limits, model).model_fields["field"].annotation.__args__


def run_of(synthetic_run, edges, amounts, counts=COUNTS, phases=PHASES):
    """A run of one scenario; ``amounts(count, phase, repeat)`` is start, peak and end in bytes, of
    both meters.
    """
    synthetic_run.points = [
        Point(
            scenario="own",
            body="own:body",
            parameters={"image_count": count},
            fixed={},
            phases=phases,
        )
        for count in counts
    ]
    synthetic_run.declared = lambda _: {}

    def readings(point, repeat, phase):
        found = edges(*amounts(point.parameters["image_count"], phase, repeat))
        return {"device_in_use": found, "host_anon": found}

    synthetic_run.amounts = readings
    return load_run(synthetic_run.write())


def finding_of(run, tmp_path, section, **rule):
    """The one finding of one rule about the phase ``use``."""
    shared = {"scenarios": ["own"], "meters": ["device_in_use"], "because": "chosen"}
    policy = parse_policy({"schema_version": 1, section: [{**shared, **rule}]}, "own.toml")
    findings = judge(run, policy, tmp_path / "none", partial=True).verdict.findings
    return [check for check in findings if check.rule in (section, "floor")]


def shaped(shape, bytes_per_image=MIB):
    """The phase ``use`` has this shape; nothing is anywhere else, but what it began with."""
    start, peak, end = shape

    def amounts(count, phase, _repeat):
        unit = count * bytes_per_image
        if phase == "open":
            return (0, start * unit, start * unit)
        return (
            (start * unit, peak * unit, end * unit)
            if phase == "use"
            else (end * unit, end * unit, 0)
        )

    return amounts


def claims_held_by(sentence, shape):
    """Every claim of the sentence, against the readings."""
    start, peak, _ = shape
    # Which memory it is, amounts do not tell.
    assert not [
        claim
        for claim in ("there already", "given back", "still held", "made in the phase")
        if claim in sentence
    ]
    if any(f"find what use {does}" in sentence for does in ("makes", "keeps", "allocates")):
        assert peak > start
    if "find what the phases before use keep" in sentence:
        assert start > 0
    return True


def amount_of(field, shape):
    start, peak, end = shape
    return {
        "start": start,
        "peak": peak,
        "end": end,
        "growth": peak - start,
        "retained": end - start,
    }[field.removeprefix("net_")]


SLOPES = [
    (field, shape)
    for field, shape in itertools.product(fields_of("SlopeRule"), SHAPES)
    if amount_of(field, shape) > 0
]
BUDGETS = [
    (field, shape)
    for field, shape in itertools.product(fields_of("BudgetRule"), SHAPES)
    if amount_of(field, shape) > 0
]


@pytest.mark.parametrize(("field", "shape"), SLOPES)
def test_a_slope_claims_nothing_that_its_readings_contradict(
    synthetic_run, edges, tmp_path, field, shape
):
    """Whichever field it is on, and wherever the memory was before and after."""
    run = run_of(synthetic_run, edges, shaped(shape))
    (check,) = finding_of(
        run,
        tmp_path,
        "slope",
        phases=["use"],
        over="image_count",
        field=field,
        at_most="1 KiB",
        resolve="2 KiB",
    )

    assert claims_held_by(check.sentence, shape)
    assert f"{FIELDS[field].slope} {amount_of(field, shape) * MIB:,} B per image" in check.sentence
    assert (check.bound, check.limit) == ("upper", 1024)


@pytest.mark.parametrize(("field", "shape"), BUDGETS)
def test_a_budget_claims_nothing_that_its_readings_contradict(
    synthetic_run, edges, tmp_path, field, shape
):
    """The same of the amount of one run."""
    run = run_of(synthetic_run, edges, shaped(shape), counts=(64,))
    (check,) = finding_of(run, tmp_path, "budget", phases=["use"], field=field, at_most="1 KiB")

    assert claims_held_by(check.sentence, shape)
    assert amount_in_words(field, amount_of(field, shape) * 64 * MIB) in check.sentence
    assert (check.bound, check.limit) == ("upper", 1024)


@pytest.mark.parametrize(
    ("field", "shape", "words"),
    [
        (
            "peak",
            HELD,
            (
                "256.0 MiB at its peak, 256.0 MiB when it begins and 256.0 MiB when it ends. "
                "To do: find what the phases before use"
            ),
        ),
        (
            "peak",
            GIVEN_BACK,
            (
                "256.0 MiB at its peak, 256.0 MiB when it begins and 0 B when it ends. To do: "
                "find what the phases before"
            ),
        ),
        (
            "peak",
            TEMPORARY,
            (
                "256.0 MiB at its peak, 0 B when it begins and 0 B when it ends. To do: find "
                "what is alive at the peak of use"
            ),
        ),
        (
            "peak",
            SWAPPED,
            (
                "512.0 MiB at its peak, 256.0 MiB when it begins and 256.0 MiB when it ends. "
                "To do: find what is alive"
            ),
        ),
        (
            "growth",
            TAKEN,
            (
                "256.0 MiB at its peak; when the phase ends it is 256.0 MiB more than when it "
                "began. To do: find what use makes"
            ),
        ),
        (
            "growth",
            TEMPORARY,
            (
                "256.0 MiB at its peak; when the phase ends it is as much as when it began. To "
                "do: find what use makes"
            ),
        ),
        (
            "growth",
            HALF_KEPT,
            (
                "512.0 MiB at its peak; when the phase ends it is 256.0 MiB more than when it "
                "began. To do: find what"
            ),
        ),
        (
            "net_end",
            SWAPPED,
            (
                "256.0 MiB when the phase ends, and 256.0 MiB when it begins. To do: find what "
                "still holds a reference"
            ),
        ),
        ("retained", TAKEN, "256.0 MiB. To do: find what use keeps for each image"),
    ],
)
def test_a_slope_says_what_there_is_at_the_other_edges_of_the_phase(
    synthetic_run, edges, tmp_path, field, shape, words
):
    """Not of its own field alone: by the start, the peak and the end of the same runs."""
    run = run_of(synthetic_run, edges, shaped(shape))
    (check,) = finding_of(
        run,
        tmp_path,
        "slope",
        phases=["use"],
        over="image_count",
        field=field,
        at_most="1 KiB",
        resolve="2 KiB",
    )

    assert words in check.sentence


@pytest.mark.parametrize("field", ["peak", "growth"])
def test_a_class_of_growth_is_of_its_field(synthetic_run, edges, tmp_path, field):
    """A peak that was there when the phase began is no growth of it."""
    run = run_of(synthetic_run, edges, shaped(HELD if field == "peak" else TAKEN))
    (check,) = finding_of(
        run,
        tmp_path,
        "growth_class",
        phases=["use"],
        over="image_count",
        field=field,
        at_most="flat",
    )
    noun, to_do = (
        ("its peak", "what the phases before use keep")
        if field == "peak"
        else ("growth", "what use makes")
    )

    assert f"/ device in use: {noun} over image_count is linear (" in check.sentence
    assert f"To do: find {to_do} for each image" in check.sentence


def test_what_gives_back_less_for_each_image_keeps_nothing(synthetic_run, edges, tmp_path):
    """The slope of what a phase keeps rises although it ends with less than it began with, at every
    size.
    """
    run = run_of(
        synthetic_run,
        edges,
        lambda count, phase, _: (
            (2**30, 2**30, 2**29 + count * MIB) if phase == "use" else (0, 0, 0)
        ),
    )
    (check,) = finding_of(
        run,
        tmp_path,
        "slope",
        phases=["use"],
        over="image_count",
        field="retained",
        at_most="1 KiB",
        resolve="2 KiB",
    )

    assert "gives back less by 1,048,576 B per image" in check.sentence
    assert "keeps 1,048,576" not in check.sentence
    assert "still held" not in check.sentence


def test_less_than_nothing_is_kept_in_no_sentence():
    """Amounts below 0 are what was given back, field by field."""
    assert amount_in_words("retained", -4 * MIB) == "ends with 4.0 MiB less than it began with"
    assert (
        amount_in_words("net_end", -4 * MIB)
        == "ends with 4.0 MiB less than there was before the run's first phase"
    )
    assert amount_in_words("retained", 0) == "keeps 0 B"
    assert not any("-" in amount_in_words(field, -MIB) for field in FIELDS)
    assert slope_verb("retained", 0) == "keeps"


@pytest.mark.parametrize(
    "model", ["SlopeRule", "GrowthClassRule", "ArithmeticRule", "BudgetRule", "LeakRule"]
)
def test_every_field_that_a_policy_can_name_has_words(model):
    """One place holds them all."""
    assert set(fields_of(model)) <= set(FIELDS)


def test_nothing_is_said_of_where_it_was_where_nothing_tells():
    """No start or no end was read, or there is nothing of it."""
    assert beside("peak", None) == at_edges("peak", None) == ""
    assert [beside(field, Edges(start=0, peak=0, end=0)) for field in FIELDS] == [""] * len(FIELDS)
    assert [at_edges(field, Edges(start=0, peak=0, end=0)) for field in FIELDS] == [""] * len(
        FIELDS
    )


def test_before_the_first_phase_there_is_no_other_to_look_into():
    """What it begins with was allocated outside of every phase."""
    there = Edges(start=4, peak=4, end=4)

    assert (
        search("peak", there, phase="open", first=True)
        == "find what is allocated before open begins, outside of every phase"
    )
    assert search("start", there, phase="use", first=False, each="image").startswith(
        "find what the phases before use keep for each"
    )
    assert (
        search("net_end", there, phase="release", first=False)
        == "find what still holds a reference when release ends"
    )


# --- leaks ---


def leak(synthetic_run, edges, tmp_path, field, first, second, meter="device_in_use"):
    """The finding of one point whose two epochs have these edges."""
    phases = ("epoch_0", "epoch_1")
    run = run_of(
        synthetic_run,
        edges,
        lambda count, phase, _: first if phase == "epoch_0" else second,
        counts=(64,),
        phases=phases,
    )
    (check,) = finding_of(
        run, tmp_path, "leak", phases=list(phases), field=field, at_most="64 KiB", meters=[meter]
    )
    return check


@pytest.mark.parametrize("meter", ["device_in_use", "host_anon"])
def test_more_in_use_at_once_is_not_kept_where_the_end_is_0(synthetic_run, edges, tmp_path, meter):
    """A batch made ahead in the second epoch alone; both end with nothing."""
    check = leak(synthetic_run, edges, tmp_path, "peak", (0, 4 * MIB, 0), (0, 8 * MIB, 0), meter)

    assert "its peak rises by 4.0 MiB, limit 64.0 KiB" in check.sentence
    assert "more is in use at once (epoch_1 began with 0 B and ends with 0 B)" in check.sentence
    assert (
        "find what epoch_1 has more of at the same time than epoch_0 (a batch made ahead, a copy)."
        in check.sentence
    )
    assert "keeps" not in check.sentence
    assert "every further" not in check.sentence


@pytest.mark.parametrize(
    ("field", "first", "second", "where", "to_do"),
    [
        ("end", (0, 4, 0), (0, 8, 4), "epoch_1 keeps it", "find what epoch_1 keeps"),
        ("end", (0, 4, 4), (4, 8, 8), "epoch_1 keeps it", "find what epoch_1 keeps"),
        (
            "end",
            (0, 4, 0),
            (4, 4, 4),
            "as much more was in use already when epoch_1 began",
            "find what is made between epoch_0 and epoch_1",
        ),
        (
            "end",
            (0, 4, 0),
            (8, 8, 4),
            "as much more was in use already when epoch_1 began",
            "find what is made between epoch_0 and epoch_1",
        ),
        (
            "end",
            (0, 4, 0),
            (2, 8, 4),
            "2.0 MiB more were in use when epoch_1 began, and epoch_1 keeps 2.0 MiB",
            "find what",
        ),
        (
            "peak",
            (0, 4, 4),
            (4, 8, 4),
            "as much more was in use already when epoch_1 began",
            "find what epoch_0 keeps",
        ),
        (
            "peak",
            (0, 4, 0),
            (4, 8, 4),
            "as much more was in use already when epoch_1 began",
            "find what is made between epoch_0 and epoch_1",
        ),
        (
            "peak",
            (4, 4, 4),
            (8, 8, 8),
            "as much more was in use already when epoch_1 began",
            "find what is made between epoch_0 and epoch_1",
        ),
        ("peak", (0, 4, 0), (0, 8, 4), "epoch_1 keeps as much", "find what epoch_1 keeps"),
        (
            "peak",
            (0, 4, 0),
            (0, 8, 2),
            "more is in use at once (epoch_1 began with 0 B and ends with 2.0 MiB)",
            "find what",
        ),
    ],
)
def test_a_leak_says_when_it_came_and_whether_it_is_kept(field, first, second, where, to_do):
    """By the edges of both phases, in MiB."""
    before, after = (
        Edges(start=start * MIB, peak=peak * MIB, end=end * MIB)
        for start, peak, end in (first, second)
    )
    words = leak_in_words(field, before, after, earlier="epoch_0", later="epoch_1")

    assert words.where.startswith(where)
    assert words.to_do.startswith(to_do)
    assert ("every further one" in words.to_do) == words.where.startswith("epoch_1 keeps")


def test_a_second_phase_that_keeps_nothing_is_not_said_to_keep(synthetic_run, edges, tmp_path):
    """start = peak = end: what it ends with was made between the two."""
    check = leak(
        synthetic_run, edges, tmp_path, "end", (0, 4 * MIB, 0), (4 * MIB, 4 * MIB, 4 * MIB)
    )

    assert "4.0 MiB" in check.sentence
    assert "epoch_1 keeps" not in check.sentence
    assert (check.bound, check.limit) == ("upper", 64 * 1024)


# --- floors ---


@pytest.mark.parametrize("meter", ["device_in_use", "host_anon"])
def test_a_floor_is_a_lower_bound_and_says_so(synthetic_run, edges, tmp_path, meter):
    """A phase that gives back what it had keeps nothing, and fell short of what it has to keep; the
    advice is the meter's.
    """
    run = run_of(synthetic_run, edges, shaped(GIVEN_BACK), counts=(64,))
    (check,) = finding_of(
        run, tmp_path, "budget", phases=["use"], field="retained", at_least="1 MiB", meters=[meter]
    )

    assert (check.rule, check.bound, check.limit) == ("floor", "lower", MIB)
    assert "ends with 64.0 MiB less than it began with, at least 1.0 MiB" in check.sentence
    assert ("the allocator counts" in check.sentence) == (meter == "device_in_use")


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("so it is", "so it is."),
        ("so it is..", "so it is."),
        ("is it so?", "is it so?"),
        ("is it so?.", "is it so?"),
    ],
)
def test_a_sentence_ends_once(sentence, said):
    """With a full stop, or the question mark that it has."""
    assert closed(sentence) == said
