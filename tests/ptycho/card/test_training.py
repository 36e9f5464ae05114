"""A network trained and used on a card gives what it gives on the CPU, with both loaders."""

import pytest


@pytest.fixture(scope="module")
def both(measured, simulated_path):
    """The same child on a card and on the CPU."""
    return {
        name: measured("training", simulated_path, cards=cards)
        for name, cards in (("card", 1), ("cpu", 0))
    }


@pytest.mark.parametrize("loader", ["lazy", "eager"])
def test_training_on_a_card_is_training_on_the_cpu(both, loader):
    """Weights on the card; it learns, by the same losses within rounding."""
    card, cpu = both["card"][loader], both["cpu"][loader]

    assert (card["weights on"], cpu["weights on"]) == (["GPU:0"], ["CPU:0"])
    assert card["losses"][1] < card["losses"][0]
    assert card["losses"] == pytest.approx(cpu["losses"], rel=1e-3)


@pytest.mark.parametrize("loader", ["lazy", "eager"])
def test_the_object_reconstructed_on_a_card_is_the_one_of_the_cpu(both, loader):
    """The sum of its amplitudes, and how often its pixels were lit."""
    card, cpu = both["card"][loader], both["cpu"][loader]

    assert card["amplitude"] == pytest.approx(cpu["amplitude"], rel=1e-3)
    assert card["weights"] == pytest.approx(cpu["weights"], rel=1e-6)


@pytest.mark.parametrize("place", ["card", "cpu"])
def test_both_loaders_train_alike(both, place):
    """To the last digit: their batches have the same bits."""
    assert both[place]["eager"] == both[place]["lazy"]
