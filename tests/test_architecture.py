"""The shape of the code, held by its syntax trees: imports go one way, and pages need no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "pruning"
# From the ground up. A package or module imports those above it in this list, and nothing below.
ORDER = [
    "errors",
    "formatting",
    "limits",
    "versions",
    "paths",
    "progress",
    "registry",
    "options",
    "files",
    "checksums",
    "outputs",
    "models",
    "text",
    "method",
    "config",
    "measure",
    "engine",
    "formats",
    "serving",
    "runs",
    "visualization",
    "experiments",
    "lessons",
    "cli",
]
# The mathematics, in the order in which one channel is followed from its activations to the mask.
METHOD = [
    *("statistics", "moments", "second_moments", "scores", "normalise", "damage", "units", "allocation"),
    *("compensation", "schedules", "mixture", "presets"),
]
# What pages, the command line's parser and the readers of runs import at once.
TORCH_FREE = [
    "config",
    "models.geometry",
    "models.mask",
    "models.delta",
    "models.folder",
    "models.loading",
    "text.sources",
    "measure.tasks",
    "method.scores",
    "engine.budget",
    "formats.format",
    "serving.engines",
    "serving.server",
    "runs.worker",
    "runs.jobs",
    "runs.preflight",
    "runs.report",
    "visualization",
    "experiments.report",
    "lessons.client",
    "cli.main",
]


def modules(name: str) -> list[Path]:
    """A module's one file, or all those of its package."""
    folder = PACKAGE / name
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{name}.py"]


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def used(names: set[str], under: str) -> set[str]:
    """The parts right under a package that imports name."""
    return {name.removeprefix(under).split(".")[0] for name in names if name.startswith(under)}


@pytest.mark.parametrize("name", ORDER)
def test_a_package_imports_only_those_above_it(name):
    found = used(set().union(*map(imports, modules(name))), "pruning.")
    assert found & set(ORDER) <= {*ORDER[: ORDER.index(name)], name}


@pytest.mark.parametrize("name", METHOD)
def test_the_mathematics_is_read_in_order(name):
    found = used(imports(PACKAGE / "method" / f"{name}.py"), "pruning.method.")
    assert found & set(METHOD) <= set(METHOD[: METHOD.index(name)])


def test_no_modules_import_each_other_in_a_circle():
    waiting = {}
    for path in PACKAGE.rglob("*.py"):
        if path.stem != "__init__":  # the face of a package imports its modules, which is its purpose
            waiting[".".join(("pruning", *path.relative_to(PACKAGE).with_suffix("").parts))] = imports(path)
    while ready := {name for name, found in waiting.items() if not found & waiting.keys() - {name}}:
        waiting = {name: found for name, found in waiting.items() if name not in ready}
    assert not waiting


def test_the_engine_knows_nothing_of_streamlit_or_pages():
    for path in PACKAGE.rglob("*.py"):
        assert not {n.split(".")[0] for n in imports(path)} & {"streamlit", "pages", "ui", "app"}, path


def test_the_mathematics_knows_no_model():
    for file in modules("method"):
        assert not {n.split(".")[0] for n in imports(file)} & {"transformers"}
        known = used(imports(file), "pruning.models.")
        assert known <= {"geometry", "mask"}, file


def test_what_pages_read_needs_no_torch():
    code = "import sys\n" + "".join(f"import pruning.{name}\n" for name in TORCH_FREE)
    code += "print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_module_has_its_place():
    found = {
        path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert found - {"__init__", "__main__"} == set(ORDER)
    method = {path.stem for path in modules("method")}
    assert method - {"__init__"} == set(METHOD)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_is_left_to_do(path):
    assert "TODO" not in path.read_text()
