"""`cnnspec predict`: what a network says about images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cnnspec.cli.option_types import one_of, text, whole
from cnnspec.cli.output import write_result
from cnnspec.cli.output_arguments import add_format
from cnnspec.cli.terminal import Terminal
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.files import write_file
from cnnspec.report.styled import Line, as_plain, as_text, visible

if TYPE_CHECKING:
    from cnnspec.runtime.images import ImageFailure, ImageSource
    from cnnspec.runtime.predicting import Prediction, Predictor

NAME = "predict"
SUMMARY = "what an ONNX model says about images"
DESCRIPTION = """\
Run an ONNX model on images. How images are prepared and what the classes are
called is in a file that `cnnspec export` made.
"""
EPILOG = """\
examples:
  cnnspec predict resnet50.onnx cat.jpg
  cnnspec predict resnet50.onnx photos/ 'more/**/*.png' --top 3
  cnnspec predict unet.onnx scans/ -o maps
  cnnspec predict net.onnx photos --provider cuda --batch 32 --format json
  curl -s $URL | cnnspec predict net.onnx -

images:
  files, folders with all below them, patterns, or `-` for one from standard
  input: AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF, WebP. They are turned
  as their EXIF says, and transparency is put over white. Of a file that does
  not say how images are prepared they are resized to the size that the network
  takes and scaled to 0..1

results:
  classes with their probabilities; for a network whose output is a map of
  classes the part that each takes, and with -o the map as a PNG; for any other
  network shape and range of its outputs

providers:
  auto takes CUDA where it works and the CPU elsewhere, and says which; cuda and
  tensorrt fail where they are not what runs

exit codes:
  0 fine, 1 some images could not be used, 2 usage, the model or the provider
"""

_MANY = 8
"""Images from which it takes long enough to be watched."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", help="an ONNX file")
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="a file, folder or pattern, or `-`"
    )
    parser.add_argument(
        "--provider",
        type=one_of("--provider", "auto", "cpu", "cuda", "tensorrt"),
        metavar="NAME",
        default="auto",
        help="auto (default), cpu, cuda or tensorrt",
    )
    parser.add_argument(
        "--top", type=whole("--top", 1), metavar="N", default=5, help="classes to show (5)"
    )
    parser.add_argument(
        "--batch",
        type=whole("--batch", 1),
        metavar="N",
        help="images at a time (8, or what the file takes)",
    )
    parser.add_argument(
        "--threads",
        type=whole("--threads", 1),
        metavar="N",
        help="threads of the CPU (as many as this process may use)",
    )
    add_format(parser, "table", "json", help="table (default) or json")
    parser.add_argument(
        "-o",
        "--output",
        type=text("--output"),
        metavar="DIR",
        help="the folder for maps of classes, a PNG for each image",
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop at the first image that cannot be used"
    )


def run(options: argparse.Namespace) -> int:
    """Predict and show."""
    from cnnspec.runtime.model_file import open_model
    from cnnspec.runtime.predicting import Predictor, read_as

    model = open_model(options.model)
    reading = read_as(model)
    if options.output is not None and reading.kind != "map":
        raise EnvironmentFailure(
            f"--output is for maps of classes, and output `{reading.output.name}` of "
            f"`{options.model}` is none"
        )
    sources = _sources(options.images)
    predictor = Predictor(
        model,
        provider=options.provider,
        threads=options.threads,
        batch=options.batch,
        top=options.top,
    )
    errors = Terminal(sys.stderr)
    for remark in predictor.session.remarks:
        _put(errors, [("warning", "bold yellow"), (f": {visible(remark)}", "")])
    if reading.prepare.assumed:
        said = "the file does not say how images are prepared: resized, and scaled to 0..1"
        _put(errors, [("note", "bold green"), (f": {said}", "")])
    return _Run(predictor, sources, options, errors).go()


def _put(terminal: Terminal, *lines: Line) -> None:
    terminal.write(as_text(lines) if terminal.colour else as_plain(lines))


def _sources(given: Sequence[str]) -> list[ImageSource]:
    from cnnspec.runtime.images import ImageSource, find_images

    if given.count("-") > 1:
        raise EnvironmentFailure("standard input can be read once, not for several images")
    found: list[ImageSource] = []
    for each in given:
        if each == "-":
            found.append(ImageSource("<stdin>", Path("stdin"), _standard_input()))
        else:
            found.extend(find_images([each]))
    return found


