"""S3 as moto imitates it, on a loopback port, with buckets and objects put there by boto3.

usage: moto_s3.py SPEC.json OUT.json    (exit code 77: moto is not there)

SPEC: {"objects": [{"bucket", "key", "text" | "file"}...], "numbered": {"bucket", "prefix", "count"}, "signed": true}
OUT, written when all is there: {"port", "id", "secret"}, or {"error"}. With "signed" every request must bear a right signature of
that id. The server ends when stdin does.
"""

import json
import os
import sys
import traceback

try:
    import boto3
    import moto.settings
    from moto.s3.models import s3_backends
    from moto.server import ThreadedMotoServer
except ImportError:
    sys.exit(77)


def fill(spec, endpoint):
    s3 = boto3.client("s3", endpoint_url=endpoint)
    made = set()

    def put(bucket, key, body):
        if bucket not in made:
            s3.create_bucket(Bucket=bucket)
            made.add(bucket)
        s3.put_object(Bucket=bucket, Key=key, Body=body)

    for item in spec.get("objects", []):
        if "file" in item:
            with open(item["file"], "rb") as file:
                put(item["bucket"], item["key"], file.read())
        else:
            put(item["bucket"], item["key"], item["text"].encode())
    numbered = spec.get("numbered")
    if numbered:  # thousands: past HTTP
        put(numbered["bucket"], f"{numbered['prefix']}{0:05d}", b"0")
        backend = s3_backends[moto.core.DEFAULT_ACCOUNT_ID]["aws"]
        for i in range(1, numbered["count"]):
            backend.put_object(numbered["bucket"], f"{numbered['prefix']}{i:05d}", str(i).encode())


def make_user(endpoint):
    iam = boto3.client("iam", endpoint_url=endpoint)
    iam.create_user(UserName="reader")
    iam.put_user_policy(
        UserName="reader", PolicyName="all",
        PolicyDocument=json.dumps({"Version": "2012-10-17",
                                   "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}))
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def main(spec_file, out_file):
    os.environ.update(AWS_ACCESS_KEY_ID="seed", AWS_SECRET_ACCESS_KEY="seed", AWS_DEFAULT_REGION="us-east-1",
                      AWS_EC2_METADATA_DISABLED="true", AWS_CONFIG_FILE=os.devnull,
                      AWS_SHARED_CREDENTIALS_FILE=os.devnull)
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
        os.environ.pop(name, None)
    with open(spec_file, encoding="utf-8") as file:
        spec = json.load(file)
    said = {}
    try:
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        fill(spec, endpoint)
        identity = make_user(endpoint) if spec.get("signed") else ("", "")
        if spec.get("signed"):
            moto.settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
        said = {"port": port, "id": identity[0], "secret": identity[1]}
    except Exception:
        said = {"error": traceback.format_exc()}
    with open(out_file + ".new", "w", encoding="utf-8") as file:
        json.dump(said, file)
    os.rename(out_file + ".new", out_file)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
