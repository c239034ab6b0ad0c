"""A connection's rate is shared by the nodes that may use it at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError

from resources.connectors.ftp import FtpConnection
from resources.support.stores import Pace


def test_threads_together_keep_the_pace() -> None:
    pace = Pace(50)
    began = time.monotonic()
    with ThreadPoolExecutor(4) as threads:
        for _ in range(11):
            threads.submit(pace.wait)
    assert time.monotonic() - began >= 10 / 50


def test_each_node_gets_its_share() -> None:
    given = {"type": "ftp", "host": "there", "user": "me", "password": "secret"}
    connection = FtpConnection.model_validate({**given, "max_concurrent": 4, "max_per_second": 40})
    pace, began = connection.pace(), time.monotonic()
    for _ in range(3):
        pace.wait()
    assert time.monotonic() - began >= 2 / 10
    with pytest.raises(ValidationError, match="max_concurrent"):
        FtpConnection.model_validate({**given, "max_per_second": 40})
