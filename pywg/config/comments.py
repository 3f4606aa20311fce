"""The comments that mean something to pywg, and nothing to `wg` and `wg-quick`.

`#pywg Key = value` is a setting of pywg's own; with anything before it, another `#` say, it is a comment.
`# Name = alice` names a peer, as do the forms that other tools write, such as `# friendly_name = alice`.
Where they stand is found here, what is in them is read in `parse.py`.
"""

from __future__ import annotations

import re

MARKER = "#pywg"

_SPACE = "[ \t\v\f\r]"
_SETTING = re.compile(rf"{_SPACE}*#pywg(?={_SPACE}|$)", re.IGNORECASE)
_NEARLY_SETTING = re.compile(rf"{_SPACE}*#{_SPACE}+pywg{_SPACE}+([A-Za-z]{{1,24}}){_SPACE}*=", re.IGNORECASE)
_NAME = re.compile(rf"{_SPACE}*#+{_SPACE}*(?:friendly[_ -]?)?name{_SPACE}*[=:]{_SPACE}*", re.IGNORECASE)
_REFERENCE = re.compile(r"\$(?:\$|\{(\w{1,100})\}|([A-Za-z_]\w{0,99}))?", re.ASCII)


def setting_start(line: str) -> int | None:
    """Where in the line the setting behind `#pywg` begins, counted from 0; None without that marker."""
    found = _SETTING.match(line)
    return found.end() if found else None


def nearly_setting(line: str) -> str | None:
    """The key, when the line would be a setting but for blanks between `#` and `pywg`."""
    found = _NEARLY_SETTING.match(line)
    return found[1] if found else None


def name_start(line: str) -> int | None:
    """Where in the line a peer's name begins, counted from 0; None when the comment gives none."""
    found = _NAME.match(line)
    return found.end() if found else None


def references(text: str) -> list[str | None]:
    """The variables that `$NAME` and `${NAME}` in a text refer to; None for a `$` without a name."""
    found = (match for match in _REFERENCE.finditer(text) if match[0] != "$$")
    return [match[1] or match[2] for match in found]


def expand(text: str, values: dict[str, str]) -> str:
    """Put values in the places of `$NAME` and `${NAME}`, and `$` in that of `$$`."""
    return _REFERENCE.sub(
        lambda found: "$" if found[0] == "$$" else values[found[1] or found[2]],
        text,
    )


def only_reference(text: str) -> str | None:
    """The variable's name, when the text is one reference and nothing else."""
    found = _REFERENCE.fullmatch(text)
    return (found[1] or found[2]) if found else None
