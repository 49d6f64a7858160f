"""Compare-and-set on object stores: a put that fails if the object exists. pyarrow has none: their own clients do it.

S3: `If-None-Match: *`, https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html.
GCS: `if_generation_match=0`, https://cloud.google.com/storage/docs/request-preconditions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

Put = Callable[[str, bytes], bool | None]
"""Writes an object (`bucket/key`) unless there is one; returns whether it wrote, None where the store does not know
conditional puts. Errors are `OSError`."""

UNSUPPORTED = ("NotImplemented", "InvalidArgument", "InvalidRequest", "MethodNotAllowed")
"""How stores that copy S3's interface answer a header that they do not know."""

_LOG = logging.getLogger(__name__)
_NAMES = {"s3": "boto3", "gcs": "google.cloud.storage"}


def conditional_put(filesystem: FileSystem) -> Put | None:
    """The conditional put of this store; None where it has none, or the library for it is not installed."""
    kind = filesystem.type_name
    if not _is_installed(_NAMES.get(kind, "")):
        return None
    if kind == "s3":
        options: dict[str, Any] = filesystem.__reduce__()[1][0]  # type: ignore[assignment]
        wanted = ("access_key", "secret_key", "session_token", "endpoint_override", "region", "scheme")
        return _s3(**{name: options.get(name) for name in wanted})
    return _gcs()


@cache
def _is_installed(library: str) -> bool:
    try:
        return bool(library) and find_spec(library) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False


@cache
def _s3(
    access_key: str | None,
    secret_key: str | None,
    session_token: str | None,
    endpoint_override: str | None,
    region: str | None,
    scheme: str | None,
) -> Put | None:
    """A client with the options of pyarrow's; what they leave open, both libraries take from the environment."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    endpoint = endpoint_override or None
    if endpoint and "://" not in endpoint:
        endpoint = f"{scheme or 'https'}://{endpoint}"
    given: dict[str, Any] = {
        "aws_access_key_id": access_key,
        "aws_secret_access_key": secret_key,
        "aws_session_token": session_token,
        "region_name": region,
        "endpoint_url": endpoint,
    }
    config = Config(retries={"max_attempts": 2}, connect_timeout=10, read_timeout=30)
    try:
        client = boto3.client("s3", config=config, **{name: value for name, value in given.items() if value})
    except (BotoCoreError, ValueError) as error:
        _LOG.warning("boto3 cannot be used for this storage (%s)", error)
        return None

    def put(path: str, data: bytes) -> bool | None:
        bucket, _, key = path.partition("/")
        try:
            client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("PreconditionFailed", "412"):
                return False
            if code in UNSUPPORTED:
                return None
            # ConditionalRequestConflict, 409: another put of the same object is under way. Trying again decides.
            raise OSError(f"{code}: {error}") from error
        except BotoCoreError as error:
            raise OSError(str(error)) from error
        return True

    return put


@cache
def _gcs() -> Put | None:
    from google.api_core.exceptions import GoogleAPIError, PreconditionFailed
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage

    try:
        client = storage.Client()
    except (GoogleAuthError, OSError) as error:
        _LOG.warning("google-cloud-storage cannot be used for this storage (%s)", error)
        return None

    def put(path: str, data: bytes) -> bool | None:
        bucket, _, key = path.partition("/")
        try:
            client.bucket(bucket).blob(key).upload_from_string(data, if_generation_match=0)
        except PreconditionFailed:
            return False
        except (GoogleAPIError, GoogleAuthError) as error:
            raise OSError(str(error)) from error
        return True

    return put
