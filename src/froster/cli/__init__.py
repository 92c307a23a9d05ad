"""The commands. Heavy imports happen inside them, so that `froster --help` is instant."""

from __future__ import annotations

import os
import re
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from froster import __version__
from froster.cli.arguments import App, Group
from froster.errors import FrosterError, out_of_memory
from froster.utils import interrupt
from froster.utils.text import printable, use_any_encoding

app = App(
    cls=Group,
    name="froster",
    help="Open-vocabulary video classification: teach a CLIP new actions and keep the old ones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="Model folder, hub id, checkpoint file, or nano (works offline)."
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output.")
]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 …; the default is CUDA if there is one.")
]
PrecisionOption = Annotated[
    str,
    typer.Option(help="auto (bfloat16 where the chip has it), float32 (fp32) or bfloat16 (bf16)."),
]
TruncateOption = Annotated[
    bool, typer.Option("--truncate", help="Cut labels that are too long for the text tower.")
]
WorkersOption = Annotated[
    int | None, typer.Option(help="Processes that decode videos; default: by the cores.", min=0)
]
FilesFromOption = Annotated[
    Path | None, typer.Option(help="A list of videos, one a line; - for standard input.")
]
ListRootOption = Annotated[
    Path | None, typer.Option(help="Folder that the paths of lists and manifests start from.")
]
ShardOption = Annotated[
    str | None,
    typer.Option(help="This process's part, such as 0/4; auto: as torchrun or a job array says."),
]
TimeLimitOption = Annotated[
    float, typer.Option(help="Seconds without progress after which a file is given up.", min=1)
]


def main() -> None:
    """Run the command line. A user's mistake gives one line and exit code 2, a failure one line and
    1; no traceback."""
    # Idle OpenMP threads that spin on steal the cores from everybody else; threads that do not spin
    # at all wake up too late for the next operation, which costs a small network a quarter. This
    # must be set before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # It is started anew, and nothing of ours is in its care.
    warnings.filterwarnings("ignore", "resource_tracker: process died unexpectedly")
    use_any_encoding()
    try:
        interrupt.install()
        app()
    except FrosterError as error:
        fail(str(error), error.exit_code)
    except UnicodeEncodeError as error:  # a name of a file, where the system's encoding is no UTF-8
        fail(
            f"{error.object[:200]!a} has no form in this system's encoding ({error.encoding}): set"
            " PYTHONUTF8=1",
            1,
        )
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        fail("out of memory: try a smaller --batch-size, fewer --workers, or a smaller model", 1)


def fail(message: str, code: int) -> None:
    print("froster: " + printable(re.sub(r"\s*\n\s*", " ", message.strip())), file=sys.stderr)
    sys.exit(code)


def version(value: bool) -> None:
    if value:
        print(f"froster {__version__}")
        raise typer.Exit


