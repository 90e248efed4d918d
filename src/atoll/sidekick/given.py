"""Given: what a sandbox's secrets are, as files in a folder that lies in memory; main calls it before any program runs.

Names and contents come from the server. Nobody has been in the folder yet, and it is written as the tenant.
"""

from __future__ import annotations

import binascii
import os

from atoll.sidekick.files import make_directories

FILE_MODE = 0o400


def put_files(files: dict[str, str]) -> None:
    """Write each path's contents (base64). OSError where that is not possible."""
    for path, contents in files.items():
        folder, name = os.path.split(path)
        make_directories(folder)
        directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(name, flags, FILE_MODE, dir_fd=directory)
            try:
                data = memoryview(binascii.a2b_base64(contents))
                while data:
                    data = data[os.write(file, data) :]
            finally:
                os.close(file)
        finally:
            os.close(directory)
