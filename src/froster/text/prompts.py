"""Templates: how a label becomes the texts that a model is asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from froster.errors import UsageError, one_of

_MEDIA = ("photo", "video", "example", "demonstration")
_VERBS = ("using", "doing", "during", "performing", "practicing")
_TAILS = ("{}.", "a person {}.", *(f"a person {verb} {{}}." for verb in _VERBS))

KINETICS_28 = tuple(f"a {medium} of {tail}" for medium, tail in product(_MEDIA, _TAILS))
"""The 28 templates of the released code, in its order ("a example" is its spelling, and weights
were trained on it)."""


@dataclass(frozen=True)
class Prompting:
    """How a label becomes the texts that a model is asked for."""

    templates: tuple[str, ...] = KINETICS_28
    """Sentences with a `{}` for the label."""
    form: Literal["froster", "plain"] = "froster"
    """`froster`, as released: a template is filled with the label's name, followed by the whole
    label ("a photo of archery. archery: a person shoots …"), and the bare label is one prompt more.
    `plain`: the template filled with the label."""

    def __post_init__(self) -> None:
        one_of("prompt form", self.form, "froster", "plain")
        if self.form == "plain" and not self.templates:
            raise UsageError("plain prompts need a template; {} alone is the label itself")
        for template in self.templates:
            if "{}" not in template:
                raise UsageError(
                    f"the prompt template {template!r} has no {{}} to put the label's name in"
                )

    def prompts(self, labels: Sequence[str]) -> list[list[str]]:
        """All prompts of all labels, template by template; in FROSTER's form the bare labels come
        last.

        A label is "Name" or "Name: description", the name being all before the first colon.
        """
        # str.format would also read other braces of a template.
        if self.form == "plain":
            return [
                [template.replace("{}", label) for label in labels] for template in self.templates
            ]
        names = [label.partition(":")[0] for label in labels]
        rows = [
            [
                f"{template.replace('{}', name)} {label}"
                for name, label in zip(names, labels, strict=True)
            ]
            for template in self.templates
        ]
        return [*rows, list(labels)]


FROSTER_PROMPTS = Prompting()
CLIP_CONTEXT = 77
"""Tokens that CLIP's text tower reads."""


DESCRIBED = 64
"""Tokens within which every shipped description fits in FROSTER's form."""


def fitting(prompting: Prompting, context: int) -> Prompting:
    """The plain form for a text tower that would cut most prompts of FROSTER's, which say the label
    twice (PE-Core's 32 tokens; 16 of the smallest So400m)."""
    if context >= DESCRIBED or not prompting.templates:
        return prompting
    return dataclasses.replace(prompting, form="plain")
