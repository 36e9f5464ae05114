"""Two codes in one run: what was measured beside it takes the place of a baseline, and has to be
whole and another code.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from harness.commands.gate import judge_and_remeasure
from harness.judge import ExitCode, FindingKind
from harness.judge.advice import Asked
from harness.judge.baseline import load_against
from harness.judge.gate import findings_text, judge
from harness.judge.table import load_run
from harness.judged_run import Gate
from harness.records import Outcome
from harness.rundir.reading import SEAL, seal_of
from tests.harness.conftest import KIB, MIB, SyntheticRun, loading_point

PROJECT = Path(__file__).parents[4]
THEN_COMMIT = "abc1234" + "0" * 33
POINTS = [loading_point("lazy", count) for count in (100, 500, 1000, 2000)]


def side(folder, *, asked="main", commit=THEN_COMMIT, content="1", left_empty=()):
    return {
        "asked": asked,
        "commit": commit,
        "date": "2026-01-01",
        "title": "a change",
        "subjects": ["ptycho"],
        "packages": {"ptycho": folder},
        "content": {"ptycho": content},
        "left_empty": list(left_empty),
    }


def code_rows(run, folder):
    """What the children of a side say of where they took the package from; rows.jsonl is sealed
    again.
    """
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    runs = dict.fromkeys((row["point"], row["repeat"]) for row in rows if row["kind"] == "begin")
    package = (
        {"ptycho": f"{folder}/ptycho/__init__.py"}
        if folder
        else {"harness": "/h/harness/__init__.py"}
    )
    said = [
        {"kind": "code", "point": point, "repeat": repeat, "packages": package}
        for point, repeat in runs
    ]
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*said, *rows]))
    manifest = json.loads((run / "run.json").read_text())
    sealed = {SEAL: seal_of(manifest, (run / "rows.jsonl").read_bytes())}
    (run / "run.json").write_text(json.dumps(manifest | sealed))


@pytest.fixture
def compare(tmp_path, policy):
    """Write both runs and judge; ``prepare`` changes one of them before it is written."""

    def run(
        *,
        now=None,
        then=None,
        now_from="/now",
        then_from="/then",
        now_content="2",
        now_named=None,
        then_named=None,
        partial=True,
    ):
        now_side = {"asked": "", "commit": "", "content": now_content, **(now_named or {})}
        sides = {"now": side("/now", **now_side), "then": side("/then", **(then_named or {}))}
        later = SyntheticRun(
            tmp_path / "run",
            points=POINTS,
            manifest={"code": sides["now"], "against": sides["then"]},
        )
        earlier = SyntheticRun(
            tmp_path / "run" / "then", points=POINTS, manifest={"code": sides["then"]}
        )
        for prepare, synthetic, folder in ((then, earlier, then_from), (now, later, now_from)):
            if prepare is not None:
                prepare(synthetic)
            synthetic.write()
            code_rows(synthetic.path, folder)
        return judged(tmp_path / "run", policy, partial=partial)

    return run


def judged(path, policy, *, partial=True):
    loaded = load_run(path)
    return judge(
        loaded,
        policy,
        Path("no baselines here"),
        partial=partial,
        against=load_against(loaded, None),
    )


def findings(judgement):
    return [(check.rule, str(check.finding)) for check in judgement.verdict.findings]


def keeps(extra):
    """A side whose lazy loader keeps so many bytes more in construct."""
    return lambda run: run.plant(
        phase="construct", meter="device_in_use", extra=lambda point, repeat: extra, keep=True
    )


@pytest.mark.parametrize(("extra", "finding"), [(64 * KIB, False), (64 * KIB + 1, True)])
def test_more_than_the_tolerance_over_the_other_side_is_a_regression(compare, extra, finding):
    """At the limit, and one byte past it; no baseline is asked, nor missed."""
    verdict = compare(now=keeps(extra)).verdict
    grown = [check for check in verdict.findings if check.rule == "baseline"]

    assert bool(grown) is finding
    assert all(check.finding is FindingKind.REGRESSION for check in grown)
    assert not any(check.finding is FindingKind.NO_BASELINE for check in verdict.checks)


def test_a_regression_says_since_when_and_where_to_look(compare):
    """The revision stands where a baseline would, and nothing asks for an acceptance."""
    judgement = compare(now=keeps(MIB))
    sentence = next(
        check.sentence for check in judgement.verdict.findings if check.rule == "baseline"
    )

    assert (
        "grows by 1.0 MiB, at main (abc1234) 0 B, tolerance 64.0 KiB (least of 2 runs, all "
        "alike): 1.0 MiB more" in sentence
    )
    assert (
        "To do: look at git diff abc1234 -- ptycho for what construct does now; if it is "
        "meant, say so" in sentence
    )
    assert "accept" not in sentence
    assert judgement.against == "the working tree was compared with main (abc1234)"


def test_less_than_the_other_side_is_good_news_and_no_finding(compare, tmp_path):
    """The next comparison starts from the better code, so that there is nothing to accept, and a
    build stays green.
    """
    judgement = compare(then=keeps(MIB))
    better = judgement.verdict.better

    assert judgement.verdict.exit_code is ExitCode.PASS
    assert {check.phase for check in better} == {"construct"}
    assert "take less than before, beyond tolerance" in judgement.verdict.sentence
    assert (
        json.loads(findings_text(load_run(tmp_path / "run"), judgement))["against"]
        == judgement.against
    )


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"asked": "merge-base:origin/main"}, "at the merge base with origin/main (abc1234)"),
        ({"asked": "abc12"}, "at abc1234 0 B"),
        ({"asked": "v1.0"}, "at v1.0 (abc1234)"),
    ],
)
def test_a_revision_is_called_as_the_user_called_it(compare, named, words):
    """With its commit, once."""
    verdict = compare(now=keeps(MIB), then_named=named).verdict

    assert words in verdict.findings[0].sentence


def test_all_other_rules_apply_to_the_later_code(compare):
    """A budget is none of the other side's business: here both break it alike."""
    verdict = compare(now=keeps(40 * MIB), then=keeps(40 * MIB)).verdict

    assert {check.rule for check in verdict.findings} == {"budget"}
    assert verdict.exit_code is ExitCode.REGRESSION


