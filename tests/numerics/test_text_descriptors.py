"""Text descriptors against Evidently's, which take letters for those of English, and nothing for an empty text."""

from __future__ import annotations

import string
from collections.abc import Callable

import numpy as np
import pytest

from measures.evidently_distances import warm_up
from schemas.descriptors import describe_texts
from schemas.texts import TextColumn

Theirs = dict[str, Callable[[str], float]]

ENGLISH = string.ascii_letters + string.digits + string.punctuation + "      "
WORLD = ENGLISH + "äößéñ русский 日本語 ½ \u00a0\n\t😀"


@pytest.fixture(scope="module")
def theirs() -> Theirs:
    """Evidently's descriptors of one text."""
    warm_up()
    from evidently.legacy.features.non_letter_character_percentage_feature import NonLetterCharacterPercentage
    from evidently.legacy.features.text_length_feature import TextLength
    from evidently.legacy.features.word_count_feature import WordCount

    classes = {"num_chars": TextLength, "num_words": WordCount, "non_letter_percentage": NonLetterCharacterPercentage}
    return {name: kind(column_name="text").apply for name, kind in classes.items()}


def draw_texts(alphabet: str, num: int = 500) -> list[str]:
    rng = np.random.default_rng(3)
    return ["".join(rng.choice(list(alphabet), size)) for size in rng.integers(1, 80, num)]


@pytest.mark.parametrize("alphabet", [ENGLISH, WORLD])
def test_lengths_and_shares_are_those_of_evidently(theirs: Theirs, alphabet: str) -> None:
    texts = draw_texts(alphabet)
    found = describe_texts(TextColumn.of(texts))
    assert found["num_chars"].tolist() == [theirs["num_chars"](text) for text in texts]
    shares = [theirs["non_letter_percentage"](text) for text in texts]
    np.testing.assert_allclose(100 * found["non_letter_share"], shares, rtol=0, atol=1e-12)


def test_words_are_those_of_evidently_in_english(theirs: Theirs) -> None:
    texts = draw_texts(ENGLISH)
    found = describe_texts(TextColumn.of(texts))["num_words"]
    assert found.tolist() == [theirs["num_words"](text) for text in texts]


def test_words_of_other_languages_and_across_lines(theirs: Theirs) -> None:
    texts = ["русский язык", "one\ntwo", "Größe und Maß"]
    assert [theirs["num_words"](text) for text in texts] == [0, 1, 3]
    assert describe_texts(TextColumn.of(texts))["num_words"].tolist() == [2, 2, 3]
