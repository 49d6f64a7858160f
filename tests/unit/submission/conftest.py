"""The fake of Ray's dashboard, for all tests here."""

from tests.dashboard import dashboard_server as dashboard_server
