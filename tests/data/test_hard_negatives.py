import math

import numpy as np
import pytest

from lightning_jv5.data.hard_negatives import NegativeRules, choose_negatives


def slow_top(similarities: list[float], positive: float, rules: NegativeRules) -> tuple[list[int], int]:
    """The rules for one row, one candidate after the other."""
    places, over = [], 0
    for place, similarity in enumerate(similarities):
        if place < rules.skip_top or similarity == -math.inf:
            continue
        too_similar = (rules.absolute_margin is not None and similarity > positive - rules.absolute_margin) or (
            rules.relative_margin is not None and similarity > positive - rules.relative_margin * abs(positive)
        )
        if too_similar:
            over += 1
        else:
            places.append(place)
    places = places[: rules.negatives]
    return places + [-1] * (rules.negatives - len(places)), over


def some_candidates(rows: int = 50, depth: int = 12) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    similarities = -np.sort(-generator.uniform(-0.5, 1, (rows, depth)).astype(np.float32), axis=1)
    similarities[::5, 3:] = -np.inf  # rows with fewer candidates
    return similarities, generator.uniform(-0.5, 1, rows).astype(np.float32)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"relative_margin": None},
        {"relative_margin": None, "absolute_margin": 0.25},
        {"relative_margin": 0.5, "absolute_margin": 0.1, "skip_top": 2},
        {"negatives": 10, "skip_top": 1, "relative_margin": 0.0},
    ],
)
def test_the_most_similar_are_chosen_as_the_rules_say(settings: dict[str, float | None]) -> None:
    rules = NegativeRules(**{"negatives": 3, "depth": 12, **settings})  # type: ignore[arg-type]
    similarities, positive = some_candidates()
    chosen = choose_negatives(similarities, positive, np.arange(len(positive)), rules)
    expected = [
        slow_top(row, value, rules) for row, value in zip(similarities.tolist(), positive.tolist(), strict=True)
    ]
    assert chosen.places.tolist() == [places for places, _ in expected]
    assert chosen.over_limit.tolist() == [over for _, over in expected]


def test_random_ones_are_drawn_from_what_the_rules_allow() -> None:
    similarities, positive = some_candidates(rows=400)
    every = NegativeRules(negatives=11, depth=12, skip_top=1)
    rules = NegativeRules(negatives=3, depth=12, skip_top=1, sampling="random", seed=1)
    numbers = np.arange(len(positive))
    allowed = choose_negatives(similarities, positive, numbers, every).places
    drawn = choose_negatives(similarities, positive, numbers, rules).places
    for row, from_these in zip(drawn, allowed, strict=True):
        taken = row[row >= 0].tolist()
        assert set(taken) <= set(from_these.tolist())
        assert taken == sorted(set(taken))
        assert len(taken) == min(3, (from_these >= 0).sum())


def test_draws_are_even_and_depend_on_seed_and_row_alone() -> None:
    similarities = np.zeros((20_000, 10), np.float32)
    positive = np.ones(20_000, np.float32)
    rules = NegativeRules(negatives=3, depth=10, sampling="random", seed=1)
    numbers = np.arange(20_000)
    drawn = choose_negatives(similarities, positive, numbers, rules).places
    counts = np.bincount(drawn.reshape(-1), minlength=10)
    assert (abs(counts - 6000) < 6 * math.sqrt(6000 * 0.7)).all()
    assert len({tuple(row) for row in drawn.tolist()}) == math.comb(10, 3)
    part = choose_negatives(similarities[:7], positive[:7], numbers[500:507], rules).places
    assert part.tolist() == drawn[500:507].tolist()
    other = choose_negatives(similarities, positive, numbers, NegativeRules(3, 10, sampling="random", seed=2)).places
    assert 0.002 < (other == drawn).all(axis=1).mean() < 0.02  # 1 in 120 by chance


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"negatives": 0}, "Got negatives 0; need at least 1"),
        ({"skip_top": -1}, "Got skip_top -1; need at least 0"),
        ({"depth": 9, "skip_top": 3}, "Got depth 9, of which skip_top leaves out 3; need at least 10 for 7 negatives"),
        ({"absolute_margin": -0.1}, r"Got absolute_margin -0\.1; need between 0 and 2, or none"),
        ({"relative_margin": 1.5}, r"Got relative_margin 1\.5; need between 0 and 1, or none"),
        ({"sampling": "best"}, "Got sampling 'best'; need top or random"),
        ({"margin_from": "mean"}, "Got margin_from 'mean'; need lowest or own"),
    ],
)
def test_wrong_rules_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NegativeRules(**settings)  # type: ignore[arg-type]