def _standard_input() -> bytes:
    from cnnspec.runtime.images import LARGEST_IMAGE

    if sys.stdin is None:
        raise EnvironmentFailure("standard input cannot be read: it is closed")
    try:
        content = sys.stdin.buffer.read(LARGEST_IMAGE + 1)
    except OSError as failure:
        reason = (failure.strerror or "unknown reason").lower()
        raise EnvironmentFailure(f"standard input cannot be read: {reason}") from None
    if len(content) > LARGEST_IMAGE:
        raise EnvironmentFailure(f"standard input has more than {LARGEST_IMAGE:,} bytes")
    return content


class _Run:
    """One run over all images."""

    def __init__(
        self,
        predictor: Predictor,
        sources: Sequence[ImageSource],
        options: argparse.Namespace,
        errors: Terminal,
    ) -> None:
        self._predictor = predictor
        self._sources = sources
        self._options = options
        self._errors = errors
        self._failures: list[ImageFailure] = []
        self._targets = _targets(sources, options.output) if options.output is not None else {}

    def go(self) -> int:
        """Predict and show; the exit code."""
        if self._options.format == "json":
            self._as_json()
        else:
            self._as_table()
        return 1 if self._failures else 0

    def _failed(self, source: ImageSource, failure: ImageFailure) -> None:
        self._failures.append(failure)
        self._errors.failure(failure)
        if self._options.strict:
            raise _Stopped

    def _predictions(self, seen: Callable[[int], None]) -> Iterator[tuple[Prediction, str | None]]:
        """Every prediction with the file that its map was put into; `seen` counts the images."""
        try:
            for done, prediction in enumerate(
                self._predictor.predict(self._sources, self._failed), start=1
            ):
                yield prediction, self._saved(prediction)
                seen(done + len(self._failures))
        except _Stopped:
            return

    def _saved(self, prediction: Prediction) -> str | None:
        from cnnspec.runtime.map_images import png
        from cnnspec.runtime.predicting import Map

        if not isinstance(prediction, Map) or not self._targets:
            return None
        target = self._targets[id(prediction.source)]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as failure:
            reason = (failure.strerror or "unknown reason").lower()
            raise EnvironmentFailure(f"`{target.parent}` cannot be made: {reason}") from None
        write_file(target, png(prediction.classes))
        return str(target)

    def _as_json(self) -> None:
        from json import dumps

        from cnnspec.runtime.showing import document, prediction_document

        session = self._predictor.session
        with _progress(self._errors, len(self._sources)) as seen:
            found = [prediction_document(*each) for each in self._predictions(seen)]
        whole = document(
            self._options.model, session.provider, session.threads, found, self._failures
        )
        write_result(dumps(whole, indent=1, allow_nan=False), None)

    def _as_table(self) -> None:
        from cnnspec.runtime.showing import Layout, heading

        out = Terminal(sys.stdout)
        names = [source.name for source in self._sources]
        layout = Layout(names, self._predictor.reading, out.width)
        _put(out, heading(self._predictor.session), [])
        # Lines that appear one by one show how far it is.
        watched = out.stream is None or not out.stream.isatty()
        with _progress(self._errors, len(self._sources) if watched else 0) as seen:
            for prediction, saved in self._predictions(seen):
                _put(out, *layout.lines(prediction, saved))


class _Stopped(Exception):
    """With `--strict`, an image could not be used, which has been said."""


def _targets(sources: Sequence[ImageSource], folder: str) -> dict[int, Path]:
    """A PNG in `folder` for each source, by its identity: no two the same, and none a source."""
    images = {Path(source.name).resolve() for source in sources if source.content is None}
    taken: set[Path] = set()
    found: dict[int, Path] = {}
    for source in sources:
        target = plain = Path(folder) / source.below.with_suffix(".png")
        number = 1
        while target in taken:
            number += 1
            target = plain.with_stem(f"{plain.stem}-{number}")
        if target.resolve() in images:
            raise EnvironmentFailure(
                f"the map of `{source.name}` would replace the image `{target}`",
                help="another folder for --output",
            )
        taken.add(target)
        found[id(source)] = target
    return found


@contextmanager
def _progress(terminal: Terminal, count: int) -> Iterator[Callable[[int], None]]:
    """Shows how many images are done, where someone watches and there are many."""
    stream = terminal.stream
    if stream is None or not stream.isatty() or not terminal.colour or count < _MANY:
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("images", total=count)
        yield lambda done: bar.update(task, completed=done)
