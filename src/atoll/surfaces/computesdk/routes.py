"""Every operation of this dialect, declared in one table; app.py makes the routes and the document of it."""

from __future__ import annotations

from atoll.services.workspaces.workspaces import Workspaces
from atoll.settings import Settings
from atoll.surfaces.computesdk import filesystems
from atoll.surfaces.computesdk.errors import ComputeError
from atoll.surfaces.computesdk.filesystems import FilesystemHandlers
from atoll.surfaces.operation import Answer, Once, Operation

FILESYSTEMS = "/api/filesystems"
FILESYSTEM = FILESYSTEMS + "/{fs}"
LOST = (404, 503, 504)
BODY = (400, 413)


def operations(workspaces: Workspaces, settings: Settings) -> list[Operation]:
    """What this dialect serves."""
    of = FilesystemHandlers(workspaces, settings)
    tag, error = "file systems", ComputeError
    filesystem = Answer(200, "the file system", filesystems.FilesystemAnswer)
    return [
        Operation(
            "POST", FILESYSTEMS, of.create, "createFilesystem", "Create a file system",
            answers=(Answer(201, "the file system", filesystems.FilesystemAnswer),),
            body=filesystems.FilesystemBody, errors=(*BODY, 402, 404, 409, 503, 504),
            tag=tag, error=error, once=Once.MADE,
        ),
        Operation(
            "GET", FILESYSTEMS, of.list, "listFilesystems", "Your file systems, newest first",
            answers=(Answer(200, "the file systems", filesystems.FilesystemsAnswer),),
            errors=(503,), tag=tag, error=error,
        ),
        Operation(
            "GET", FILESYSTEM, of.get, "getFilesystem", "Look at a file system",
            answers=(filesystem,), errors=LOST, tag=tag, error=error,
        ),
        Operation(
            "DELETE", FILESYSTEM, of.delete, "deleteFilesystem", "Delete a file system with its archives",
            answers=(Answer(200, "it is gone", filesystems.FilesystemDeletedAnswer),),
            errors=(409, *LOST), tag=tag, error=error,
        ),
        Operation(
            "POST", FILESYSTEM + "/archive", of.archive, "archiveFilesystem", "Keep a file system as it is now",
            answers=(Answer(201, "the archive", filesystems.ArchiveAnswer),),
            body=filesystems.ArchiveBody, body_required=False, errors=(*BODY, 409, *LOST), tag=tag, error=error,
        ),
        Operation(
            "GET", FILESYSTEM + "/archives", of.archives, "listFilesystemArchives", "Its archives, newest first",
            answers=(Answer(200, "the archives", filesystems.ArchivesAnswer),), errors=LOST, tag=tag, error=error,
        ),
        Operation(
            "POST", FILESYSTEM + "/restore", of.restore, "restoreFilesystem", "Go back to an archive",
            answers=(Answer(200, "what was restored", filesystems.FilesystemRestoredAnswer),),
            body=filesystems.RestoreArchiveBody, body_required=False,
            errors=(*BODY, 409, *LOST), tag=tag, error=error,
        ),
    ]  # fmt: skip