@app.callback()
def options(
    show: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the models, the report page and its figures.")
    ] = Path("demo"),
    seed: Annotated[
        int, typer.Option(help="Draws the 16 shots a class, their order and the projectors.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune the nano CLIP on a rendered world, offline: frozen, fine-tuned and FROSTER side by
    side.

    Example: froster demo --seed 1 --out demo
    """
    from froster.world.demo import run

    run(seed, out, as_json=as_json)


@app.command()
def classify(
    videos: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Video files, folders with all below, manifests (.csv, .jsonl), - for a list."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help='Between commas, or one a line: "archery, surfing, playing piano".'),
    ] = None,
    labels_file: Annotated[
        Path | None, typer.Option(help="A label a line, a .csv or .tsv (FILE.csv:COLUMN), a .json.")
    ] = None,
    files_from: FilesFromOption = None,
    root: ListRootOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Rows to a .csv, .jsonl or .parquet file; what it holds is not done again."
        ),
    ] = None,
    shard: ShardOption = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also what failed before.")
    ] = False,
    model: ModelOption = None,
    views: Annotated[
        int | None,
        typer.Option(help="Clips taken from each video; the model says how many.", min=1),
    ] = None,
    sampling: Annotated[
        str | None, typer.Option(help="dense (a few seconds at a fixed rate) or uniform.")
    ] = None,
    top: Annotated[int, typer.Option(help="Labels shown for each video.", min=1)] = 5,
    truncate: TruncateOption = False,
    workers: WorkersOption = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Videos a batch; default: 1, or 8 on a GPU.", min=1)
    ] = None,
    time_limit: TimeLimitOption = 300,
    device: DeviceOption = None,
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Which of these labels fits each video?

    Example: froster classify holiday.mp4 --labels "surfing, skiing, cooking" --model nano
    """
    from froster.cli.classify import Reading, run

    run(
        videos or [],
        labels,
        labels_file,
        model,
        files_from=files_from,
        root=root,
        out=out,
        shard=shard,
        retry_failed=retry_failed,
        reading=Reading(workers, batch_size, time_limit, top, truncate),
        views=views,
        sampling=sampling,
        device=device,
        precision=precision,
        as_json=as_json,
    )


@app.command()
def index(
    out: Annotated[
        Path,
        typer.Option(help="Folder of the index; unchanged videos that it has are passed over."),
    ],
    videos: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Video files, folders with all below, manifests (.csv, .jsonl), - for a list."
        ),
    ] = None,
    files_from: FilesFromOption = None,
    root: ListRootOption = None,
    model: ModelOption = None,
    segment: Annotated[
        float | None, typer.Option(help="Seconds of a segment; default: 4.", min=0.1)
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the embeddings: float16 (the default) or float32.")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Take out videos that are gone.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also what failed before.")
    ] = False,
    workers: WorkersOption = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Segments a batch; default: 4, or 32 on a GPU.", min=1)
    ] = None,
    time_limit: TimeLimitOption = 300,
    device: DeviceOption = None,
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Make or extend an index of videos, segment by segment, for froster search.

    Example: froster index videos/ --out index --model nano
    """
    from froster.cli.index import run

    run(
        videos or [],
        out,
        model,
        files_from=files_from,
        root=root,
        segment=segment,
        dtype=dtype,
        prune=prune,
        retry_failed=retry_failed,
        workers=workers,
        batch_size=batch_size,
        limit=time_limit,
        device=device,
        precision=precision,
        as_json=as_json,
    )


@app.command()
def search(
    index: Annotated[Path, typer.Argument(help="Folder that froster index wrote.")],
    text: Annotated[
        str | None, typer.Argument(help='What to look for: "a person surfing".')
    ] = None,
    video: Annotated[Path | None, typer.Option(help="Look for what is like this video.")] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="The index's model, if it lies elsewhere now."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of the videos, if they lie elsewhere now.")
    ] = None,
    top: Annotated[int, typer.Option(help="Answers.", min=1)] = 10,
    by_video: Annotated[
        bool, typer.Option("--by-video", help="The best answer of each video alone.")
    ] = False,
    join: Annotated[
        bool, typer.Option(help="Neighbouring segments that fit nearly as well are one answer.")
    ] = True,
    thumbnails: Annotated[
        Path | None, typer.Option(help="A sheet of pictures (.png, .jpg), or a folder for them.")
    ] = None,
    truncate: TruncateOption = False,
    device: DeviceOption = None,
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Where in the videos of an index is this to be seen? Every segment is compared.

    Example: froster search index "a person surfing" --thumbnails found.png
    """
    from froster.cli.search import run

    run(
        index,
        text,
        video=video,
        model=model,
        root=root,
        top=top,
        by_video=by_video,
        join=join,
        pictures=thumbnails,
        truncate=truncate,
        device=device,
        precision=precision,
        as_json=as_json,
    )


