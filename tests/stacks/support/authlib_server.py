"""The authorization server of tests/stacks/machine_clients.rs that PyPI's Authlib makes: client credentials (RFC 6749
section 4.4), JWT bearer (RFC 7523) and revocation (RFC 7009), on a free port of this machine.

Its configuration is a JSON object on the first line of its standard input: `public_key`, the PEM of the key that signs
assertions. It prints its URL, and exits when its standard input ends.
"""

import json
import os
import sys
import threading

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin, grants
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7523 import JWTBearerGrant
from flask import Flask
from werkzeug.serving import make_server

# Plain http, on loopback only.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

CONFIG = json.loads(sys.stdin.readline())
JWT_BEARER = JWTBearerGrant.GRANT_TYPE
SCOPES = {"orders:read", "orders:write"}


class Client(ClientMixin):
    def __init__(self, client_id, secret, method, grant_types):
        self.client_id = client_id
        self.secret = secret
        self.method = method
        self.grant_types = grant_types

    def get_client_id(self):
        return self.client_id

    def get_allowed_scope(self, scope):
        return " ".join(it for it in (scope or "").split() if it in SCOPES)

    def check_client_secret(self, client_secret):
        return client_secret == self.secret

    def check_endpoint_auth_method(self, method, endpoint):
        return method == self.method

    def check_grant_type(self, grant_type):
        return grant_type in self.grant_types

    def check_response_type(self, response_type):
        return False


CLIENTS = {
    client.client_id: client
    for client in [
        Client("basic", "s3cr+t/=&% and more", "client_secret_basic", ["client_credentials"]),
        Client("post", "s3cr+t/=&% and more", "client_secret_post", ["client_credentials"]),
        Client("workload", "", "none", [JWT_BEARER]),
    ]
}


class Token(TokenMixin):
    def __init__(self, token, client):
        self.token = token
        self.client = client
        self.is_live = True

    def check_client(self, client):
        return client.client_id == self.client.client_id

    def get_scope(self):
        return self.token.get("scope")

    def get_expires_in(self):
        return self.token["expires_in"]

    def is_expired(self):
        return False

    def is_revoked(self):
        return not self.is_live


TOKENS = {}


def save_token(token, request):
    TOKENS[token["access_token"]] = Token(token, request.client)


class ClientCredentials(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]


class JwtBearer(JWTBearerGrant):
    CLAIMS_OPTIONS = {
        **JWTBearerGrant.CLAIMS_OPTIONS,
        "jti": {"essential": True, "validate": lambda _, jti: JwtBearer.is_new(jti)},
    }
    seen = set()

    @classmethod
    def is_new(cls, jti):
        is_new = jti not in cls.seen
        cls.seen.add(jti)
        return is_new

    def resolve_issuer_client(self, issuer):
        return CLIENTS[issuer]

    def resolve_client_key(self, client, headers, payload):
        return CONFIG["public_key"]

    def authenticate_user(self, subject):
        return subject

    def has_granted_permission(self, client, user):
        return True


class Revocation(RevocationEndpoint):
    CLIENT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]

    def query_token(self, token_string, token_type_hint):
        return TOKENS.get(token_string)

    def revoke_token(self, token, request):
        token.is_live = False


app = Flask(__name__)
authorization = AuthorizationServer(app, query_client=CLIENTS.get, save_token=save_token)
authorization.register_grant(ClientCredentials)
authorization.register_grant(JwtBearer)
authorization.register_endpoint(Revocation)


@app.post("/token")
def token():
    return authorization.create_token_response()


@app.post("/revoke")
def revoke():
    return authorization.create_endpoint_response("revocation")


@app.get("/is_live/<token>")
def is_live(token):
    return json.dumps(token in TOKENS and TOKENS[token].is_live)


def exit_with_standard_input():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=exit_with_standard_input, daemon=True).start()
server = make_server("127.0.0.1", 0, app, threaded=True)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
