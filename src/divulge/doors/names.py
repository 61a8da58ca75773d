"""The words that people use for sides, keys and columns, and what divulge makes of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from divulge.errors import InputError

#: What a `from_splits` mapping may hold.
KEYS = (
    "logits", "probs", "predictions", "labels", "loss", "nll", "entropy", "perplexity",
    "features", "ids", "groups", "traces", "signals", "columns",
)  # fmt: skip
OUTPUTS = ("logits", "probs", "predictions")
#: Signals that are low for members: negated once, at the door.
LOW_FOR_MEMBERS = ("loss", "nll", "entropy", "perplexity")

#: Flat name -> the words that stand for it in a table or in a single mapping.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "member": ("member", "split", "is_member", "in_train"),
    "labels": ("labels", "label", "y", "y_true", "target"),
    "logits": ("logits",),
    "probs": ("probs", "probabilities"),
    "predictions": ("predictions", "prediction"),
    "ids": ("ids", "id"),
    "groups": ("groups", "group"),
    "features": ("features",),
    "traces": ("traces",),
    **{name: (name,) for name in LOW_FOR_MEMBERS},
}
ROLES: Mapping[str, str] = {word: role for role, words in SYNONYMS.items() for word in words}

#: The arguments of a table's door that the command line calls otherwise.
_OPTIONS = {
    "columns": "--column",
    "member_values": "--member-value",
    "nonmember_values": "--nonmember-value",
    "lower_is_member": "--lower-is-member",
}

MEMBER_WORDS = ("train", "member", "in", "1", "true")
NONMEMBER_WORDS = ("test", "holdout", "nonmember", "non-member", "out", "0", "false")
VALIDATION_WORDS = ("val", "valid", "validation", "dev")

#: Longest text a label, class name, column value or column name may have.
LONGEST_TEXT = 10_000


def shown(value: object) -> str:
    """A value as it may stand in a message: quoted, control characters escaped, at most 40 characters of it.

    >>> len(shown("x" * 1_000_000))
    43
    """
    if isinstance(value, str):
        return repr(str(value[:40])) + ("…" if len(value) > 40 else "")
    text = str(value)
    return text if len(text) <= 40 else text[:40] + "…"


def listed(values: Iterable[object], limit: int = 5) -> str:
    """The first few values, and how many more there are.

    >>> listed(range(1000), limit=2)
    '0, 1 and 998 more'
    """
    every = list(values)
    text = ", ".join(shown(value) for value in every[:limit])
    return text + (f" and {len(every) - limit:,} more" if len(every) > limit else "")


def option(argument: str) -> str:
    """What the command line calls an argument of `Evidence.from_table`.

    >>> option("member"), option("columns")
    ('--member', '--column')
    """
    return _OPTIONS.get(argument, f"--{argument}")


def suggestion(name: str, known: Collection[str]) -> str:
    """`Did you mean 'logits'? ` or nothing.

    >>> len(suggestion("logit", ["logits", "probs"]))
    23
    """
    close = difflib.get_close_matches(name[:80].lower(), [word[:80] for word in known], n=1)
    return f"Did you mean {shown(close[0])}? " if close else ""


def unknown(what: str, name: str, known: Collection[str]) -> InputError:
    """The error for a name that nobody knows."""
    return InputError(
        "DV001",
        f"{what} {shown(name)} is not known. {suggestion(name, known)}Known: {listed(known, 20) or 'none here'}.",
    )


class Side(NamedTuple):
    """Which side a word stands for: `member` True or False, or None for a word of validation data.

    >>> int(side_of("Train").member)
    1
    """

    member: bool | None


def side_of(value: object, members: Sequence[object] = (), nonmembers: Sequence[object] = ()) -> Side | None:
    """The side that a word stands for, by the caller's own words first; None: for neither."""
    word = str(value).strip().lower()
    if word in [str(own).strip().lower() for own in members]:
        return Side(True)
    if word in [str(own).strip().lower() for own in nonmembers]:
        return Side(False)
    if word in MEMBER_WORDS:
        return Side(True)
    if word in NONMEMBER_WORDS:
        return Side(False)
    return Side(None) if word in VALIDATION_WORDS else None


def validation_refused(where: str) -> InputError:
    """The error for validation data that nobody called non-members."""
    return InputError(
        "DV011",
        f"{where}: validation data is not taken for non-members unless you say so, since data that chose "
        "the model are "
        'not clean non-members. Leave these rows out, or pass nonmember_values=("val",) '
        "(--nonmember-value val) or your own word.",
    )


class SplitName(NamedTuple):
    """A name such as `logits_train`, in its two parts."""

    name: str
    side: Side


_SPLIT_WORD = r"(?P<{}>train|test|members?|nonmembers?|non_members?|holdout|in|out|val|valid|validation|dev)"
_SPLIT_NAME = re.compile(
    rf"(?i)(?:(?P<name>.+?)_{_SPLIT_WORD.format('after')}|{_SPLIT_WORD.format('before')}_(?P<rest>.+))"
)


def split_name(name: str, members: Sequence[object] = (), nonmembers: Sequence[object] = ()) -> SplitName | None:
    """The two parts of `logits_train` or `train_logits`; None for a name without a side in it.

    >>> split_name("labels_test").side.member, split_name("age")
    (False, None)
    """
    # `in_` in front is a word of its own in most names (`in_channels`), and `in_train` is a member column.
    match = _SPLIT_NAME.fullmatch(name)
    if match is None or name.lower().startswith(("in_", "out_")):
        return None
    word = (match["after"] or match["before"]).lower()
    if word.endswith("members"):
        word = word[:-1]
    side = side_of(word.replace("_", "-"), members, nonmembers)
    return None if side is None else SplitName(match["name"] or match["rest"], side)
