"""Everything that only a card reaches, on pretended cards: ``python -m scenarios.card``, which
``nox -s card`` starts.
"""
