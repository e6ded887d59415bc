"""Text and numbers as they are taken from outside: bounded, without control characters."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

PRINTABLE = r"^[^\x00-\x1f\x7f]*\Z"

Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=PRINTABLE)]
Reference = Annotated[str, Meta(min_length=1, max_length=64, pattern=PRINTABLE, description="A name of the caller's")]
Email = Annotated[str, Meta(min_length=3, max_length=254, pattern=r"^[^\s\x00-\x1f\x7f@]+@[^\s\x00-\x1f\x7f@]+\Z")]
Phone = Annotated[str, Meta(min_length=3, max_length=32, pattern=r"^[0-9+()./ -]+\Z")]
Locale = Annotated[str, Meta(max_length=35, pattern=r"^[a-zA-Z]{2,3}([-_][a-zA-Z0-9]{2,8})*\Z")]
Pin = Annotated[str, Meta(pattern=r"^[0-9]{4,8}\Z", description="4 to 8 digits")]
CardNumber = Annotated[str, Meta(pattern=r"^[0-9]{12}\Z", description="12 digits, the last by Luhn")]
QrCode = Annotated[str, Meta(min_length=1, max_length=128, pattern=PRINTABLE)]
Cents = Annotated[int, Meta(ge=0, le=100_000_000, description="An amount in cents")]
Color = Annotated[str, Meta(pattern=r"^#[0-9a-fA-F]{6}\Z", description="#rrggbb")]
Url = Annotated[str, Meta(max_length=500, pattern=r"^https://[^\s\x00-\x1f\x7f]+\Z")]
Text = Annotated[str, Meta(max_length=10_000, pattern=r"^[^\x00]*\Z")]
Why = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*\Z")]
ShortText = Annotated[str, Meta(max_length=200, pattern=PRINTABLE)]
Instant = Annotated[datetime, Meta(tz=True)]
