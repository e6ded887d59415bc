"""Programs as people see them, and where to find them: by merchant, and by the code of a store."""

from uuid import UUID

from ledger.merchant import MerchantCreated, StoreAdded
from ledger.program import Program, ProgramCreated
from ledger.store.log import Log
from ledger.store.names import PROGRAM, topics_of
from projections.read_model import Batch, Connection, Memory, ReadModel
from schemas import programs

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
                await connection.execute(
                    "INSERT INTO stores VALUES (%s, %s, %s, %s)", [store.code, store.id, at.merchant_id, position]
                )


MODEL = ReadModel(
    name="programs",
    version=1,
    tables={
        "merchants": "CREATE TABLE merchants (id uuid PRIMARY KEY, position bigint NOT NULL)",
        "programs": """
            CREATE TABLE programs (id uuid PRIMARY KEY, merchant_id uuid NOT NULL, position bigint NOT NULL)""",
        "stores": """
            CREATE TABLE stores (
                code text COLLATE "C" PRIMARY KEY,
                id uuid NOT NULL,
                merchant_id uuid NOT NULL,
                position bigint NOT NULL
            )""",
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


async def find(log: Log, program: UUID) -> programs.Program | None:
    """A program as of now."""
    loaded = await log.load(PROGRAM, program, fresh=True)
    return shown(loaded.state) if loaded is not None else None
