"""Finding a card by its number and by what is known of its customer.

This is the one table with personal data in the clear. A person whose key is gone leaves no row when the table is built
anew; but an erasure has to delete the rows here and in `rebuilding`, too, by an event that `apply` answers.
"""

import re
import unicodedata
from uuid import UUID

from ledger.card import CardEnrolled
from ledger.customer import CustomerRegistered
from ledger.store.names import topics_of
from projections.read_model import Batch, Connection, Memory, ReadModel

TERM_CHARACTERS_MAX = 100
WORDS_MAX = 8
PHONE_DIGITS_MIN = 6
BETWEEN_DIGITS = re.compile(r"[\s+()./-]")
LETTERS = str.maketrans(
    {"ł": "l", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "\u0131": "i", "ħ": "h"}
)
"""Letters that Unicode does not take for others with an accent."""

INSERT = b"""
    INSERT INTO search_terms (merchant_id, term, customer)
    SELECT * FROM unnest(%b::uuid[], %b::text[], %b::uuid[]) ON CONFLICT DO NOTHING
"""


async def apply(batch: Batch, connection: Connection, _memory: Memory) -> None:
    """Adds the terms under which a new customer can be found."""
    rows: list[tuple[UUID, str, UUID]] = []
    for _, read, _ in batch.events:
        event, at = read.event, read.at
        match event:
            case CardEnrolled(customer=customer, card_number=number, private=holder) if holder is not None:
                rows.append((at.merchant_id, number, customer))
            case CustomerRegistered(private=person) if person is not None:
                rows += [(at.merchant_id, term, at.stream) for term in names_of(person.name)]
                rows += [(at.merchant_id, term, at.stream) for term in plain(person.email, person.customer_id)]
                rows += [(at.merchant_id, term, at.stream) for term in phone_ends(person.phone)]
    if rows:
        await connection.execute(INSERT, [list(column) for column in zip(*sorted(set(rows)), strict=True)])


def looked_for(text: str) -> tuple[str, ...]:
    """What a text asks for, as the beginnings of terms, the longest first: a number however it is parted, or words."""
    number = digits_in(text)
    return (number,) if number else tuple(sorted(folded(text).split()[:WORDS_MAX], key=len, reverse=True))


def folded(text: str) -> str:
    """Text as it is compared: without case, accents and superfluous spaces."""
    decomposed = unicodedata.normalize("NFKD", text.casefold().translate(LETTERS))
    return " ".join("".join(each for each in decomposed if not unicodedata.combining(each)).split())


def names_of(name: str | None) -> set[str]:
    """The words of a name, and the parts of those with a hyphen."""
    words = folded(name or "").split()[:WORDS_MAX]
    return {part[:TERM_CHARACTERS_MAX] for word in words for part in (word, *word.split("-")) if part}


def plain(*texts: str | None) -> set[str]:
    """Addresses and references, found from their beginning."""
    given = [text for text in texts if text is not None]
    return {term[:TERM_CHARACTERS_MAX] for text in given for term in (folded(text), digits_in(text)) if term}


def phone_ends(phone: str | None) -> set[str]:
    """A telephone number and its ends, since people leave out the country's code and the first zero."""
    digits = "".join(filter(str.isdigit, phone or ""))
    return {digits[first:] for first in range(max(1, len(digits) - PHONE_DIGITS_MIN + 1))} - {""}


def digits_in(text: str) -> str:
    """The digits of a number, however people part them; nothing where there is anything else."""
    digits = BETWEEN_DIGITS.sub("", text)
    return digits if digits.isascii() and digits.isdigit() else ""


MODEL = ReadModel(
    name="card_search",
    version=1,
    tables={
        "search_terms": """
            CREATE TABLE search_terms (
                merchant_id uuid NOT NULL,
                term text COLLATE "C" NOT NULL,
                customer uuid NOT NULL,
                PRIMARY KEY (merchant_id, term, customer)
            )"""
    },
    indexes="CREATE INDEX IF NOT EXISTS search_terms_customer ON search_terms (customer, term);",
    topics=frozenset([*topics_of(CustomerRegistered), *topics_of(CardEnrolled)]),
    apply=apply,
    private=frozenset({"term"}),
)
