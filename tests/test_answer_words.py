"""What the answer says: the news first, the zones, what matters, and the same numbers wherever they stand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from small_study import NAME, Place, finished_study, small_spec

from hpo.analysis.matters import Cost, Mattering, Matters
from hpo.analysis.values import Answer, Choice, Expected, Noise
from hpo.analysis.zones import Standing, WorthSource, Zone, Zones
from hpo.cli.run import print_outcome
from hpo.ledger.values import Point
from hpo.reading.findings import Findings, find_out
from hpo.report.answer import answer_lines
from hpo.report.language import SPOKEN, Language
from hpo.report.markdown import markdown
from hpo.report.side_by_side import statements, table
from hpo.report.told import to_json
from hpo.report.zones import costs_lines, zone_lines
from hpo.search_here import Launched
from hpo.storage import open_engine
from hpo.study import Configuration

GOOD, WORSE, OPEN = Standing.AS_GOOD, Standing.WORSE, Standing.OPEN


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished_study(tmp_path_factory.mktemp("answered"), total=40, pruner={"kind": "none"})


@pytest.fixture(scope="module")
def engine(place: Place) -> Iterator[sa.Engine]:
    engine = open_engine(place.url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def findings(engine: sa.Engine) -> Findings:
    return find_out(engine, NAME)


def zones(*pieces: tuple[float, float, Standing], worth: float = 0.16) -> Zones:
    return Zones(tuple(Zone(*piece) for piece in pieces), worth, WorthSource.SEED_SD)


def answered(findings: Findings, **changes: object) -> Findings:
    return replace(findings, answer=replace(findings.answer, **changes))  # type: ignore[arg-type]


def said(findings: Findings, pieces: Zones, language: Language = "en") -> list[str]:
    return zone_lines(answered(findings, zones=pieces), SPOKEN[language])


# --- zones


def test_each_kind_of_zone_is_named_with_its_ends_and_what_it_costs(findings: Findings) -> None:
    pieces = zones((-4, -0.3, WORSE), (-0.3, 0.477, OPEN), (0.477, 1.954, GOOD), (1.954, 6, OPEN))

    assert said(findings, pieces) == [
        "Any ratio lr / backbone_lr from 3 to 90 is as good as the best (costs less than 0.16 breaths/min).",
        "It costs more below 0.5.",
        "It is not known yet from 0.5 to 3 and above 90.",
        "Each of these is 95 % sure, provided that the loss changes smoothly between the places tried.",
    ]


def test_what_is_likely_is_said_beside_what_is_sure_and_not_called_unknown(findings: Findings) -> None:
    sure = zones((-4, -1, WORSE), (-1, 0, OPEN), (0, 1, GOOD), (1, 2, OPEN), (2, 4, WORSE), (4, 6, OPEN))
    likely = zones((-4, -1, WORSE), (-1, 1, GOOD), (1, 1.5, OPEN), (1.5, 6, WORSE))

    assert said(findings, replace(sure, likely=likely.pieces)) == [
        "Any ratio lr / backbone_lr from 1 to 10 is as good as the best (costs less than 0.16 breaths/min), "
        "and likely (80 %) any from 0.1 to 10.",
        "It costs more below 0.1 and from 100 to 10000, and likely (80 %) above 32.",
        "It is not known yet from 10 to 32.",
        "What is not called likely is 95 % sure (60 % of the range searched). All this provided that "
        "the loss changes smoothly between the places tried.",
    ]


def test_what_is_only_likely_comes_before_what_is_not_known(findings: Findings) -> None:
    likely = zones((-4, -1, WORSE), (-1, 1, GOOD), (1, 1.5, OPEN), (1.5, 6, WORSE))

    assert said(findings, replace(zones((-4, 6, OPEN)), likely=likely.pieces))[:3] == [
        "Any ratio lr / backbone_lr from 0.1 to 10 is likely (80 %) as good as the best (costs less than "
        "0.16 breaths/min); none is for sure yet.",
        "It likely (80 %) costs more below 0.1 and above 32.",
        "It is not known yet from 10 to 32.",
    ]


def test_where_every_ratio_is_as_good_the_ratio_does_not_matter(findings: Findings) -> None:
    first, *others = said(findings, zones((-4, 6, GOOD)))

    assert first.startswith(
        "The ratio lr / backbone_lr does not matter here: any from 1e-4 to 1e6 is as good"
    )
    assert len(others) == 1


def test_where_nothing_is_settled_one_line_says_so(findings: Findings) -> None:
    assert said(findings, zones((-4, 6, OPEN))) == [
        f"Which ratios lr / backbone_lr are as good as the best is not known yet: {findings.counts.complete} "
        "complete trials."
    ]


def test_where_only_bad_ratios_are_known_they_are_named(findings: Findings) -> None:
    lines = said(findings, zones((-4, 2, OPEN), (2, 6, WORSE)))

    assert lines[0].endswith(f"is not known yet: {findings.counts.complete} complete trials.")
    assert lines[1:3] == [
        "It costs more above 100.",
        "It is not known yet below 100.",
    ]


def test_two_good_pieces_are_both_named(findings: Findings) -> None:
    pieces = zones((-4, -1, WORSE), (-1, 0, GOOD), (0, 1, OPEN), (1, 2, GOOD), (2, 6, WORSE))

    assert "from 0.1 to 1 or from 10 to 100 is as good" in said(findings, pieces)[0]
    assert "It costs more below 0.1 and above 100." in said(findings, pieces)


@pytest.mark.parametrize(
    "pieces",
    [
        zones((-4, 6, GOOD)),
        zones((-4, 6, OPEN)),
        zones((-4, 6, WORSE)),
        zones((-4, 0.5, WORSE), (0.5, 6, GOOD)),
        zones((-4, 0.5, GOOD), (0.5, 1, OPEN), (1, 2, WORSE), (2, 6, OPEN)),
        replace(zones((-4, 6, OPEN)), likely=zones((-4, 1, WORSE), (1, 2, GOOD), (2, 6, WORSE)).pieces),
    ],
)
def test_both_languages_say_the_same_lines_with_the_same_numbers(findings: Findings, pieces: Zones) -> None:
    english, chinese = said(findings, pieces), said(findings, pieces, "zh")
    number = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")

    assert len(english) == len(chinese)
    for line, other in zip(english, chinese, strict=True):
        assert sorted(number.findall(line)) == sorted(number.findall(other))


# --- what matters


def matter(standing: Mattering, down: Cost | None, up: Cost | None) -> Matters:
    return Matters(-3.2, down, up, standing, zones((-5, -2, GOOD)))


def test_a_rate_that_matters_is_said_with_what_a_decade_off_costs(findings: Findings) -> None:
    matters = {
        "backbone_lr": matter(Mattering.MATTERS, Cost(2.13, 1.5, 2.8), Cost(0.4, -0.1, 0.9)),
        "lr": matter(Mattering.DOES_NOT_MATTER, None, None),
    }

    assert costs_lines(answered(findings, matters=matters), SPOKEN["en"]) == [
        "Keep backbone_lr near 6.3e-4: a decade lower costs 2.1 breaths/min, "
        "a decade higher may cost nothing.",
        "lr may be anything from 1e-5 to 0.01.",
    ]


def test_a_rate_of_which_it_is_not_known_says_so(findings: Findings) -> None:
    matters = {"lr": matter(Mattering.OPEN, None, None)}

    assert costs_lines(answered(findings, matters=matters), SPOKEN["en"]) == [
        "Whether lr matters is not known yet."
    ]


# --- the news first


@pytest.mark.parametrize(
    ("against", "told"),
    [
        ("beats", "better than the published default: "),
        ("does not beat", "no better than the published default: "),
        ("cannot be told", "not yet known to be better than the published default: "),
    ],
)
def test_the_first_line_is_how_the_choice_stands_to_the_published_default(
    findings: Findings, against: str, told: str
) -> None:
    first = answer_lines(answered(findings, against_baseline=against, baseline=Expected(2.3512, 0.05)))[0]

    assert told in first
    assert "the default has 2.35" in first


@pytest.mark.parametrize(
    ("against", "told"),
    [
        ("beats", None),
        ("does not beat", "No better than a constant: always guessing 5 breaths/min has MAE 5"),
        ("cannot be told", "Not known to be better than a constant: always guessing 5 breaths/min"),
    ],
)
def test_a_constant_is_spoken_of_in_the_second_line_where_it_is_not_beaten(
    findings: Findings, against: str, told: str | None
) -> None:
    lines = answer_lines(answered(findings, against_trivial=against))

    assert lines[1].startswith(told) if told else "a constant" not in "".join(lines)


def test_the_luckiest_trial_is_told_with_what_to_expect_of_it(findings: Findings) -> None:
    assert findings.answer.best is not None
    best = replace(findings.answer.best, number=2, validation_loss=3.3712)
    noise = Noise(0.3, "model")

    lucky = answer_lines(answered(findings, best=best, optimism=0.591, noise=noise))
    fair = answer_lines(answered(findings, best=best, optimism=0.02, noise=noise))

    expected = "Do not report it: with new seeds expect about 3.96 breaths/min."
    assert f"Luckiest trial: no. 2, 3.37 breaths/min. {expected}" in lucky
    assert "Luckiest trial: no. 2, 3.37 breaths/min, and with new seeds about as much is expected." in fair


def test_a_better_place_without_a_trial_near_is_worth_trying_and_not_the_answer(findings: Findings) -> None:
    choice = Choice(1e-3, 1e-4, 10.0, "l1", 2.30, 0.05)
    near, better = (Choice(2e-3, 1e-4, 20.0, "l1", loss, 0.05) for loss in (2.29, 2.20))

    tried, moved = (
        "\n".join(answer_lines(answered(findings, choice=choice, worth_trying=place)))
        for place in (near, better)
    )

    assert "Use lr 1e-3, backbone_lr 1e-4 and the loss l1 (ratio 10)." in tried
    assert "Worth trying" not in tried
    assert "Of the places tried the best is lr 1e-3, backbone_lr 1e-4 with the loss l1 (ratio 10)." in moved
    assert "Worth trying next: lr 2e-3, backbone_lr 1e-4 and the loss l1." in moved


def test_before_the_first_trial_ends_it_says_what_is_under_way_and_what_is_to_be_beaten(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path)
    place.open(5)
    ledger, spec = place.ledger(), small_spec()
    study = ledger.study(NAME)
    worker = ledger.register_worker("here", 1, "cpu", {})
    for _ in range(2):
        claim = ledger.claim(study.study_id, worker, lease_s=60)
        assert claim is not None
        claim = ledger.begin(claim, claim.configuration or Configuration(1e-3, 1e-4, "l1", 3), spec.space, {})
        assert claim is not None
        ledger.report([Point(claim, epoch, 1.0, 4.0, {}, 1.0) for epoch in (1, 2)], lease_s=60)
    engine = open_engine(place.url)

    first = answer_lines(find_out(engine, NAME))[0]

    engine.dispose()
    assert first == (
        "small [synthetic signals]: no answer yet: no trial has finished (2 are under way, epoch 2 of 6). "
        "To beat: always guessing 5 breaths/min, MAE 5 breaths/min."
    )


def test_too_few_complete_trials_are_counted_by_how_they_ended(findings: Findings) -> None:
    counts = replace(findings.counts, complete=2, pruned=3, failed=1)
    trials = findings.trials.head(5).assign(end=["finished", "finished", "pruned", "diverged", "pruned"])
    few = replace(findings, counts=counts, trials=trials, answer=Answer({}, None, 5.0))

    first = answer_lines(few)[0]

    assert "no answer yet: 2 complete trials, 2 stopped early, 1 diverged and 1 failed so far" in first


# --- the same number everywhere


def test_the_same_numbers_stand_in_text_page_and_json(findings: Findings, place: Place) -> None:
    told, first = to_json(findings, place.url), answer_lines(findings)[0]
    page = markdown(findings)

    value, error = (told["answer"][key] for key in ("expected_validation_loss", "standard_error"))
    shown = re.search(r"expect MAE (\d+\.(\d+)) ± (\d+\.\d+)", first)
    assert shown is not None
    places = len(shown[2])
    assert (shown[1], shown[3]) == (f"{value:.{places}f}", f"{error:.{places}f}")
    assert page.count(f"{shown[1]} ± {shown[3]}") == 2
    assert all(line in page for line in answer_lines(findings))


def test_what_is_as_good_in_both_studies_is_said_of_two(findings: Findings) -> None:
    one = answered(findings, zones=zones((-4, 0, WORSE), (0, 2, GOOD), (2, 6, OPEN)))
    other = answered(findings, zones=zones((-4, 1, OPEN), (1, 3, GOOD), (3, 6, WORSE)))
    apart = answered(findings, zones=zones((-4, 3, WORSE), (3, 6, GOOD)))

    assert "As good as the best in both: any ratio from 10 to 100." in statements(one, other)
    assert "No ratio is known to be as good as the best in both." in statements(one, apart)


def test_what_is_likely_as_good_in_both_studies_is_said_where_nothing_is_sure(findings: Findings) -> None:
    hazy = replace(zones((-4, 6, OPEN)), likely=zones((-4, 0, WORSE), (0, 2, GOOD), (2, 6, OPEN)).pieces)
    sure = replace(
        zones((-4, 1, OPEN), (1, 3, GOOD), (3, 6, WORSE)), likely=zones((-4, 1, OPEN), (1, 6, GOOD)).pieces
    )
    one, other = answered(findings, zones=hazy), answered(findings, zones=sure)

    assert "Likely (80 %) as good as the best in both: any ratio from 10 to 100." in statements(one, other)
    assert ("ratios as good as the best", "likely (80 %) from 1 to 100", "from 10 to 1000") in table(
        one, other
    )


@pytest.mark.parametrize(("is_late", "said"), [(False, "stopped at {} of"), (True, "the time is up: {} of")])
def test_a_search_that_ended_early_says_whether_its_time_was_up(
    findings: Findings, capsys: pytest.CaptureFixture[str], is_late: bool, said: str
) -> None:
    finished = findings.counts.finished
    launched = Launched(findings, finished + 5, did_nothing=False)

    print_outcome(launched, "", "", "en", is_late=is_late, as_json=False)

    assert f"{said.format(finished)} {finished + 5} trials; to go on: hpo run" in capsys.readouterr().out
