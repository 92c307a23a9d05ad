"""Two of the 28 templates, for tests that would spend their time on texts."""

from __future__ import annotations

import pytest

from froster.text.prompts import FROSTER_PROMPTS, KINETICS_28, Prompting

VARIABLE = "FROSTER_TEST_FEW_TEMPLATES"
"""Where it is set, programs that `quick` starts take few too."""


def use_few(patch: pytest.MonkeyPatch) -> None:
    few = KINETICS_28[::14]
    patch.setattr("froster.inference.model_folder.KINETICS_28", few)
    patch.setitem(vars(FROSTER_PROMPTS), "templates", few)
    patch.setattr(Prompting.__init__, "__defaults__", (few, FROSTER_PROMPTS.form))
    patch.setenv(VARIABLE, "1")
