"""The pages: their style, how their templates are filled, how numbers are written.

The style and the templates stand beside this module under its name: so they count in the cache keys of the steps that
use it.
"""

import base64
import math
from pathlib import Path

import jinja2


def template(name: str) -> jinja2.Template:
    """Load a template, `page.<name>.html.j2`; values are escaped, and a variable that is not set is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "number": number, "duration": duration}
    return environment.get_template(f"page.{name}.html.j2")


def to_data_uri(content: bytes, mime: str) -> str:
    """Return an image as a data URI, so that the page needs no other file."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def percent(value: float | None) -> str:
    """Return a share as a percentage; a dash for what is no number."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}\u00a0%"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with its digits in groups; a dash for what is no number."""
    return "–" if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def duration(seconds: float) -> str:
    """Return a time in minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}\u00a0min {rest}\u00a0s" if minutes else f"{seconds:.1f}\u00a0s"
