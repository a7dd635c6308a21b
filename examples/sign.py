# Nothing to install. Run: python sign.py http://127.0.0.1:8001 night-bus robin@mail.example "Robin Example" NL
import json
import sys
import time
import urllib.error
import urllib.request
import uuid

TRIES = 10


def call(url, *, body=None, headers=None):
    """Send a request; retry while the server asks for it. Return the answer's JSON."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310  you choose the address
    for _ in range(TRIES):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  as above
                return json.load(answer)
        except urllib.error.HTTPError as refusal:
            if refusal.code not in (429, 503):
                sys.exit(f"refused: {refusal.read().decode()}")  # a problem document: it says what to do
            wait = float(refusal.headers.get("Retry-After", "1"))
        except OSError:
            wait = 1.0  # no answer: it may be accepted or not, and a retry with the same key is the same signature
        time.sleep(wait)
    sys.exit(f"gave up after {TRIES} tries")


def main(ingest, petition, email, name, country):
    # Make the key once for each signature, and keep it for retries.
    key = {"Idempotency-Key": str(uuid.uuid4())}
    body = {"email": email, "name": name, "country": country}
    signed = call(f"{ingest}/v1/petitions/{petition}/signatures", body=body, headers=key)
    print("accepted", signed["signature_id"], flush=True)
    while (outcome := call(ingest + signed["status_url"]))["status"] == "submitted":
        time.sleep(0.5)  # accepted, not decided yet
    print(outcome["status"], outcome["reason"] or "")


main(*sys.argv[1:])
