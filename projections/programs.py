"""Programs as people see them, and who has which: programs, merchants and stores of the whole platform.

Which there are stands in tables; how each of them is now is read from the log.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from ledger.merchant import Merchant, MerchantCreated, Store, StoreAdded
from ledger.program import Program, ProgramCreated
from ledger.store.log import Log
from ledger.store.names import MERCHANT, PROGRAM, topics_of
from projections import tenants
from projections.figures import Figures, Standing
from projections.read_model import Batch, Connection, Memory, ReadModel
from projections.reading import Reader
from projections.statistics import totals_of
from projections.visits import active_of_each
from schemas import admin, programs

LISTED = (MerchantCreated, ProgramCreated, StoreAdded)

# ---- the tables ---------------------------------------------------------------------------------------------------


async def apply(batch: Batch, connection: Connection, _memory: Memory) -> None:
    """Lists what is new; how it stands now is read from the log."""
    for position, read, _ in batch.events:
        event, at = read.event, read.at
        match event:
            case MerchantCreated():
                await connection.execute("INSERT INTO merchants VALUES (%s, %s)", [at.stream, position])
            case ProgramCreated():
                await connection.execute(
                    "INSERT INTO programs VALUES (%s, %s, %s)", [at.stream, at.merchant_id, position]
                )
            case StoreAdded(store):
                await connection.execute("INSERT INTO stores VALUES (%s, %s)", [store.id, at.merchant_id])


MODEL = ReadModel(
    name="programs",
    version=1,
    tables={
        "merchants": "CREATE TABLE merchants (id uuid PRIMARY KEY, position bigint NOT NULL)",
        "programs": """
            CREATE TABLE programs (id uuid PRIMARY KEY, merchant_id uuid NOT NULL, position bigint NOT NULL)""",
        "stores": "CREATE TABLE stores (id uuid PRIMARY KEY, merchant_id uuid NOT NULL)",
    },
    indexes="""
        CREATE INDEX IF NOT EXISTS merchants_listed ON merchants (position);
        CREATE INDEX IF NOT EXISTS programs_listed ON programs (position);
        CREATE INDEX IF NOT EXISTS programs_merchant ON programs (merchant_id);
    """,
    topics=frozenset(topic for event_type in LISTED for topic in topics_of(event_type)),
    apply=apply,
)

# ---- one program --------------------------------------------------------------------------------------------------


def shown(program: Program) -> programs.Program:
    """The program as it crosses the wire."""
    rules = program.rules
    return programs.Program(
        id=program.id,
        version=program.version,
        type=rules.type.value,
        stamps_target=rules.stamps_target,
        stamps_reward_description=rules.stamps_reward_description,
        points_per_euro=rules.points_per_euro,
        rewards=[
            programs.Reward(id=reward.id, name=reward.name, points_cost=reward.points_cost, active=reward.active)
            for reward in rules.rewards
        ],
        minimum_purchase_cents=rules.minimum_purchase_cents,
        welcome_bonus_points=rules.welcome_bonus_points,
        cooldown_minutes=rules.cooldown_minutes,
        max_daily_stamps=rules.max_daily_stamps,
        require_staff_pin=rules.require_staff_pin,
        points_expiration_days=rules.points_expiration_days,
        expiry_policy=rules.expiry_policy.value,
        branding=programs.Branding(
            card_name=rules.branding.card_name,
            card_color=rules.branding.card_color,
            logo_url=rules.branding.logo_url,
            hero_image_url=rules.branding.hero_image_url,
        ),
        terms=rules.terms,
        active=rules.active,
        changed_at=program.changed_at,
    )


def for_everybody(program: Program, merchant: Merchant, store: Store) -> programs.PublicProgram:
    """The program as anybody may know it, of one of the merchant's stores."""
    whole, rules = shown(program), program.rules
    return programs.PublicProgram(
        store_code=store.code,
        store_name=store.name,
        merchant_name=merchant.name,
        locale=store.locale,
        currency=store.currency,
        active=rules.active,
        self_enrollment=rules.active and merchant.settings.allow_self_enrollment,
        type=whole.type,
        stamps_target=rules.stamps_target,
        stamps_reward_description=rules.stamps_reward_description,
        points_per_euro=rules.points_per_euro,
        minimum_purchase_cents=rules.minimum_purchase_cents,
        welcome_bonus_points=rules.welcome_bonus_points,
        rewards=[
            programs.PublicReward(name=reward.name, points_cost=reward.points_cost)
            for reward in rules.rewards
            if reward.active
        ],
        points_expiration_days=rules.points_expiration_days,
        expiry_policy=whole.expiry_policy,
        branding=whole.branding,
        terms=rules.terms,
    )


