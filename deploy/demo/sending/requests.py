"""A submission as a request, and what an answer says of it."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import urlencode

from deploy.demo.plan.submission import Submission
from deploy.demo.plan.surge import Single
from deploy.demo.sending.client import Answer
from shared.contract.eligibility import CODES as RULES

_BROWSER: Final = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def refusal_reason(problem: dict[str, Any]) -> str:
    """The reason in a problem document: where one field is wrong, the petition's rule that it breaks, or ``invalid_<field>``;
    else the problem's own name."""
    code = str(problem.get("type", "")).rpartition(":")[2]
    wrong = {str(error.get("field")): str(error.get("code")) for error in problem.get("errors", ())}
    if code != "invalid_fields" or len(wrong) != 1:
        return code
    [(field, rule)] = wrong.items()
    return rule if rule in RULES else f"invalid_{field}"


def problem(answer: Answer) -> dict[str, Any]:
    """Return the problem document of a refusal, or one made of its status where there is none."""
    try:
        found = answer.json()
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"type": f"{answer.status} without a problem document"}


def what_it_became(answer: Answer) -> object:
    """What is the same for every retry of a request: the signature, or for a browser where it is sent on to."""
    if answer.status == 303:
        return answer.headers.get(b"location")
    return answer.json().get("signature_id") if answer.status == 202 else answer.status


def request_of(single: Single) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a single request, as the client that it stands for sends them."""
    if single.sent_as == "json":
        return single.submission.body, {"Content-Type": "application/json", "Accept": "application/json"}
    fields = json.loads(single.submission.body)
    if fields.pop("consent", False):
        fields["consent"] = "on"  # as a browser says that a box is ticked
    accept = _BROWSER if single.sent_as == "browser" else "application/json"
    return urlencode(fields).encode(), {"Content-Type": "application/x-www-form-urlencoded", "Accept": accept}


def line(batch: int, place: int, submission: Submission) -> bytes:
    """Return one line of a batch, with a key by which it can be sent again."""
    return submission.body[:-1] + b',"idempotency_key":"demo-batch-%d-%d"}' % (batch, place)