def test_code_that_could_not_be_measured_then_is_one_finding_for_each_reason(compare):
    """The name that did not exist yet is missing at every point."""
    gone = (
        "'bodies:measure' cannot be loaded: ImportError: cannot import name 'as_dataset' from "
        "'ptycho.loader'"
    )

    def prepare(run):
        run.ends = {
            (point.name, repeat): (Outcome.ERROR, gone, "open")
            for point in POINTS
            for repeat in range(2)
        }

    judgement = compare(then=prepare)
    unmeasured = [check for check in judgement.verdict.findings if check.rule == "against"]

    assert judgement.verdict.exit_code is ExitCode.INCOMPLETE
    assert len(unmeasured) == 1
    assert unmeasured[0].sentence.startswith(
        "at main (abc1234): 4 points of 4 could not be measured there, first "
        f"{POINTS[0].name}: it ended"
    )
    assert (
        f"error there: {gone}. To do: if that code lacks what today's bodies use"
        in unmeasured[0].sentence
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"then_from": "/now"},
            "at main (abc1234): it took ptycho from /now/ptycho/__init__.py instead of /then",
        ),
        (
            {"now_from": "/site"},
            "in the working tree: it took ptycho from /site/ptycho/__init__.py instead of /now",
        ),
        (
            {"then_from": ""},
            (
                "at main (abc1234): its body does not import ptycho, so that both sides are "
                "the same for it"
            ),
        ),
    ],
)
def test_a_side_that_did_not_measure_its_own_code_is_incomplete(compare, changes, sentence):
    """Two sides that are secretly one agree about everything."""
    judgement = compare(**changes)

    assert judgement.verdict.exit_code is ExitCode.INCOMPLETE
    assert [check for check in judgement.verdict.findings if sentence in check.sentence]


def test_equal_code_passes_and_is_said_to_be_equal(compare):
    """A change of documents alone is compared, and changes nothing."""
    judgement = compare(now_content="1")
    said = next(check for check in judgement.verdict.checks if check.subject == "code")

    assert judgement.verdict.exit_code is ExitCode.PASS
    assert "is the same at main (abc1234) and in the working tree, file by file" in said.sentence


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda path: (path / "then" / "run.json").unlink(),
            "the run of the earlier code cannot be read",
        ),
        (lambda path: _edit(path / "then", ended=None), "the run has no end"),
        (lambda path: _cut(path / "then"), "rows.jsonl has lost"),
        (
            lambda path: _edit(path / "then", comparability={"device": "a card"}),
            "it was measured on device a card, and this run on",
        ),
    ],
)
def test_a_side_that_is_gone_broken_off_cut_or_from_elsewhere_is_incomplete(
    compare, tmp_path, policy, spoil, sentence
):
    """Whatever the later code took."""
    compare()
    spoil(tmp_path / "run")
    verdict = judged(tmp_path / "run", policy).verdict

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert [check for check in verdict.findings if sentence in check.sentence]


def test_a_policy_without_tolerances_compares_with_the_default_ones(compare, tmp_path, policy):
    """A user's own tests bring limits along, and distances are what a comparison is for."""
    compare(now=keeps(MIB))
    bare = policy.model_copy(update={"tolerance": ()})

    assert ("baseline", "regression") in findings(judged(tmp_path / "run", bare))


