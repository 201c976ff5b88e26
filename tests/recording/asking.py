"""The command, in this process and without a look at the SDKs, which takes long."""

from unittest import mock

from click.testing import CliRunner

from spanledger.cli.main import main


def asked(*arguments):
    """Exit status and what is said."""
    with mock.patch("spanledger.cli.doctor.PROVIDERS", {}):
        done = CliRunner().invoke(main, arguments)
    return done.exit_code, done.output
