"""Under tox the installed wheel is tested, and not the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import harness


@pytest.mark.skipif("TOX_ENV_DIR" not in os.environ, reason="only tox installs the wheel")
def test_under_tox_the_harness_comes_from_site_packages():
    assert "site-packages" in Path(harness.__file__).parts