def test_measured_again_both_sides_are_judged_by_the_middle(compare):
    """One lucky run of the earlier code must not make a regression of the later one's usual
    amount.
    """
    name = POINTS[0].name

    def lucky(run):
        run.further = {name: 3}
        run.plant(
            phase="construct",
            meter="device_in_use",
            extra=lambda point, repeat: MIB * (repeat != 1),
            keep=True,
        )

    def usual(run):
        run.further = {name: 3}
        keeps(MIB)(run)

    verdict = compare(then=lucky, now=usual).verdict
    construct = [
        check for check in verdict.findings if check.point == name and check.rule == "baseline"
    ]

    assert construct == []


def test_an_improvement_that_is_confirmed_is_better_and_not_overruled(compare):
    """Most of the runs show it; where most do not, the single ones that did are overruled."""
    name = POINTS[0].name

    def again(extra):
        def prepare(run):
            run.further = {name: 3}
            run.plant(
                phase="construct",
                meter="device_in_use",
                extra=lambda point, repeat: extra(repeat),
                keep=True,
            )

        return prepare

    verdict = compare(then=again(lambda repeat: MIB), now=again(lambda repeat: 0)).verdict
    better = [check for check in verdict.better if check.point == name]
    once = compare(
        then=again(lambda repeat: MIB), now=again(lambda repeat: MIB * (repeat != 1))
    ).verdict

    assert better
    assert all(
        check.decision.endswith("confirmed") and check.sentence.count("1.0 MiB less")
        for check in better
    )
    assert verdict.overruled == ()
    assert "overruled" not in verdict.sentence
    assert {check.phase for check in once.overruled if not check.better} == {"construct"}
    assert not any(check.point == name for check in once.better)


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        (
            ["ptycho/FRC"],
            [],
            (
                "The submodule ptycho/FRC is empty at main (abc1234): git keeps the files of a "
                "submodule in a reposi"
            ),
        ),
        (
            ["ptycho/a", "ptycho/b"],
            [],
            "The submodules ptycho/a and ptycho/b are empty at main (abc1234): ",
        ),
        (
            ["ptycho/a"],
            ["ptycho/a"],
            "The submodule ptycho/a is empty at main (abc1234) and at v2 (def5678): ",
        ),
        (
            [],
            ["ptycho/a"],
            "each from its own folder. The submodule ptycho/a is empty at v2 (def5678): ",
        ),
    ],
)
def test_submodules_that_a_side_lacks_are_named_by_the_check_of_its_code(compare, then, now, words):
    """It is no finding; where both lack the same, it is said once."""
    named = {"asked": "v2", "commit": "def5678" + "0" * 33, "left_empty": now}
    verdict = compare(then_named={"left_empty": then}, now_named=named).verdict
    (code,) = [check.sentence for check in verdict.checks if check.subject == "code"]

    assert verdict.exit_code is ExitCode.PASS
    assert words in code
    assert code.count("empty") == 1


def test_offenders_are_measured_again_on_both_sides(compare, tmp_path, monkeypatch):
    """The same further repeats in both run directories; where another run is named to compare with,
    only in the run's own.
    """
    compare(
        now=lambda run: run.plant(
            phase="construct",
            meter="device_in_use",
            extra=lambda point, repeat: MIB * (1 + repeat),
            keep=True,
        )
    )
    asked = []

    def remeasure(directory, found, **settings):
        asked.append((directory, [one.point for one in found.points]))
        return 0

    # Not by the module's name: sessions of pytest inside others may have left an older one.
    monkeypatch.setitem(judge_and_remeasure.__globals__, "remeasure", remeasure)
    monkeypatch.chdir(PROJECT)
    gate = Gate(directory=tmp_path / "run", asked=Asked(baselines=tmp_path, partial=True))
    judge_and_remeasure(gate, workers=1, command="gate", to_stderr=print)
    (first, names), (second, same_names) = asked

    assert (first, second) == (tmp_path / "run", tmp_path / "run" / "then")
    assert names == same_names
    assert POINTS[0].name in names
    assert dataclasses.replace(gate, asked=Asked(against=tmp_path)).measured == (tmp_path / "run",)


def _edit(run, **changes):
    manifest = json.loads((run / "run.json").read_text()) | changes
    sealed = (
        {}
        if manifest["ended"] is None
        else {SEAL: seal_of(manifest, (run / "rows.jsonl").read_bytes())}
    )
    (run / "run.json").write_text(json.dumps(manifest | sealed))


def _cut(run):
    rows = run / "rows.jsonl"
    rows.write_bytes(rows.read_bytes()[:-200])


def test_a_run_compared_with_itself_or_its_copy_is_incomplete(synthetic_run, policy, tmp_path):
    """No change at all would agree with itself, for ever."""
    synthetic_run.write()
    run, copy = load_run(synthetic_run.path), tmp_path / "copy"
    shutil.copytree(synthetic_run.path, copy)

    for folder in (synthetic_run.path, copy):
        verdict = judge(
            run, policy, tmp_path, partial=True, against=load_against(run, folder)
        ).verdict
        assert verdict.exit_code is ExitCode.INCOMPLETE
        assert "it has the same rows as this run" in verdict.sentence
