"""Compares signatures with those that botocore makes.

usage: check_signatures.py CASES.json    (exit code 77: botocore is not there; 1: some differ, which are printed)
"""

import datetime
import json
import sys

try:
    import botocore.auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
except ImportError:
    sys.exit(77)


def main(cases_file):
    with open(cases_file, encoding="utf-8") as file:
        cases = json.load(file)
    wrong = 0
    for case in cases:
        now = datetime.datetime.strptime(case["time"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
        botocore.auth.get_current_datetime = lambda remove_tzinfo=True, now=now: (
            now.replace(tzinfo=None) if remove_tzinfo else now)
        request = AWSRequest(method="GET", url=case["url"], headers=dict(case["headers"]))
        keys = Credentials(case["id"], case["secret"], case["token"] or None)
        botocore.auth.S3SigV4Auth(keys, "s3", case["region"]).add_auth(request)
        if request.headers["Authorization"] != case["authorization"]:
            wrong += 1
            print(f"{case['url']}\n  ours:     {case['authorization']}\n  botocore: {request.headers['Authorization']}")
    print(f"{len(cases)} signatures, {wrong} differ")
    return 1 if wrong or not cases else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
