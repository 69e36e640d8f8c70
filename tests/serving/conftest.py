"""Checkpoints of the tests of export formats."""

from tests.formats.conftest import checkpoint  # noqa: F401 - a fixture
