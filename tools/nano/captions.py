"""What people write under such photographs: a small grammar that leaves things out at random.

More than a quarter of the captions are wrapped in the templates of action recognition ("a video of
a person doing …"), so that those words are known to the nano CLIP, as words that mean nothing. Of
things in motion a share is described by a sentence, in the forms in which a model is asked for
described labels ("a video of cat spinning. cat spinning: the cat turns round and round …").
"""

from __future__ import annotations

import re

import numpy as np

from froster.world.vocabulary import ALL_VERBS, COLOURS, MOTIONS, NOUNS, SCENES
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
DESCRIBED = 0.6
"""Share of the captions of things in motion that hold a sentence."""


def name(still: Still, colour: bool, verb: bool) -> str:
    """As classes are named: "cat spinning", "red cat"."""
    words = (still.colour if colour else None, still.noun, still.verb if verb else None)
    return " ".join(word for word in words if word)


def article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def sentence(still: Still, colour: bool = False) -> str:
    """As classes are described: "the cat turns round and round on one spot"."""
    assert still.verb is not None
    return f"the {name(still, colour, verb=False)} {MOTIONS[still.verb]}"


def described(still: Still, colour: bool, template: str, form: float) -> str:
    """A caption with a sentence, in a form by a number in 0..1: mostly those in which described
    labels are asked for, sometimes the sentence alone."""
    label = f"{name(still, colour, verb=True)}: {sentence(still)}"
    if form < 0.55:
        return f"{template.format(name(still, colour, verb=True))} {label}"
    if form < 0.7:
        return template.format(label)
    return label if form < 0.85 else sentence(still, colour)


def caption(still: Still, rng: np.random.Generator, sentences: float = DESCRIBED) -> str:
    """A caption of `still`, another one at every call; of things in motion that share is
    described."""
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
    chance, form = rng.random(2)
    template, plain, join = rng.integers(0, (len(TEMPLATES), len(PLAIN), len(JOINS)))
    if still.verb and chance < sentences:
        return described(still, bool(colour), TEMPLATES[template], form)
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
    """The content words of a caption, as indices into `CONTENT`. A sentence on a motion, which ends
    a caption, says the verb's words."""
    words = _WORD.findall(text)
    if "the" in words:
        ending = text.rstrip(".")
        words += [word for verb, end in _ENDINGS if ending.endswith(end) for word in verb.split()]
    return sorted({_INDEX[word] for word in words if word in _INDEX})


_WORD = re.compile("[a-z]+")
_ENDINGS = [(verb, f" {motion}") for verb, motion in MOTIONS.items()]
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
    lines += [f"the {noun} {motion}" for noun in NOUNS for motion in MOTIONS.values()]
    return lines
