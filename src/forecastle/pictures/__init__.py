"""The report's pictures: what runs is started, opened in a headless Chromium, and photographed. Nothing is drawn.

Each figure is one function in ``shots`` that says what it shows; what cannot be had where it runs is noted as not
captured, with why and how to capture it, in ``screenshots/index.md`` and in the report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import mkdtemp

from forecastle.pictures import shots
from forecastle.pictures.album import Album
from forecastle.pictures.camera import Camera, open_camera
from forecastle.pictures.servers import Stage
from forecastle.reporting.scene import Scene

__all__ = ["Album", "Camera", "take"]


def take(scene: Scene, say: Callable[[str], None], chapters: Sequence[shots.Chapter] = shots.CHAPTERS) -> Album:
    """Take every picture that can be had into ``<output>/screenshots``; say of each how it went.

    Raises UserError where there is no Chromium, or no playwright to drive it.
    """
    with ExitStack() as stack:
        camera = stack.enter_context(open_camera())
        scratch = Path(mkdtemp(prefix="forecastle-pictures-"))
        stage = stack.enter_context(Stage(scene, scratch))
        album = Album(scene.output, say, scene.made_at)
        for chapter in chapters:
            chapter(stage, camera, album)
        album.save()
    return album
