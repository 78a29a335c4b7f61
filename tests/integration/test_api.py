from __future__ import annotations

import subprocess
import sys


def test_the_functions_of_the_package_stay_functions_whatever_is_imported():
    code = """
import harness
first = harness.agreement([1, 2, 3], [1, 2, 4]).srcc
import harness.engine.run, harness.models, harness.datasets, harness.engine.scorer, harness.engine.run_all
assert harness.agreement([1, 2, 3], [1, 2, 4]).srcc == first > 0.999
assert all(callable(getattr(harness, name)) for name in harness.__all__)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error():
    import pytest

    import harness

    with pytest.raises(AttributeError, match="loda_model"):
        harness.loda_model  # noqa: B018
