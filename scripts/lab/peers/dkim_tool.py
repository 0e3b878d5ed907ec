"""Signs or verifies (argument "sign" or "verify") the jobs that come as JSON on standard input by dkimpy.

A job has data (base64) and, to be signed, a list of signatures: selector, domain, key, algorithm, header and body
canonicalization, length (whether to have l=), fields (what to sign; empty: dkimpy's choice). The results are the signed
messages, or a list of what each signature came to.
"""

import base64
import json
import sys

import dkim


def sign(job):
    data = base64.b64decode(job["data"])
    for s in job["signatures"]:
        signer = dkim.DKIM(data, signature_algorithm=s["algorithm"].encode())
        data = signer.sign(
            s["selector"].encode(), s["domain"].encode(), s["key"].encode(),
            canonicalize=(s["header"].encode(), s["body"].encode()),
            include_headers=[f.encode() for f in s["fields"]] or None, length=s["length"]) + data
    return base64.b64encode(data).decode()


def verify(job):
    data = base64.b64decode(job["data"])
    verifier = dkim.DKIM(data)
    count = sum(1 for name, _ in verifier.headers if name.lower() == b"dkim-signature")
    results = []
    for i in range(count):
        try:
            results.append("good" if verifier.verify(idx=i) else "bad")
        except dkim.DKIMException as e:
            results.append(str(e))
    return results


json.dump([{"sign": sign, "verify": verify}[sys.argv[1]](job) for job in json.load(sys.stdin)], sys.stdout)
