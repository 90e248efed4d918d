"""The operations of a workspace's files, declared in one table; app.py makes the routes and the document of it."""

from __future__ import annotations

from atoll.services.workspaces.workspaces import Workspaces
from atoll.settings import Settings
from atoll.surfaces.operation import Answer, Operation
from atoll.surfaces.testbase import files
from atoll.surfaces.testbase.errors import TestbaseError
from atoll.surfaces.testbase.files import FileHandlers

WORKSPACE = "/workspace/{ws}"
TAG = "testbase files"
FORM = "multipart/form-data"
FORM_TEXT = "A form with the part `file`, whose name the file gets, and the field `path`: a folder, `.` for the root."


def file_operations(workspaces: Workspaces, settings: Settings) -> list[Operation]:
    """What is served of the files of a workspace."""
    of, error = FileHandlers(workspaces, settings), TestbaseError
    lost = (404, 503, 504)
    return [
        Operation(
            "GET", WORKSPACE + "/files", of.list, "listFiles", "What is in a folder of a workspace, one level of it",
            answers=(Answer(200, "its entries, by name", files.WorkspaceFilesAnswer),),
            parameters=(files.PATH, files.LIMIT, files.AFTER), errors=(400, *lost), tag=TAG, error=error,
        ),
        Operation(
            "POST", WORKSPACE + "/upload", of.upload, "uploadFile", "Put a file into a folder of a workspace",
            answers=(Answer(200, "where it lies", files.UploadedAnswer),),
            body=FORM, errors=(400, 409, 413, *lost), tag=TAG, error=error, description=FORM_TEXT,
        ),
        Operation(
            "GET", WORKSPACE + "/download/{path:path}", of.download, "downloadFile", "The bytes of a file",
            answers=(
                Answer(200, "its bytes", None, headers=(("Content-Disposition", "attachment, with the file's name"),),
                       media="application/octet-stream"),
            ),
            errors=(400, *lost), tag=TAG, error=error,
        ),
        Operation(
            "DELETE", WORKSPACE + "/files/{path:path}", of.remove, "deleteFile", "Remove a file, and no folder",
            answers=(Answer(200, "it is gone", files.FileDeletedAnswer),),
            errors=(400, 409, *lost), tag=TAG, error=error,
        ),
    ]  # fmt: skip
