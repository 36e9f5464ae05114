"""How a run of the benchmarks is judged: what is noise, what is cost, and what cannot be told."""

import json
import math

import pytest

from scenarios.benchmarks.bars import BARS, Bar, Row, Verdict, judge, limit_of
from scenarios.benchmarks.overhead import Cost, added
from scenarios.benchmarks.spread import CONFIDENCE, Spread, interval_rank, until_settled

AT_MOST = Bar(figure="cost", what="a cost", kind="at most", limit=2.0)
AT_LEAST = Bar(figure="speed", what="a speed", kind="at least", limit=2.0)


def spread(low, high):
    return Spread(value=(low + high) / 2, low=low, high=high, number=15)


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (2.0, Verdict.HOLDS),
        (2.001, Verdict.MISSED),
        (spread(1.0, 2.0), Verdict.HOLDS),
        (spread(1.0, 2.001), Verdict.NOT_RESOLVED),
        (spread(2.0, 3.0), Verdict.NOT_RESOLVED),
        (spread(2.001, 3.0), Verdict.MISSED),
        (spread(-math.inf, math.inf), Verdict.NOT_RESOLVED),
    ],
)
def test_a_cost_is_missed_when_its_interval_lies_above_the_bar(figure, verdict):
    """An interval that reaches the bar from below holds; one on both sides is not resolved."""
    assert AT_MOST.verdict(figure) is verdict


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (2.0, Verdict.HOLDS),
        (1.999, Verdict.MISSED),
        (spread(2.0, 3.0), Verdict.HOLDS),
        (spread(1.999, 3.0), Verdict.NOT_RESOLVED),
        (spread(1.0, 2.0), Verdict.NOT_RESOLVED),
        (spread(1.0, 1.999), Verdict.MISSED),
    ],
)
def test_a_speed_is_missed_when_its_interval_lies_below_the_bar(figure, verdict):
    """The same, the other way around."""
    assert AT_LEAST.verdict(figure) is verdict


def test_only_a_figure_that_certainly_keeps_its_bar_is_a_pass():
    """Not resolved and not measured are neither passes nor misses."""
    rows = [Row(AT_MOST, figure, "why") for figure in (1.0, spread(1, 3), spread(3, 4), None)]

    assert [(row.verdict, row.holds) for row in rows] == [
        (Verdict.HOLDS, True),
        (Verdict.NOT_RESOLVED, False),
        (Verdict.MISSED, False),
        (Verdict.NOT_MEASURED, False),
    ]


@pytest.mark.parametrize(
    ("number", "rank"), [(1, 0), (7, 0), (8, 1), (14, 2), (15, 3), (20, 4), (45, 14)]
)
def test_the_interval_is_that_of_the_sign_test(number, rank):
    """At 99 %: of eight the smallest and the largest; of fifteen the third of each side."""
    assert interval_rank(number, CONFIDENCE) == rank


@pytest.mark.parametrize("number", range(8, 46))
def test_an_interval_misses_the_true_median_in_one_of_a_hundred_series_at_most(number):
    """By the binomial distribution, and one rank further in it would be more."""
    rank = interval_rank(number, CONFIDENCE)

    def missed(rank):
        return 2 * sum(math.comb(number, below) for below in range(rank)) / 2**number

    assert missed(rank) <= 1 - CONFIDENCE < missed(rank + 1)


def test_the_spread_lies_between_order_statistics_of_the_series():
    """One wild value of fifteen moves neither the median nor the interval."""
    calm = Spread.of([float(number) for number in range(15)])
    wild = Spread.of([float(number) for number in range(14)] + [1000.0])

    assert (calm.value, calm.low, calm.high, calm.number) == (7.0, 2.0, 12.0, 15)
    assert wild == calm


def test_a_short_series_has_no_interval_and_says_so():
    """Seven are too few for 99 %; in JSON there is no infinity."""
    short = Spread.of([1.0] * 7)

    assert AT_MOST.verdict(short) is Verdict.NOT_RESOLVED
    assert str(short) == "1 (too few to tell a spread: 7)"
    assert json.loads(json.dumps(short, default=Spread.to_json)) == {
        "value": 1.0,
        "low": None,
        "high": None,
        "number": 7,
    }
    assert str(Spread.of([0.1, 0.2] * 4)) == "0.15 (0.1 to 0.2 of 8)"


def cost(wall_s, user_s):
    return Cost(wall_s=wall_s, user_s=user_s, system_s=0.0, faults=0)


def test_a_cost_is_that_over_the_neighbour_of_the_same_round():
    """A machine that is twice as slow in half of the rounds is as slow for both of a pair."""
    slow = [1.0 + number % 2 for number in range(15)]
    costs = {
        "bare": [cost(1.0 * by, 2.0 * by) for by in slow],
        "measured": [cost(1.25 * by, 2.5 * by) for by in slow],
    }

    assert added(costs, "measured") == Spread(value=0.25, low=0.25, high=0.25, number=15)
    assert added(costs, "measured", "cpu_s").value == 0.25


@pytest.mark.parametrize(
    ("settles_at", "called"), [(0, 15), (15, 15), (16, 20), (44, 45), (99, 45)]
)
def test_more_pairs_are_taken_until_all_is_settled_up_to_a_limit(settles_at, called):
    """Fifteen at least, then five at a time, and no more than forty-five."""
    rounds = []
    done = until_settled(rounds.append, lambda: len(rounds) >= settles_at, least=15, most=45)

    assert (done, rounds) == (called, list(range(1, called + 1)))


def test_every_bar_has_a_figure_of_its_own_and_stands_beside_it():
    """A figure that is missing has its reason."""
    rows = judge({"overhead": Spread.of([0.01] * 15)}, {"misfit": "the scan is not there"})

    assert [row.bar for row in rows] == list(BARS)
    assert len({bar.figure for bar in BARS}) == len(BARS)
    assert {row.bar.figure for row in rows if row.holds} == {"overhead"}
    assert {row.reason for row in rows if row.bar.figure == "misfit"} == {"the scan is not there"}
    assert (limit_of("overhead"), limit_of("overhead_traced")) == (0.02, 0.10)
