"""Runs pg_rewind as Patroni does where PostgreSQL is older than 13: Patroni's own code (patroni.postgresql.rewind), which reads
in the error of pg_rewind which segment is missing, runs restore_command by itself, and tries again. Before PostgreSQL 13
pg_rewind has no --restore-target-wal. What it needs of a Patroni is only said to be there.

    patroni_fetch.py <bin folder> <data directory> <connection string of the primary>
"""
import logging
import os
import subprocess
import sys

from patroni.postgresql.cancellable import CancellableSubprocess
from patroni.postgresql.rewind import Rewind

bin_dir, data_dir, dsn = sys.argv[1:]


class Config:
    _config_dir = data_dir

    def get(self, name, default=None):
        return default

    def write_pgpass(self, record):
        return dict(os.environ)

    def format_dsn(self, record, include_dbname=False):
        return record


class Postgresql:
    major_version = 120000
    wal_name = 'wal'
    wal_dir = os.path.join(data_dir, 'pg_wal')
    config = Config()
    cancellable = CancellableSubprocess()

    def __init__(self):
        self.data_dir = data_dir

    def pgcommand(self, name):
        return os.path.join(bin_dir, name)

    def get_guc_value(self, name):
        return subprocess.check_output([self.pgcommand('postgres'), '-D', data_dir, '-C', name], text=True).strip()


logging.basicConfig(level=logging.INFO, stream=sys.stdout, format='%(message)s')
sys.exit(0 if Rewind(Postgresql()).pg_rewind(dsn) else 1)
