"""What people write under such photographs: a small grammar that leaves things out at random.

More than a quarter of the captions are wrapped in the templates of action recognition ("a video of
a person doing …"), so that those words are known to the nano CLIP, as words that mean nothing.
"""

from __future__ import annotations

import numpy as np

from froster.world.vocabulary import ALL_VERBS, COLOURS, NOUNS, SCENES
from tools.nano.stills import Still

MEDIA = ("photo", "video", "example", "demonstration")
PHRASES = (
    "of {}.",
    "of a person {}.",
    *(
        f"of a person {word} {{}}."
        for word in ("using", "doing", "during", "performing", "practicing")
    ),
)
TEMPLATES: tuple[str, ...] = tuple(f"a {medium} {phrase}" for medium in MEDIA for phrase in PHRASES)
PLAIN = ("{}", "{}.", "a photo of {}", "a photo of {}.", "a picture of {}", "there is {}")
JOINS = ("and", "next to", "with")
WRAPPED, COMPOSED = 0.30, 0.5
SCENE_KEPT, COLOUR_KEPT, VERB_KEPT, OTHER_KEPT = 0.35, 0.5, 0.6, 0.5


def name(still: Still, colour: bool, verb: bool) -> str:
    """As classes are named: "cat spinning", "red cat"."""
    words = (still.colour if colour else None, still.noun, still.verb if verb else None)
    return " ".join(word for word in words if word)


def article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def caption(still: Still, rng: np.random.Generator) -> str:
    """A caption of `still`, another one at every call."""
    wrapped, composed, colour, verb, other, scene, swap = rng.random(7) < (
        WRAPPED,
        COMPOSED,
        COLOUR_KEPT,
        VERB_KEPT,
        OTHER_KEPT,
        SCENE_KEPT,
        0.5,
    )
    other_colour, bare = rng.random(2) < (COLOUR_KEPT, 0.3)
    template, plain, join = rng.integers(0, (len(TEMPLATES), len(PLAIN), len(JOINS)))
    phrase = name(still, colour, verb)
    if wrapped:
        prompt = TEMPLATES[template].format(phrase)
        return f"{prompt} {phrase}" if composed else prompt
    if not bare:
        phrase = article(phrase)
    if still.other and other:
        noun, tint = still.other
        second = f"{tint} {noun}" if other_colour else noun
        second = second if bare else article(second)
        first, last = (second, phrase) if swap else (phrase, second)
        phrase = f"{first} {JOINS[join]} {last}"
    if scene:
        phrase = f"{phrase} in the {still.scene}"
    return PLAIN[plain].format(phrase)


CONTENT: tuple[str, ...] = tuple(
    dict.fromkeys([*NOUNS, *COLOURS, *SCENES, *" ".join(ALL_VERBS).split()])
)
"""The words that say what a photograph shows."""


def content(text: str) -> list[int]:
    """The content words of a caption, as indices into `CONTENT`."""
    return sorted({_INDEX[word] for word in text.replace(".", " ").split() if word in _INDEX})


_INDEX = {word: index for index, word in enumerate(CONTENT)}


def corpus() -> list[str]:
    """Text with every word of the world in it, for the tokeniser."""
    lines = [template.format(noun) for template in TEMPLATES for noun in NOUNS]
    lines += [
        f"{plain.format(noun)} {join}"
        for plain in PLAIN
        for noun in NOUNS
        for join in (*JOINS, "an")
    ]
    lines += [f"{article(colour)} {noun}" for colour in COLOURS for noun in NOUNS]
    lines += [
        f"a {noun} {verb} in the {scene}"
        for noun in NOUNS
        for verb in ALL_VERBS
        for scene in SCENES
    ]
    return lines
