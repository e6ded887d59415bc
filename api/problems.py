"""Every way of saying no over HTTP: one table of codes, and RFC 9457 bodies made from it.

A code means one thing for good. `type` resolves to the page that explains it.
"""

import logging
import re
import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from ledger.errors import Rejected, Unavailable

MEDIA_TYPE = "application/problem+json"
LOG = logging.getLogger("loyalty")
RETRY_AFTER_SECONDS = 1
DETAIL_CHARACTERS_MAX = 300
BODY_NOT_READ = (408, 413)
"""What is said before the body has ended; whoever goes on sending it would keep the connection for good."""


class Kind(NamedTuple):
    """What a code means: the HTTP status, a title that never changes, and what to do about it."""

    status: int
    title: str
    meaning: str


KINDS: dict[str, Kind] = {
    # The request itself.
    "invalid_request": Kind(
        400, "Invalid request", "The body or a parameter is not as documented; `detail` says where."
    ),
    "invalid_json": Kind(400, "Invalid JSON", "The body is not JSON in UTF-8, or is nested too deeply."),
    "one_card_name": Kind(400, "Which card?", "Give exactly one of card_id, qr_code and card_number."),
    "idempotency_key_required": Kind(
        400,
        "Idempotency-Key missing",
        "Send a header Idempotency-Key, new for each command and the same when retrying.",
    ),
    "invalid_idempotency_key": Kind(
        400,
        "Invalid Idempotency-Key",
        "A key is 1 to 255 printable ASCII characters, in quotes or not, with none inside.",
    ),
    "invalid_cursor": Kind(400, "Invalid cursor", "Use next_cursor of the page before, unchanged."),
    "invalid_position": Kind(400, "Invalid Loyalty-Position", "Send the integer that a command answered."),
    "invalid_moment": Kind(
        400, "No such time", "`parameter` takes a time in RFC 3339 with its zone; in an address, + is written %2B."
    ),
    "invalid_time_range": Kind(400, "Nothing in between", "`from` is later than `to`."),
    "position_not_reached": Kind(400, "Past the end of the log", "The log ends at `position`."),
    "unknown_event_name": Kind(400, "No such event", "No event has this name; docs/log.md says where they are listed."),
    "invalid_day": Kind(400, "No such day", "`parameter` takes a day as 2026-01-31."),
    "invalid_days": Kind(400, "No day in between", "`from` is later than `to`."),
    "invalid_search": Kind(
        400, "Too little to look for", "Give at least `characters_min` characters; at a till, `digits_min` digits."
    ),
    "invalid_sort": Kind(
        400,
        "Cannot be sorted so",
        "A search is sorted by what was found, a file by when cards were enrolled: leave `sort` out.",
    ),
    "invalid_credentials": Kind(401, "Not signed in", "The bearer key or token is missing, wrong, expired or revoked."),
    "wrong_password": Kind(401, "Wrong e-mail or password", "No account has this e-mail address and password."),
    "not_allowed": Kind(403, "Not allowed", "This credential may not do that."),
    "not_found": Kind(404, "Not found", "There is nothing at this address."),
    "method_not_allowed": Kind(405, "Method not allowed", "This address does not take that method."),
    "body_timeout": Kind(408, "Body too slow", "The body did not arrive in time; send it again."),
    "body_too_large": Kind(413, "Body too large", "The body is larger than this service takes."),
    "idempotency_key_reused": Kind(
        422, "Idempotency-Key reused", "This key was used for another request; a new command needs a new key."
    ),
    # Who and where.
    "merchant_not_found": Kind(404, "No such merchant", "There is no such merchant."),
    "merchant_exists": Kind(409, "Merchant exists", "There is such a merchant already."),
    "store_not_found": Kind(404, "No such store", "The merchant has no such store."),
    "store_required": Kind(
        400, "Which store?", "The merchant has several stores: name one in the header Loyalty-Store."
    ),
    "store_code_taken": Kind(409, "Store code taken", "Store codes are unique on the platform; choose another."),
    "invalid_store_code": Kind(400, "Invalid store code", "2 to 32 capital letters, digits and hyphens."),
    "invalid_time_zone": Kind(400, "Invalid time zone", "Give an IANA name, as Europe/Luxembourg."),
    "invalid_currency": Kind(400, "Invalid currency", "Give the three capital letters of ISO 4217."),
    "invalid_settings": Kind(400, "Invalid settings", "`field` is outside its limits."),
    "terminal_not_found": Kind(404, "No such terminal", "The merchant has no such terminal."),
    "terminal_exists": Kind(409, "Terminal exists", "There is such a terminal already."),
    "terminal_revoked": Kind(409, "Terminal revoked", "A revoked terminal takes no more changes."),
    "account_exists": Kind(409, "Account exists", "There is such an account already."),
    "account_not_found": Kind(404, "No such account", "There is no such account."),
    "email_taken": Kind(409, "E-mail taken", "Another account has this e-mail address."),
    "invalid_role": Kind(400, "Invalid role", "An account is an admin's, a manager's or an auditor's."),
    # Program.
    "program_not_found": Kind(404, "No program", "The merchant has no program yet."),
    "program_exists": Kind(409, "Program exists", "A merchant has one program; change it instead."),
    "program_inactive": Kind(409, "Program inactive", "The program is switched off."),
    "invalid_program": Kind(400, "Invalid program", "`field` is outside its limits."),
    "stamps_not_offered": Kind(409, "No stamps here", "The program collects points only."),
    "points_not_offered": Kind(409, "No points here", "The program collects stamps only."),
    # Cards.
    "card_not_found": Kind(404, "No such card", "The merchant has no such card."),
    "card_not_active": Kind(409, "Card not active", "The card is suspended or closed; card_status says which."),
    "card_erased": Kind(410, "Card erased", "The customer was erased, and with them the first answer."),
    "self_enrollment_not_allowed": Kind(403, "Ask at the till", "This merchant enrols customers at the till only."),
    "stamp_cooldown": Kind(409, "Too soon", "The last stamp is too recent; next_stamp_available_at says when."),
    "daily_stamp_limit": Kind(409, "Enough for today", "The card has its stamps of this day."),
    "not_enough_stamps": Kind(409, "Not enough stamps", "stamps_missing says how many are missing."),
    "not_enough_points": Kind(409, "Not enough points", "points_missing says how many are missing."),
    "reward_not_found": Kind(404, "No such reward", "The program has no such reward, or it is not active."),
    "other_store": Kind(409, "Another store's card", "Rewards are given where the card was opened."),
    "purchase_below_minimum": Kind(409, "Purchase too small", "minimum_purchase_cents says from where on it counts."),
    "invalid_amount": Kind(400, "Invalid amount", "The amount is outside its limits."),
    "order_reference_required": Kind(400, "Order reference missing", "This merchant wants every receipt named."),
    "order_reference_used": Kind(
        409, "Receipt used", "transaction_id names the purchase that this order reference earned with."
    ),
    "expired_already": Kind(400, "Expired already", "Those points would have expired before they arrive."),
    "expiry_date_not_used": Kind(
        400, "Points have no such date here", "The program's points do not end by a date of their own; leave it out."
    ),
    "card_number_taken": Kind(409, "Card number taken", "Another card has this number."),
    "qr_code_taken": Kind(409, "QR code taken", "Another card has this QR code."),
    # Corrections.
    "transaction_not_found": Kind(404, "No such transaction", "The merchant has no such transaction."),
    "reversals_not_allowed": Kind(403, "No reversals here", "This merchant's settings forbid reversals."),
    "manager_pin_required": Kind(403, "A manager's PIN, please", "This merchant reverses with a manager's PIN only."),
    "not_reversible": Kind(
        409, "Not reversible", "Purchases, bonuses, stamps, redemptions and adjustments are; reversals are not."
    ),
    "already_reversed": Kind(409, "Reversed already", "Nothing is left of this transaction to reverse."),
    "more_than_is_left": Kind(
        409, "More than is left", "purchase_amount_cents_left says how much of the purchase was not refunded yet."
    ),
    "not_a_purchase": Kind(400, "Not a purchase", "Only a purchase is reversed in part; leave the amount out."),
    "points_already_spent": Kind(
        409,
        "Points spent already",
        "points_missing says how many; with allow_negative_balance the balance goes below zero.",
    ),
    "stamps_already_spent": Kind(
        409,
        "Stamps spent already",
        "stamps_missing says how many; with allow_negative_balance the count goes below zero.",
    ),
    "nothing_to_adjust": Kind(400, "Nothing to adjust", "Give points, stamps or both."),
    "invalid_adjustment": Kind(400, "Invalid correction", "`field` is outside its limits."),
    "card_merged": Kind(409, "Card merged", "The card was merged; merged_into is the one that has all of it now."),
    "same_card": Kind(409, "The same card", "A card cannot be merged into itself."),
    "purchase_or_reward": Kind(
        400, "Purchase or reward?", "Give purchase_amount_cents to preview a purchase, or reward_id for a redemption."
    ),
    "invalid_time": Kind(400, "Too far ahead", "Ask for a time until `latest`; one that has passed counts as now."),
    # PINs.
    "staff_pin_required": Kind(403, "PIN missing", "Send staff_pin."),
    "pin_invalid": Kind(403, "Wrong PIN", "The PIN is wrong; attempts_left says how often it may be tried."),
    "pin_locked": Kind(423, "PIN locked", "Too many wrong PINs; it opens at locked_until, or a manager opens it."),
    "pin_taken": Kind(409, "PIN taken", "Another staff member has this PIN."),
    "staff_pin_other_store": Kind(403, "PIN of another store", "This PIN counts in its own store only."),
    "staff_pin_not_found": Kind(404, "No such PIN", "The merchant has no such PIN."),
    "staff_pin_exists": Kind(409, "PIN exists", "There is such a PIN already."),
    "staff_pin_inactive": Kind(409, "PIN inactive", "The PIN was deactivated."),
    # The service.
    "unavailable": Kind(503, "Not available now", "Nothing is lost; send the same request again, with the same key."),
    "behind": Kind(503, "Not there yet", "What you ask for is behind your Loyalty-Position; ask again."),
    "internal_error": Kind(500, "Defect", "This is our fault, and recorded. Retrying with the same key is safe."),
}

