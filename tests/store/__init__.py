"""Tests of the store. The modules that hold assertions and are no tests say why they fail, as tests do."""

import pytest

for module in ("contract_names", "contract_messages", "contract_reading", "replay", "samples"):
    pytest.register_assert_rewrite(f"tests.store.{module}")
