"""Every read model that there is."""

from projections import card_search, cards, pin_use, platform, programs, statistics, transactions

MODELS = (
    cards.MODEL,
    card_search.MODEL,
    transactions.MODEL,
    statistics.MODEL,
    pin_use.MODEL,
    programs.MODEL,
    platform.MODEL,
)