STATUS_CODES = {
    400: "invalid_request",
    401: "invalid_credentials",
    403: "not_allowed",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_timeout",
    413: "body_too_large",
}


def problem(
    code: str, base_url: str, detail: str = "", facts: Mapping[str, Any] | None = None, retry_after: int | None = None
) -> Response[bytes]:
    """The response for a code, with the facts as members beside the standard ones."""
    kind = KINDS[code]
    body = {
        "type": f"{base_url}/problems/{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail or kind.meaning,
        "code": code,
        **(facts or {}),
    }
    headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
    if kind.status in BODY_NOT_READ:
        headers["Connection"] = "close"
    if kind.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(msgspec.json.encode(body), status_code=kind.status, media_type=MEDIA_TYPE, headers=headers)


def on_rejected(request: Request[Any, Any, Any], refusal: Rejected) -> Response[bytes]:
    """A rule said no."""
    later = KINDS[refusal.code].status == 503
    return problem(
        refusal.code, base_url_of(request), facts=refusal.facts, retry_after=RETRY_AFTER_SECONDS if later else None
    )


def on_unavailable(request: Request[Any, Any, Any], error: Unavailable) -> Response[bytes]:
    """A part is missing; nothing is lost."""
    return problem("unavailable", base_url_of(request), retry_after=error.retry_after_seconds)


