"""PyPI spiffe (gRPC C-core) against the Workload API at the socket that is given.

Prints one JSON line for each step; the test that started it reads them and tells it by a line when to go on.
"""

import json
import sys
import threading

from spiffe import JwtSource, WorkloadApiClient, X509Source
from spiffe.errors import PySpiffeError

ENDPOINT, AUDIENCE, OTHER = sys.argv[1:4]


def say(step, **more):
    print(json.dumps({"step": step, **more}), flush=True)


def serial(svid):
    return format(svid.leaf.serial_number, "x")


client = WorkloadApiClient(ENDPOINT)
svid = client.fetch_x509_svid(timeout=10)
say("x509", spiffe_id=str(svid.spiffe_id), chain=len(svid.cert_chain))
bundles = client.fetch_x509_bundles(timeout=10)
say("x509-bundles", domains=sorted(bundle.trust_domain.name for bundle in bundles.bundles))
token = client.fetch_jwt_svid(audience={AUDIENCE}, timeout=10)
say("jwt", spiffe_id=str(token.spiffe_id), audience=sorted(token.audience))
jwt_bundles = client.fetch_jwt_bundles(timeout=10)
say("jwt-bundles", domains=sorted(bundle.trust_domain.name for bundle in jwt_bundles.bundles))
say("validated", spiffe_id=str(client.validate_jwt_svid(token.token, AUDIENCE, timeout=10).spiffe_id))
try:
    client.validate_jwt_svid(token.token, OTHER, timeout=10)
    say("validated-for-another", error=None)
except PySpiffeError as error:
    say("validated-for-another", error=str(error))
try:
    client.fetch_jwt_svid(audience={OTHER}, timeout=10)
    say("unregistered", error=None)
except PySpiffeError as error:
    say("unregistered", error=str(error))

with X509Source(socket_path=ENDPOINT) as source, JwtSource(socket_path=ENDPOINT) as tokens:
    updated = threading.Event()
    first = source.get_x509_context().default_svid
    source.subscribe_for_updates(updated.set)
    say("source", serial=serial(first))
    sys.stdin.readline()
    ok = updated.wait(20)
    say("rotated", updated=ok, serial=serial(source.get_x509_context().default_svid), authorities=len(
        source.get_bundle_for_trust_domain(first.spiffe_id.trust_domain).x509_authorities))
    fetched = tokens.fetch_svid(audience={AUDIENCE})
    say("token", spiffe_id=str(fetched.spiffe_id))
client.close()
say("done")
