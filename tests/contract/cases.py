"""The cases of our connectors; each is a column of the matrix. A new connector adds its case here."""

from __future__ import annotations

from collections.abc import Sequence

from .case import Case
from .database_cases import DuckDBCase, MySQLCase, PostgresCase, SqliteCase
from .file_cases import AzureFilesCase, FtpFilesCase, LocalFilesCase, S3FilesCase, SftpFilesCase, WebFilesCase
from .lakehouse_cases import DeltaCase, IcebergCase

CASES: Sequence[type[Case]] = (
    PostgresCase,
    MySQLCase,
    SqliteCase,
    DuckDBCase,
    LocalFilesCase,
    S3FilesCase,
    AzureFilesCase,
    SftpFilesCase,
    FtpFilesCase,
    WebFilesCase,
    DeltaCase,
    IcebergCase,
)