def on_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What the framework refused; its own wording may quote the request, so it is not passed on."""
    code = STATUS_CODES.get(error.status_code, "internal_error" if error.status_code >= 500 else "invalid_request")
    detail = ""
    if isinstance(error, ValidationException) and error.extra:
        code, detail = "invalid_request", parameters_at_fault(error.extra)
    return problem(code, base_url_of(request), detail)


def parameters_at_fault(extra: Any) -> str:
    """The names of what was wrong, and why, without the values."""
    entries = extra if isinstance(extra, list) else [extra]
    said = [
        f"{entry.get('key', 'body')}: {entry.get('message', 'invalid')}" for entry in entries if isinstance(entry, dict)
    ]
    return re.sub(r"'.*'", "…", "; ".join(said), flags=re.DOTALL)[:DETAIL_CHARACTERS_MAX]


def on_defect(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Anything else is a defect of this service: told to nobody, logged by where it happened.

    The exception's own text stays out of the log, as it may quote what was sent.
    """
    where = "".join(traceback.format_tb(error.__traceback__))
    LOG.error("defect in %s: %s\n%s", request.url.path, type(error).__qualname__, where)
    return problem("internal_error", base_url_of(request))


def base_url_of(request: Request[Any, Any, Any]) -> str:
    """Where the pages that explain problems are."""
    return str(request.app.state.base_url)
