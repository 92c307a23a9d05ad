"""What is done to a text before it is tokenised: each family of encoders was trained on texts that
were cleaned by one of three rules.

They are open_clip's `lower`, `canonicalize` (which is big_vision's) and `whitespace`. Transformers'
own SigLIP tokenizer does otherwise: `Playing_Guitar` becomes one word there.
"""

from __future__ import annotations

import html
import string
from collections.abc import Callable

import ftfy

# An underscore stands between words; every other sign is left out.
_SIGNS = str.maketrans("_", " ", string.punctuation.replace("_", ""))


def spaces(text: str) -> str:
    """Broken encodings repaired, HTML un-escaped, white space collapsed."""
    if text.isascii() and text.isprintable() and "&" not in text:  # nothing of that to mend
        return " ".join(text.split())
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def clip(text: str) -> str:
    """As `spaces`, in lower case."""
    return spaces(text).lower()


def canonical(text: str) -> str:
    """As `clip`, without ASCII punctuation; an underscore becomes a blank. A template must be
    filled before, as `{}` is punctuation."""
    return spaces(spaces(text).translate(_SIGNS)).lower()


RULES: dict[str, Callable[[str], str]] = {"clip": clip, "canonical": canonical, "spaces": spaces}
"""By their names in `TextConfig.clean`."""
