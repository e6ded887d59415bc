"""Every read model that there is."""

from projections import card_search, cards, platform, programs, staff, statistics, transactions

MODELS = (
    cards.MODEL,
    card_search.MODEL,
    transactions.MODEL,
    statistics.MODEL,
    staff.MODEL,
    programs.MODEL,
    platform.MODEL,
)
