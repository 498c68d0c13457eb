"""What AWS's tools ask for credentials, on loopback: STS, single sign-on, a container's and an instance's servers.

What it gives depends on all that it was asked, so that who is given the same has asked the same. Signatures are checked
by botocore's own signer.
"""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from servers import Call, Server

IMDS_TOKEN = "made-up-imds-token"
ROLE = "the-role"
DENIED = "arn:aws:iam::1:role/denied"


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def made(*words: object) -> dict[str, str]:
    """Credentials for something that was asked."""
    seed = hashlib.sha256(repr(words).encode()).hexdigest()
    return {"AccessKeyId": f"ASIA{seed[:12].upper()}", "SecretAccessKey": f"secret-{seed}", "Token": f"token+/{seed}=="}


class AwsWorld:
    """A server of everything; `with AwsWorld() as world:`. `lasts` is for how many seconds it gives credentials."""

    def __init__(self) -> None:
        self.lasts = 3600.0
        self.secrets: dict[str, tuple[str, str | None]] = {}
        self.has_imds_tokens = True
        self.refuses: dict[str, tuple[int, bytes]] = {}
        self.sso_tokens: set[str] = set()
        self.refreshed = 0
        self.asked: list[str] = []
        self._server = Server(self._answer)
        self.url = self._server.url

    def __enter__(self) -> AwsWorld:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    def knows(self, key_id: str, secret: str, token: str | None = None) -> None:
        """Accept signatures with these credentials."""
        self.secrets[key_id] = (secret, token)

    def _given(self, *words: object) -> dict[str, str]:
        given = made(*words)
        self.knows(given["AccessKeyId"], given["SecretAccessKey"], given["Token"])
        return given

    async def _answer(self, call: Call) -> None:
        path = urlsplit(call.target).path
        status, body = self.refuses.get(path) or self._said(call, path)
        lines = [f"Content-Length: {len(body)}"]
        if status == 401:
            lines.append("x-amzn-ErrorType: UnauthorizedException:http://internal.amazon.com/")
        call.head(*lines, status=f"{status} Said")
        call.write(body)

    def _said(self, call: Call, path: str) -> tuple[int, bytes]:
        if path == "/":
            return self._sts(call)
        self.asked.append(f"{call.method} {path}")
        if path == "/federation/credentials":
            return self._sso(call)
        if path == "/token":
            return self._oidc(call)
        if path.startswith("/latest/"):
            return self._imds(call, path)
        if path.startswith("/container"):
            given = self._given("container", path, call.header("authorization"))
            return 200, json.dumps({**given, "Expiration": iso(self.lasts), "RoleArn": "arn"}).encode()
        return 404, b"{}"

    def _sts(self, call: Call) -> tuple[int, bytes]:
        form = {name: value for name, (value,) in parse_qs(call.body.decode()).items()}
        action = form.pop("Action")
        self.asked.append(action)
        session = form.pop("RoleSessionName")
        form["RoleSessionName"] = "a default" if session.startswith(("sabir-", "botocore-session-")) else session
        signer = None
        if action == "AssumeRole" and (signer := self._signer(call)) is None:
            return _xml_error(403, "SignatureDoesNotMatch", f"the string was {dict(call.headers)}")
        if form["RoleArn"] == DENIED:
            return _xml_error(403, "AccessDenied", f"{signer} may not assume {DENIED} &amp; nobody may")
        given = self._given(action, sorted(form.items()), signer)
        given["SessionToken"] = given.pop("Token")
        told = "".join(f"<{name}>{value}</{name}>" for name, value in {**given, "Expiration": iso(self.lasts)}.items())
        name = form["RoleArn"].rpartition("/")[2]
        user = f"<AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/{name}/x</Arn></AssumedRoleUser>"
        body = f"<{action}Result>{user}<Credentials>{told}</Credentials></{action}Result>"
        space = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"'
        return 200, f"<{action}Response {space}>{body}</{action}Response>".encode()

    def _signer(self, call: Call) -> str | None:
        """Who signed, if the signature is right."""
        headers = dict(call.headers)
        proof = headers.get("authorization", "")
        key_id, _, scope = proof.partition("Credential=")[2].partition(",")[0].partition("/")
        if key_id not in self.secrets:
            return None
        secret, token = self.secrets[key_id]
        if headers.get("x-amz-security-token") != token:
            return None
        signed = proof.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        url = f"http://{headers['host']}{call.target}"
        judged = AWSRequest(call.method, url, {name: headers[name] for name in signed}, call.body)
        judged.context["timestamp"] = headers["x-amz-date"]
        _, region, service, _ = scope.split("/")
        signer = SigV4Auth(Credentials(key_id, secret, token), service, region)
        signature = signer.signature(signer.string_to_sign(judged, signer.canonical_request(judged)), judged)
        return f"{key_id} for {service} in {region}" if proof.endswith(f"Signature={signature}") else None

    def _sso(self, call: Call) -> tuple[int, bytes]:
        token = call.header("x-amz-sso_bearer_token")
        if token not in self.sso_tokens:
            return 401, b'{"message":"Session token not found or invalid"}'
        given = self._given("sso", sorted(parse_qs(urlsplit(call.target).query).items()), token)
        keys = dict(zip(("accessKeyId", "secretAccessKey", "sessionToken"), given.values(), strict=True))
        ends = int((time.time() + self.lasts) * 1000)
        return 200, json.dumps({"roleCredentials": {**keys, "expiration": ends}}).encode()

    def _oidc(self, call: Call) -> tuple[int, bytes]:
        form = json.loads(call.body)
        if form.pop("grantType") != "refresh_token" or form != REGISTERED:
            return 400, b'{"error":"invalid_grant"}'
        self.refreshed += 1
        token = f"sso-token-{self.refreshed}"
        self.sso_tokens.add(token)
        told = {
            "accessToken": token,
            "expiresIn": 3600,
            "tokenType": "Bearer",
            "refreshToken": REGISTERED["refreshToken"],
        }
        return 200, json.dumps(told).encode()

    def _imds(self, call: Call, path: str) -> tuple[int, bytes]:
        if path == "/latest/api/token":
            has_lifetime = call.header("x-aws-ec2-metadata-token-ttl-seconds") == "21600"
            return (200, IMDS_TOKEN.encode()) if self.has_imds_tokens and has_lifetime else (403, b"")
        if call.header("x-aws-ec2-metadata-token") != (IMDS_TOKEN if self.has_imds_tokens else None):
            return 401, b""
        name = path.removeprefix("/latest/meta-data/iam/security-credentials/")
        if not name:
            return 200, ROLE.encode()
        given = {**self._given("imds", name), "Expiration": iso(self.lasts), "Code": "Success", "Type": "AWS-HMAC"}
        return 200, json.dumps(given).encode()


# What is in the token's file of a session of single sign-on, beside the token.
REGISTERED = {"clientId": "a-client", "clientSecret": "made-up-client-secret", "refreshToken": "made-up-refresh-token"}


def _xml_error(status: int, code: str, message: str) -> tuple[int, bytes]:
    text = message if "&amp;" in message else message.replace("&", "&amp;").replace("<", "&lt;")
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{text}</Message></Error>"
    return status, f"<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>".encode()
