"""The fake of Ray's dashboard, for every test here."""

from tests.dashboard import dashboard_server as dashboard_server