async def find(log: Log, program: UUID) -> programs.Program | None:
    """A program as of now."""
    loaded = await log.load(PROGRAM, program, fresh=True)
    return shown(loaded.state) if loaded is not None else None


# ---- all of them --------------------------------------------------------------------------------------------------

PROGRAMS = """
    SELECT position, id, merchant_id FROM programs WHERE position > %(after)s ORDER BY position LIMIT %(limit)s
"""
ACTIVE_DAYS = 30


async def page(
    reader: Reader, log: Log, after: int, limit: int, now: datetime
) -> tuple[list[admin.ListedProgram], int | None]:
    """The programs of all merchants that were created after a position, oldest first, with what they came to.

    And from where the next page goes on.
    """
    rows = await reader.rows(PROGRAMS, {"after": after, "limit": limit + 1})
    of_merchants = [merchant for _, _, merchant in rows[:limit]]
    loaded = {each.stream: each.state for each in await log.load_many(PROGRAM, [row[1] for row in rows[:limit]])}
    merchants = {each.stream: each.state for each in await log.load_many(MERCHANT, of_merchants)}
    figures = await totals_of(reader, of_merchants)
    today = now.astimezone(UTC).date()
    # East of here it may be another day already.
    active = await active_of_each(reader, of_merchants, today - timedelta(days=ACTIVE_DAYS - 1))
    items = [
        listed(loaded[program], merchants[merchant], figures.get(merchant, Figures()), active.get(merchant, 0))
        for _, program, merchant in rows[:limit]
    ]
    return items, rows[limit - 1][0] if len(rows) > limit else None


def listed(program: Program, merchant: Merchant, figures: Figures, active_cards: int) -> admin.ListedProgram:
    """A program among others."""
    standing = Standing().after(figures)
    return admin.ListedProgram(
        id=program.id,
        type=program.rules.type.value,
        active=program.rules.active,
        card_name=program.rules.branding.card_name,
        merchant_id=merchant.id,
        merchant_name=merchant.name,
        store_codes=tenants.codes(merchant),
        figures=admin.ProgramFigures(
            cards=standing.cards,
            active_cards=active_cards,
            enrolments=figures.enrolments,
            purchases=figures.purchases,
            purchase_amount_cents=figures.purchase_amount_cents,
            redemptions=figures.redemptions,
            stamps_added=figures.stamps_added,
            stamps_redeemed=figures.stamps_redeemed,
            stamps_outstanding=standing.stamps,
            points_earned=figures.points_earned,
            points_redeemed=figures.points_redeemed,
            points_expired=figures.points_expired,
            points_outstanding=standing.points,
        ),
    )


async def with_merchant(log: Log, program: UUID) -> admin.MerchantProgram | None:
    """A program as of now, with whose it is."""
    loaded = await log.load(PROGRAM, program, fresh=True)
    merchant = await log.load(MERCHANT, loaded.merchant_id, fresh=True) if loaded is not None else None
    if loaded is None or merchant is None:
        return None
    return admin.MerchantProgram(
        **msgspec.structs.asdict(shown(loaded.state)),
        merchant_id=merchant.stream,
        merchant_name=merchant.state.name,
        store_codes=tenants.codes(merchant.state),
    )