@app.command()
def doctor(
    videos: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Video files, folders with all below, manifests (.csv, .jsonl), - for a list."
        ),
    ] = None,
    files_from: FilesFromOption = None,
    root: ListRootOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help=(
                "Manifest of what can be used (.csv), findings beside it; goes on where it was"
                " stopped."
            )
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(help="Kinds of findings to leave out of it, or none; default: duplicate."),
    ] = None,
    min_seconds: Annotated[
        float,
        typer.Option(
            help="Shorter videos are too short; default: 4.27, as 8 frames 16 apart are.",
            min=0,
            show_default=False,
        ),
    ] = 8 * 16 / 30,
    min_frames: Annotated[int, typer.Option(help="Videos of fewer frames too.", min=1)] = 8,
    workers: Annotated[
        int | None, typer.Option(help="Processes that decode; default: one a core.", min=0)
    ] = None,
    time_limit: TimeLimitOption = 300,
    env: Annotated[
        bool, typer.Option("--env", help="Examine the installation in place of videos.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Find broken, cut, frozen, short, uneven and duplicate videos: every frame is decoded. Or
    --env.

    Example: froster doctor videos/ --out clean.csv
    """
    from froster.cli.doctor import run, run_env

    if env:
        run_env(as_json)
        return
    from froster.data.diagnose import Needs

    run(
        videos or [],
        files_from=files_from,
        root=root,
        out=out,
        drop=drop or ["duplicate"],
        needs=Needs(min_seconds, min_frames),
        workers=workers,
        limit=time_limit,
        as_json=as_json,
    )


DataOption = Annotated[
    Path,
    typer.Option(help="A folder of class folders, or a CSV / JSONL manifest: path,label[,split]."),
]
RootOption = Annotated[
    Path | None, typer.Option(help="Folder that the manifest's paths start from; default: its own.")
]
LabelsJsonOption = Annotated[
    Path | None, typer.Option(help="Label JSON for lists with integer labels.")
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(help="Keep rows where COLUMN=VALUE, e.g. dataset=UCF101; may be repeated."),
]
DescriptionsOption = Annotated[
    Path | None,
    typer.Option(help="JSON of name: sentence; or kinetics400, kinetics600, ucf101, hmdb51, ssv2."),
]


@app.command()
def train(
    data: DataOption,
    out: Annotated[
        Path, typer.Option(help="Folder of the run: models, checkpoints, metrics, report.")
    ],
    model: ModelOption = None,
    method: Annotated[
        str, typer.Option(help="Video network; froster methods lists them.")
    ] = "vclip",
    variant: Annotated[
        str | None, typer.Option(help="Variant of the method; froster methods lists them.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-O", help="NAME=VALUE of the method; may be repeated."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="official (the method's own paper) or froster.")
    ] = None,
    distill: Annotated[
        str | None, typer.Option(help="residual, mlp, plain, none, froster, froster-paper.")
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Weight of the projector's MLP path.")] = None,
    beta_v: Annotated[float | None, typer.Option(help="Weight of the vision distillation.")] = None,
    beta_t: Annotated[float | None, typer.Option(help="Weight of the text distillation.")] = None,
    distance: Annotated[str | None, typer.Option(help="cosine, l2 or mse.")] = None,
    level: Annotated[
        str | None, typer.Option(help="Distil each frame, or the pooled video.")
    ] = None,
    tune: Annotated[
        str | None, typer.Option(help="method (what it trains itself), both, image or text tower.")
    ] = None,
    novel_column: Annotated[
        str | None, typer.Option(help="Manifest column that says base or novel.")
    ] = None,
    novel_file: Annotated[
        Path | None, typer.Option(help="File of the class names to hold out, one a line.")
    ] = None,
    novel_fraction: Annotated[
        float, typer.Option(help="Share of the classes to hold out, two at least.", min=0, max=0.9)
    ] = 0.0,
    split_seed: Annotated[int, typer.Option(help="Draws the held-out classes and videos.")] = 0,
    shots: Annotated[
        int | None, typer.Option(help="Training videos a class; default: all.", min=1)
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(
            help=(
                "Share of videos kept for the test if there is no split; default: by their number."
            ),
            min=0,
            max=0.9,
        ),
    ] = None,
    watch: Annotated[
        float | None,
        typer.Option(
            help="Share of training videos to watch it by; 0: none; default: 0.1 without a split.",
            min=0,
            max=0.9,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Epochs without gain on watched videos that stop it; 0: never.", min=0),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training videos.", min=1)
    ] = None,
    average_from: Annotated[
        int | None, typer.Option(help="First epoch of the final mean of the weights.", min=1)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Clips a step, over all processes.", min=1)
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate of what the method trains.")
    ] = None,
    new_scale: Annotated[
        float | None, typer.Option(help="Rate of new weights, as a multiple of CLIP's.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Frames a clip.", min=1)] = None,
    sampling: Annotated[str | None, typer.Option(help="dense or uniform.")] = None,
    clamp: Annotated[
        str | None,
        typer.Option(help="Of dense sampling: released or even; default: as the model does."),
    ] = None,
    views: Annotated[int | None, typer.Option(help="Clips a test video.", min=1)] = None,
    flip: Annotated[
        bool, typer.Option(help="Mirror half of the training clips (not for left/right classes).")
    ] = True,
    seed: Annotated[int, typer.Option(help="Order, templates, crops and projectors.")] = 0,
    workers: WorkersOption = None,
    compile_towers: Annotated[
        bool, typer.Option("--compile", help="Kernels made by torch.compile: faster on a GPU.")
    ] = False,
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--checkpointing",
            help="Compute activations again in the backward pass: less memory, slower.",
        ),
    ] = False,
    keep: Annotated[
        int, typer.Option(help="Checkpoints kept; 0: every epoch's (for blend --epochs).", min=0)
    ] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that --out holds.")
    ] = False,
    where: WhereOption = None,
    root: RootOption = None,
    labels_json: LabelsJsonOption = None,
    descriptions: DescriptionsOption = None,
    truncate: TruncateOption = False,
    look: Annotated[
        bool, typer.Option(help="Look for test videos that are training videos too.")
    ] = True,
    blend_points: Annotated[
        int, typer.Option(help="Ratios of the report's blend curve; 0: none.", min=0)
    ] = 5,
    logger: Annotated[
        str | None, typer.Option(help="Also log to tensorboard or wandb (extras).")
    ] = None,
    device: DeviceOption = None,
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Fine-tune on labelled videos and report what was gained on base classes and kept on held-out
    ones.

    Example: froster train --data videos/ --model nano --novel-fraction 0.3 --out runs/first
    """
    from froster.cli.train import run

    given: dict[str, Any] = dict(locals())
    given.pop("run")
    run(**given)


@app.command()
def evaluate(
    data: DataOption,
    model: ModelOption = None,
    labels_file: Annotated[
        Path | None, typer.Option(help="Classes to choose from; default: those of the data.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="Splits to score, one result each; default: test, or all."),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            help=(
                "test, trained, watched or all; default: test where the model has seen some of the"
                " data, else all."
            )
        ),
    ] = None,
    views: Annotated[int | None, typer.Option(help="Clips a video.", min=1)] = None,
    sampling: Annotated[str | None, typer.Option(help="dense or uniform.")] = None,
    clamp: Annotated[
        str | None,
        typer.Option(help="Of dense sampling: released or even; default: as the model does."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Videos a batch.", min=1)] = 8,
    workers: WorkersOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for predictions, report and confusion picture.")
    ] = None,
    where: WhereOption = None,
    root: RootOption = None,
    labels_json: LabelsJsonOption = None,
    descriptions: DescriptionsOption = None,
    truncate: TruncateOption = False,
    device: DeviceOption = None,
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Accuracy of a model on labelled videos: top-1, top-5, per class. Videos that it was trained
    on are not scored unasked.

    Example: froster evaluate --data videos/ --model runs/first
    """
    from froster.cli.evaluate import run

    given: dict[str, Any] = dict(locals())
    given.pop("run")
    run(**given)


@app.command()
def blend(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Output folder of froster train.")],
    data: Annotated[
        Path | None, typer.Option(help="The run's data, if it lies elsewhere now.")
    ] = None,
    root: RootOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of model, numbers and picture; default: RUN/blend.")
    ] = None,
    epochs: Annotated[
        str | None,
        typer.Option(
            help="A-B: tuned is the mean of these epochs' checkpoints; default: the run's own mean."
        ),
    ] = None,
    points: Annotated[
        int, typer.Option(help="Ratios measured, evenly from 0 (tuned) to 1 (CLIP).")
    ] = 11,
    rule: Annotated[
        str,
        typer.Option(
            help=(
                "On held-out base videos, never on novel ones: one-se (the largest ratio within one"
                " standard error of "
                "the best accuracy) or best."
            )
        ),
    ] = "one-se",
    ratio: Annotated[
        float | None, typer.Option(help="Take this share of CLIP; measure and choose nothing.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="The CLIP of the run, if it lies elsewhere now."),
    ] = None,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Mix a run's weights with CLIP's: base, novel and HM over the ratio; a ratio chosen on
    held-out base videos.

    Example: froster blend runs/first --epochs 2-6
    """
    from froster.cli.blend import run

    given: dict[str, Any] = dict(locals())
    given.pop("run")
    run(**given)


@app.command()
def calibrate(
    model: Annotated[
        str, typer.Argument(help="Output folder of froster train, or any model (then with --data).")
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Held-out labelled videos; default: those that the run held out."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split to fit to; default: validation, or all if there is no split."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write a calibrated copy of the model here; default: into its folder."),
    ] = None,
    views: Annotated[int | None, typer.Option(help="Clips a video.", min=1)] = None,
    workers: WorkersOption = None,
    where: WhereOption = None,
    root: RootOption = None,
    labels_json: LabelsJsonOption = None,
    descriptions: DescriptionsOption = None,
    truncate: TruncateOption = False,
    device: DeviceOption = None,
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Make scores mean what they say, and fit how likely "none of these" is, to held-out videos.

    Example: froster calibrate runs/first
    """
    from froster.cli.calibrate import run

    given: dict[str, Any] = dict(locals())
    given.pop("run")
    run(**given)


@app.command()
def push(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Output folder of froster train, or a model folder."),
    ],
    repo: Annotated[
        str,
        typer.Argument(
            metavar="USER/NAME", help="Repository on the Hugging Face hub; made if need be."
        ),
    ],
    licence: Annotated[
        str | None,
        typer.Option("--license", help="The hub's name of a licence: apache-2.0, cc-by-4.0 …"),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="A new repository that only you can see.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the card and what would be sent.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Publish a model with a card; froster.load("USER/NAME") reads it anywhere. HF_TOKEN and
    HF_ENDPOINT are honoured.

    Example: froster push runs/first me/my-gestures --license cc-by-4.0 --dry-run
    """
    from froster.cli.push import run

    run(folder, repo, licence, private=private, dry_run=dry_run, as_json=as_json)


@app.command()
def methods(as_json: JsonOption = False) -> None:
    """The video networks and the kinds of distillation that train knows."""
    from froster.cli.methods import run

    run(as_json)


@app.command()
def reproduce(
    tables: Annotated[list[str], typer.Argument(help="table1 … table7, fig1, fig4, fig5, or all.")],
    world: Annotated[
        bool, typer.Option("--world", help="In miniature, on the rendered world and the nano CLIP.")
    ] = False,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of prepared manifests: k400.csv, ucf101.csv, …")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the runs and tables; what it holds is not run again.")
    ] = Path("results"),
    seeds: Annotated[
        int | None,
        typer.Option(help="Runs of a row; default: 5 in miniature, 1 on real data.", min=1),
    ] = None,
    shots: Annotated[
        int, typer.Option(help="Training videos a class, in base-to-novel and in miniature.", min=1)
    ] = 16,
    videos: Annotated[
        int, typer.Option(help="In miniature: test videos a set, at least.", min=24)
    ] = 500,
    base_sets: Annotated[
        int, typer.Option(help="Draws of the base-to-novel training videos.", min=1)
    ] = 3,
    lists: Annotated[
        Path | None,
        typer.Option(help="Training lists to take in their place: LISTS/ucf101/*train*.csv, …"),
    ] = None,
    hmdb_labels: Annotated[
        str, typer.Option(help="released (two pairs of names swapped) or fixed.")
    ] = "released",
    hmdb_full: Annotated[
        str, typer.Option(help="HMDB*: released (5,100 videos) or all (6,766).")
    ] = "released",
    ssv2_flip: Annotated[
        bool, typer.Option(help="Mirror SSv2's training clips, as released.")
    ] = True,
    sampling: Annotated[
        str, typer.Option(help="dense (as released) or uniform (as the paper says).")
    ] = "dense",
    clamp: Annotated[str, typer.Option(help="Of dense sampling: released or even.")] = "released",
    gpu: Annotated[
        str, typer.Option(help="Whose hours to estimate: v100, a100, h100, h200, l40s, rtx4090.")
    ] = "a100",
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that read videos; default: one a spare core.", min=0),
    ] = None,
    shard: Annotated[
        str, typer.Option(help="This process's share of the runs, for example 0/2.")
    ] = "0/1",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would run, what is missing and how long."),
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Only write the tables from the runs that exist.")
    ] = False,
    model: ModelOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """The paper's tables and figures: every row trained and tested, its published value, ours, and
    the difference.

    Example: froster reproduce table2 --data-root DATA --dry-run
    """
    from froster.errors import UsageError

    if world == (data_root is not None):
        raise UsageError(
            "pass --data-root DIR for the real data sets (froster prepare makes them), or --world"
            " for the miniature"
        )
    common: dict[str, Any] = {
        "out": out,
        "shard": shard,
        "dry_run": dry_run,
        "report": report,
        "as_json": as_json,
    }
    if data_root is None:
        from froster.cli.reproduce import run_world

        run_world(tables, seeds=seeds or 5, shots=shots, videos=videos, **common)
        return
    from froster.cli.reproduce import run_real
    from froster.paper.protocols import Options

    options = Options(hmdb_labels, hmdb_full, ssv2_flip, sampling, clamp, shots, base_sets)  # type: ignore[arg-type]
    run_real(
        tables,
        data_root=data_root,
        options=options,
        lists=lists,
        seeds=seeds or 1,
        gpu=gpu,
        workers=workers,
        model=model,
        device=device,
        precision=precision,
        **common,
    )


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(help="k400, k600, ucf101, hmdb51 or ssv2.")],
    videos: Annotated[Path, typer.Option(help="Folder of the videos, as downloaded.")],
    out: Annotated[Path, typer.Option(help="Manifest to write (.csv); its reports lie beside it.")],
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the official annotation files, or of lists; default: split folders."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that check videos; default: one a core.", min=0)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the checks of an earlier run.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make and verify the manifest of a data set in its official layout.

    Example: froster prepare ucf101 --videos UCF-101 --annotations ucfTrainTestlist --out ucf101.csv
    """
    from froster.cli.prepare import run

    run(name, videos, annotations, out, workers=workers, resume=resume, as_json=as_json)


@app.command()
def export(
    out: Annotated[
        Path, typer.Option(help="Folder for the model file, export.json and the class embeddings.")
    ],
    to: Annotated[str, typer.Option(help="onnx or openvino (extras).")] = "onnx",
    labels: Annotated[
        str | None,
        typer.Option(help="Between commas, or one a line: for a file that gives their logits."),
    ] = None,
    labels_file: Annotated[
        Path | None, typer.Option(help="A label a line, a .csv or .tsv (FILE.csv:COLUMN), a .json.")
    ] = None,
    model: ModelOption = None,
    truncate: TruncateOption = False,
    as_json: JsonOption = False,
) -> None:
    """A model as a file for ONNX Runtime or OpenVINO, checked against PyTorch before it appears.

    Example: froster export --model runs/first --to openvino --labels-file labels.txt --out exported
    """
    from froster.cli.export import run

    given: dict[str, Any] = dict(locals())
    given.pop("run")
    run(**given)


@app.command()
def attend(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    models: Annotated[
        str,
        typer.Option(
            help="Between commas: frozen (the CLIP of --model), nano, model folders, hub ids."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The picture, a .png: one row a model, one column a frame.")
    ],
    layer: Annotated[int, typer.Option(help="Block of the image tower; -1 is the last one.")] = -1,
    rollout: Annotated[
        bool, typer.Option("--rollout", help="Through all blocks up to that one.")
    ] = False,
    animate: Annotated[
        Path | None, typer.Option(help="Also as a moving picture, a .gif or .mp4.")
    ] = None,
    model: ModelOption = None,
    sampling: Annotated[
        str | None, typer.Option(help="dense or uniform; default: as the first video network.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Frames shown.", min=1)] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where models look: the attention of [CLS] to the patches of each frame, drawn over the
    frames.

    Example: froster attend holiday.mp4 --models frozen,runs/first --model nano --out attention.png
    """
    from froster.cli.attend import run

    given: dict[str, Any] = dict(locals())
    given.pop("run")
    run(**given)


