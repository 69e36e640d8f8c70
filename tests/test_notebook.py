"""What a notebook does: the snippets of the docstrings run, and a result shows itself."""

import re
import textwrap

import pytest

import pruning
from pruning import RunConfig, RunStore, prune, visualization
from pruning.errors import RunError
from tests.conftest import needs_demo

SNIPPET = re.compile(r"(?:^from pruning import .*$\n)(?:.*\S.*\n|\n(?=\S))*", re.MULTILINE)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNESCOPE_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield prune(RunConfig.create(samples=2, iterations=2, eval_blocks=2))


@needs_demo
def test_a_result_prints_itself(finished):
    lines = repr(finished).splitlines()
    assert 6 <= len(lines) <= 19
    assert repr(finished).index("divergence mean") < repr(finished).index("perplexity mean")
    assert lines[0].startswith("iterative, 50.0% of demo removed in 2 iterations")
    html = finished._repr_html_()
    assert html.count("<tr>") == len(lines) - 2 and "<td>perplexity wiki</td>" in html


@needs_demo
def test_one_call_draws_a_run(finished):
    for figure in (
        visualization.importance(finished.run),
        visualization.importance(finished.run, "attn", iteration=2),
        visualization.mask_map(finished.run),
        visualization.perplexity(finished.run),
    ):
        assert figure.layout.title.text and figure.data
    with pytest.raises(RunError, match="no iteration 3 .* it has 1, 2"):
        visualization.importance(finished.run, iteration=3)


@needs_demo
@pytest.mark.parametrize("module", [pruning, visualization], ids=["pruning", "visualization"])
def test_the_snippets_of_docstrings_run(module, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRUNESCOPE_RUNS", str(finished.run.path.parent))
    snippet = textwrap.dedent(SNIPPET.search(module.__doc__)[0]).replace(".show()", "")
    snippet = snippet.replace("ratio=0.5", "ratio=0.5, samples=2, iterations=1, eval_blocks=0")
    exec(compile(snippet, module.__name__, "exec"), {})


def test_everything_that_is_promised_is_there():
    for name in pruning.__all__:
        assert getattr(pruning, name) is not None
    assert callable(pruning.export) and callable(pruning.load) and RunStore is pruning.RunStore
