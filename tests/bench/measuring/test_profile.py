"""Stacks are assigned to stages."""

import re

import pytest

from deploy.local import PROJECT_ROOT
from tests.bench.measuring.profile import OTHER, STAGES, shares, stage_of

RAW = """\
<module> (services/verify/__main__.py:9);run (uvloop/__init__.py:92);_on_batch (shared/kafka/consuming/consumer.py:1);\
_decode_all (shared/kafka/consuming/consumer.py:2);\
decode (services/verify/handlers.py:70);canonical_email (shared/contract/identity.py:64) 30
<module> (services/verify/__main__.py:9);run (uvloop/__init__.py:92);_on_batch (shared/kafka/consuming/consumer.py:1);\
_decode_all (shared/kafka/consuming/consumer.py:2);\
decode (services/verify/handlers.py:70);validate_json (pydantic/x.py:5) 20
<module> (services/verify/__main__.py:9);run (uvloop/__init__.py:92);process (services/verify/handlers.py:110);\
publish_in_order (shared/kafka/producing/producer.py:200);fact_record (services/verify/handlers.py:174) 10
<module> (services/verify/__main__.py:9);run (uvloop/__init__.py:92) 40
"""


def test_a_stack_belongs_to_its_innermost_function_that_a_rule_names() -> None:
    found = shares(RAW, STAGES["verify"])
    assert found["canonical e-mail, signer key"] == pytest.approx(0.3)
    assert found["decode"] == pytest.approx(0.2)
    assert found["make facts"] == pytest.approx(0.1)
    assert found[OTHER] == pytest.approx(0.4)
    assert found["PostgreSQL"] == 0
    assert sum(found.values()) == pytest.approx(1)


def test_a_stack_that_no_rule_names_is_the_rest() -> None:
    assert stage_of("<module> (x.py:1);run (asyncio/runners.py:4)", STAGES["tally"]) == OTHER


def test_no_samples_are_no_answer() -> None:
    with pytest.raises(ValueError, match="nothing"):
        shares("", STAGES["ingest"])


def test_every_module_of_ours_that_a_rule_names_is_there() -> None:
    modules = [str(path.relative_to(PROJECT_ROOT)) for path in PROJECT_ROOT.glob("s*/**/*.py")]
    named = {
        part
        for rules in STAGES.values()
        for rule in rules
        for part in rule.pattern.pattern.split("|")
        if part.startswith(("services/", "shared/"))
    }
    assert named
    assert [part for part in named if not any(re.search(part, module) for module in modules)] == []
