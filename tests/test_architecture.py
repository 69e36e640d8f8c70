"""The shape of the code, held by its syntax trees: imports go one way, and pages need no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "pruning"
ORDER = [
    "config",
    "sites",
    "moments",
    "scores",
    "masks",
    "surgery",
    "domains",
    "cached",
    "folders",
    "hub",
    "model_files",
    "reading",
    "models",
    "calibration",
    "evaluation",
    "significance",
    "tasks",
    "zeroshot",
    "engine",
    "runs",
    "jobs",
    "checkpoint",
    "gguf_file",
    "homes",
    "export",
    "llamacpp",
    "bench",
    "needs",
    "records",
    "status",
    "worker",
    "results",
    "visualization",
    "experiments",
    "experiment_claims",
    "experiment_report",
    "terminal",
    "commands",
    "cli",
]
TORCH_FREE = [
    "config",
    "sites",
    "moments",
    "scores",
    "masks",
    "domains",
    "model_files",
    "models",
    "tasks",
    "needs",
    "runs",
    "jobs",
    "gguf_file",
    "export",
    "cli",
    "worker",
    "results",
    "visualization",
    "experiments",
    "experiment_report",
]


def files(module: str) -> list[Path]:
    """A module's one file, or all those of its package."""
    folder = PACKAGE / module
    return sorted(folder.glob("*.py")) if folder.is_dir() else [PACKAGE / f"{module}.py"]


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_those_above_it(module):
    names = set().union(*map(imports, files(module)))
    used = {name.split(".")[1] for name in names if name.startswith("pruning.")}
    above = set(ORDER[: ORDER.index(module)])
    assert used & set(ORDER) <= above | {module}


def test_the_engine_knows_nothing_of_streamlit_or_pages():
    for path in PACKAGE.rglob("*.py"):
        assert not {n.split(".")[0] for n in imports(path)} & {"streamlit", "pages", "ui", "app"}, path


@pytest.mark.parametrize("module", ["moments", "scores", "masks"])
def test_the_maths_knows_no_model(module):
    assert not {n.split(".")[0] for file in files(module) for n in imports(file)} & {"transformers"}


def test_what_pages_read_needs_no_torch():
    code = "import sys\n" + "".join(f"import pruning.{name}\n" for name in TORCH_FREE)
    code += "print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_module_has_its_place():
    found = {
        path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    # beside the package's own two: what is copied into exports, and imports nothing of the project
    assert found - {"__init__", "__main__", "modeling_pruned"} == set(ORDER)