@app.command()
def distance(
    first: Annotated[
        str,
        typer.Argument(
            metavar="A", help="File of labels, data set (k400 …), or names between commas."
        ),
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="The other set, likewise.")],
    model: ModelOption = None,
    out: Annotated[Path | None, typer.Option(help="Draw the nearest similarities, a .png.")] = None,
    truncate: TruncateOption = False,
    device: DeviceOption = None,
    precision: PrecisionOption = "float32",
    as_json: JsonOption = False,
) -> None:
    """How far apart two label sets are: the released code's similarity and the Hausdorff distance,
    both ways.

    Example: froster distance ucf101 k400 --out distance.png
    """
    from froster.cli.distance import run

    given: dict[str, Any] = dict(locals())
    given.pop("run")
    run(**given)


@app.command()
def describe(
    labels: Annotated[
        Path | None,
        typer.Argument(help="A label a line, a .csv or .tsv (FILE.csv:COLUMN), a .json."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON of name: sentence; what it holds is not asked again.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Chat endpoint, http://localhost:8000/v1; default: OpenAI's.")
    ] = None,
    model: Annotated[str, typer.Option(help="The language model's name there.")] = "gpt-4o-mini",
    from_file: Annotated[
        str | None, typer.Option(help="Take sentences from this file first; alone, ask nobody.")
    ] = None,
    key_env: Annotated[
        str, typer.Option(help="Environment variable that holds the key.")
    ] = "OPENAI_API_KEY",
    concurrency: Annotated[int, typer.Option(help="Requests at a time.", min=1, max=64)] = 4,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the server.", min=0.1)] = 60,
    show_prompt: Annotated[
        bool, typer.Option("--show-prompt", help="Only print what is asked for each class.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """One sentence for each class, written by a language model: labels that say more than a name.

    Example: froster describe labels.txt --out descriptions.json --endpoint http://localhost:8000/v1
    --model llama3
    """
    from froster.cli.describe import run

    given: dict[str, Any] = dict(locals())
    given.pop("run")
    run(**given)


@app.command()
def timeline(
    video: Annotated[str, typer.Argument(metavar="VIDEO", help="A video file of any length.")],
    labels: Annotated[
        str | None, typer.Option(help='Between commas, or one a line: "surfing, skiing, cooking".')
    ] = None,
    labels_file: Annotated[
        Path | None, typer.Option(help="A label a line, a .csv or .tsv (FILE.csv:COLUMN), a .json.")
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Write a .json, .csv, .srt, .vtt or .png (a picture); may be repeated."),
    ] = None,
    window: Annotated[
        float | None, typer.Option(help="Seconds seen at once; the model's sampling says how many.")
    ] = None,
    stride: Annotated[
        float | None,
        typer.Option(help="Seconds from window to window; default: about a quarter of one."),
    ] = None,
    min_segment: Annotated[
        float, typer.Option(help="Shorter segments, in seconds, become part of a neighbour.", min=0)
    ] = 0.0,
    model: ModelOption = None,
    batch_size: Annotated[int, typer.Option(help="Windows a batch.", min=1)] = 8,
    truncate: TruncateOption = False,
    device: DeviceOption = None,
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Which of these labels when? Segments with start, end, label and score, over a video of any
    length.

    Example: froster timeline holiday.mp4 --labels "surfing, skiing, cooking" --out holiday.srt
    --out holiday.png
    """
    from froster.cli.timeline import run

    given: dict[str, Any] = dict(locals())
    given.pop("run")
    run(**given)


@app.command()
def watch(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="rtsp://…, http://…, /dev/video0, or a file.")
    ],
    labels: Annotated[
        str | None, typer.Option(help='Between commas, or one a line: "surfing, skiing, cooking".')
    ] = None,
    labels_file: Annotated[
        Path | None,
        typer.Option(help="One label a line; read again whenever it changes, without a stop."),
    ] = None,
    window: Annotated[
        float | None, typer.Option(help="Seconds seen at once; the model's sampling says how many.")
    ] = None,
    stride: Annotated[
        float | None,
        typer.Option(help="Seconds from line to line; default: about a quarter of a window."),
    ] = None,
    stall: Annotated[
        float, typer.Option(help="Seconds without a frame after which to reconnect.", min=0.1)
    ] = 10.0,
    reconnect: Annotated[
        float, typer.Option(help="Seconds to the first new try; then twice as many each.", min=0)
    ] = 1.0,
    tries: Annotated[
        int, typer.Option(help="Tries in a row before giving up; 0: never give up.", min=0)
    ] = 0,
    seconds: Annotated[
        float | None, typer.Option(help="Stop after this many seconds.", min=0)
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Stop after this many lines.", min=1)] = None,
    model: ModelOption = None,
    truncate: TruncateOption = False,
    device: DeviceOption = None,
    precision: PrecisionOption = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Which of these labels now? A line a stride, from a camera, a stream or a file that plays at
    its own speed.

    Example: froster watch rtsp://camera.local/live --labels-file labels.txt --model runs/first
    --json
    """
    from froster.cli.watch import run

    given: dict[str, Any] = dict(locals())
    given.pop("run")
    run(**given)


@app.command()
def serve(
    model: ModelOption = None,
    compare: Annotated[
        str | None, typer.Option(help="A second model, shown beside the first.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that others reach needs --token-env.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 7860,
    token_env: Annotated[
        str | None, typer.Option(help="Environment variable with the token that callers must give.")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option(help="Folder of videos to pick from on the page.")
    ] = None,
    max_upload: Annotated[float, typer.Option(help="Megabytes of an upload.", min=0.001)] = 200,
    max_seconds: Annotated[float, typer.Option(help="Length of a video.", min=0.1)] = 600,
    max_labels: Annotated[int, typer.Option(help="Labels of a request.", min=1)] = 200,
    queue: Annotated[
        int, typer.Option(help="Requests that may wait; more are told to come back.", min=0)
    ] = 8,
    timeout: Annotated[
        float, typer.Option(help="Seconds from the end of the upload to the answer.", min=0.1)
    ] = 60,
    page: Annotated[bool, typer.Option(help="The web page beside the API.")] = True,
    device: DeviceOption = None,
    precision: PrecisionOption = "auto",
) -> None:
    """The web page and the HTTP API: upload a video, type labels, see which fits and when. On this
    machine alone by default.

    Example: froster serve --model runs/first --compare nano
    """
    from froster.cli.serve import run

    given: dict[str, Any] = dict(locals())
    given.pop("run")
    run(**given)
