"""The steps by hand, on the same functions and the same files as the workflow."""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from cis490 import __version__
from cis490.channels import MODES
from cis490.config import merge, read_yaml, require_optuna, resolve, splits
from cis490.episodes.plan import batches_of, plan, read_batches, read_store, training_settings
from cis490.errors import Cis490Error, ConfigError
from cis490.home import workflow_folder
from cis490.logs import LiveTerminal, Terminal, logger

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `cis490`; a known error is one line on stderr and exit code 1."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    passed_on: list[str] = []
    if given[:1] == ["watch"] and "--" in given:
        place = given.index("--")
        given, passed_on = given[:place], given[place + 1 :]
    options = _parser().parse_args(given, argparse.Namespace(passed_on=passed_on))
    terminal = _terminal(options)
    logger.handlers[:] = [terminal]
    logger.setLevel(logging.INFO)
    run: Callable[[argparse.Namespace], None] = options.run
    try:
        with closing(terminal):
            run(options)
    except Cis490Error as error:
        sys.exit(f"error: {error}")
    except FileNotFoundError as error:
        sys.exit(f"error: {error.filename} is missing: the steps before this one make it")
    except BrokenPipeError:  # `cis490 inspect … | head`
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit("interrupted")


def _terminal(options: argparse.Namespace) -> logging.Handler:
    if options.verbose:
        return logging.StreamHandler()
    lives = options.name in ("train", "out-of-fold", "tune", "lab record")
    live = lives and sys.stderr.isatty()
    return LiveTerminal() if live else Terminal(options.name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cis490",
        description="From a store of recorded episodes to malware detectors: the workflow's steps "
        "by hand. The whole way is `snakemake --cores 16 --resources gpu=1`.",
    )
    parser.add_argument("--version", action="version", version=f"cis490 {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    init = _command(commands, "init", _init, "set up a folder to run the workflow in")
    init.add_argument("folder", type=Path, metavar="DIR", help="made if need be")
    init.add_argument("--store", type=Path, help="folder of episodes, to put into its config.yaml")

    validate = _command(commands, "validate", _validate, "judge every episode of a store")
    validate.add_argument("store", type=Path, metavar="STORE", help="folder of episodes")
    validate.add_argument("--out", type=Path, help="also write the verdicts to this Parquet file")

    inspect = _command(commands, "inspect", _inspect, "say what is in one episode")
    inspect.add_argument("episode", type=Path, metavar="EPISODE", help="a file ….tar.zst")
    inspect.add_argument("--plot", type=Path, metavar="OUT", help="also draw it (.png, .svg, .pdf)")

    ingest = _command(
        commands, "ingest", _ingest, "decode a store: telemetry, features, tensors, splits"
    )
    train = _command(commands, "train", _train, "train one architecture in one mode, and predict")
    default = resolve({})
    train.add_argument("architecture", choices=[*default["models"], *default["baselines"]])
    oof = _command(commands, "out-of-fold", _out_of_fold, "predict the training hosts out of fold")
    oof.add_argument("architecture", choices=[*default["models"], *default["baselines"]])
    tune = _command(commands, "tune", _tune, "search one architecture's settings in one mode")
    tune.add_argument("architecture", choices=default["models"])
    tune.add_argument("--workers", type=int, default=2, help="trials at once (default: 2)")
    for command in (train, oof, tune):
        command.add_argument("mode", choices=list(MODES))
    tuned = _command(commands, "tuned", _tuned, "print what searches chose, for config.yaml")
    evaluate = _command(commands, "evaluate", _evaluate, "score what is trained, write the report")
    for command in (train, oof, tune, tuned, evaluate):
        command.add_argument("--split", help="name of the split (default: the primary one)")
    report = _command(
        commands, "report", _report, "print the first page of the report, or a section of it"
    )
    report.add_argument(
        "section",
        nargs="?",
        metavar="SECTION",
        help="words of its heading, such as pitfalls or 'false alarms'; default: the first page",
    )
    doctor = _command(commands, "doctor", _doctor, "say what is wrong here, and how to mend it")
    doctor.add_argument("--profile", type=Path, help="check what this profile needs, SLURM say")
    doctor.add_argument("--json", action="store_true", help="for machines")
    clean = _command(commands, "clean", _clean, "remove results that no config refers to any more")
    clean.add_argument(
        "--also",
        type=Path,
        action="append",
        default=[],
        metavar="CONFIG",
        help="another config whose results stay; may be given several times",
    )
    how = clean.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="only say what would go (the default)")
    how.add_argument("--yes", action="store_true", help="remove it")
    times = _command(commands, "times", _times, "say where time and memory of the workflow went")
    times.add_argument(
        "--picture", type=Path, metavar="OUT", help="also draw it (.svg, .png, .pdf)"
    )
    times.add_argument("--timeline", type=Path, metavar="OUT", help="draw when each job ran")
    status = _command(commands, "status", _status, "say how the last run is doing")
    for command in (times, status):
        command.add_argument(
            "results",
            nargs="?",
            type=Path,
            default=Path("results"),
            metavar="RESULTS",
            help="folder of results (default: results)",
        )
    _simulate_arguments(
        _command(commands, "simulate", _simulate, "make a store of any size, for tests")
    )
    _watch_arguments(
        _command(commands, "watch", _watch, "run the workflow when new episodes have arrived")
    )
    _lab_commands(commands)
    for command in (ingest, train, oof, tune, tuned, evaluate, report, doctor, clean):
        command.add_argument(
            "--results", type=Path, default=Path("results"), help="folder (default: results)"
        )
    return parser


def _simulate_arguments(parser: argparse.ArgumentParser) -> None:
    from cis490.episodes.recipe import Recipe

    parser.description = (
        "Clone real episodes under other ids, hosts and times. Such a store tests and times the "
        "workflow; a report on it has no headline."
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the new store")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--episodes", type=int, metavar="N", help="make a store of N episodes")
    size.add_argument("--append", type=int, metavar="N", help="let N new ones arrive in OUT")
    for name, text in Recipe.HELP.items():
        default = getattr(Recipe(), name)
        parser.add_argument(
            f"--{name}", type=type(default), default=default, help=f"{text} (default: {default})"
        )
    parser.add_argument("--source", type=Path, help="store to clone (default: the config's store)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")


def _watch_arguments(parser: argparse.ArgumentParser) -> None:
    from cis490.watch import Pace

    parser.usage = "cis490 watch STORE [options] [-- SNAKEMAKE OPTIONS]"
    parser.description = (
        "Run the workflow in this directory on STORE, now and each time that new episodes have "
        "arrived there. What follows -- goes to Snakemake (without it: --cores all --resources "
        "gpu=1). Ctrl-C and SIGTERM leave running jobs a while to end, then interrupt them; the "
        "next run goes on where they were. docs/nightly.md has more."
    )
    parser.add_argument("store", type=Path, metavar="STORE", help="folder of episodes")
    parser.add_argument("--once", action="store_true", help="run once and end, for cron")
    for name, text in {
        "still": "the index must not have changed for",
        "patience": "from an index's first change until a run, however much it changes",
        "retry": "after a failed run; twice as long after each further one",
        "grace": "that running jobs have to end when the watch is stopped",
    }.items():
        default = getattr(Pace(), f"{name}_s")
        parser.add_argument(
            f"--{name}",
            type=_seconds,
            metavar="SECONDS",
            default=default,
            help=f"{text} (default: {default:g})",
        )


def _lab_commands(commands: Any) -> None:
    from cis490.lab.cli import add_commands

    text = "record a corpus of your own with QEMU"
    add_commands(commands.add_parser("lab", help=text, description=f"{text.capitalize()}."))


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    parser.add_argument("--configfile", type=Path, help="settings that differ from config.yaml")
    parser.add_argument("-v", "--verbose", action="store_true", help="say each thing that happens")
    parser.set_defaults(run=run, name=name)
    return parser


def _config(options: argparse.Namespace, **overrides: Any) -> dict[str, Any]:
    default = workflow_folder() / "config.yaml"
    user = read_yaml("config.yaml") if _was_set_up(Path()) else {}
    if options.configfile:
        user = merge(user, read_yaml(options.configfile))
    return resolve({**user, **overrides}, default_file=default)


def _was_set_up(folder: Path) -> bool:
    """Whether `cis490 init` made a folder: its Snakefile takes the config.yaml beside it."""
    try:
        return "cis490.home" in (folder / "Snakefile").read_text()
    except OSError:
        return False


def progress(items: Iterable[T], n: int, what: str) -> Iterator[T]:
    """Count on a terminal; silent elsewhere."""
    shown = sys.stderr.isatty()
    for i, item in enumerate(items):
        if shown:
            print(f"\r{what} {i}/{n}", end="", file=sys.stderr, flush=True)
        yield item
    if shown:
        print(f"\r{what} {n}/{n}", file=sys.stderr)


def _init(options: argparse.Namespace) -> None:
    from cis490.init import init

    chosen = init(options.folder, options.store)
    print(
        f"{options.folder}/config.yaml   the settings\n"
        f"{options.folder}/profiles/     how jobs are started: default, and those for --profile\n"
        f"{options.folder}/Snakefile     leads to the workflow in {workflow_folder()}\n"
    )
    if options.store:
        trained, tested = (", ".join(chosen[f"{part}_hosts"]) for part in ("train", "test"))
        print(f"A first guess, to be changed in config.yaml: trained on {trained or 'no host'},")
        print(f"tested on {tested or 'no host'}.")
    else:
        print("Set `store`, `train_hosts` and `test_hosts` in config.yaml.")
    print(f"Then: cd {options.folder} && cis490 doctor && snakemake --cores 2")


def _validate(options: argparse.Namespace) -> None:
    import polars as pl

    from cis490 import files
    from cis490.episodes.summary import render, tabulate
    from cis490.episodes.tarball import Limits
    from cis490.episodes.validate import VERDICT_SCHEMA, Entry, examine

    config = _config(options, store=str(options.store))
    manifests, index_report = read_store(config)
    entries = [(m["batch"], Entry.from_manifest(e)) for m in manifests for e in m["episodes"]]
    limits = Limits.from_config(config)
    rows = [
        examine(entry, config["store"], limits)[0].row(batch)
        for batch, entry in progress(entries, len(entries), "episodes")
    ]
    table = tabulate([pl.DataFrame(rows, VERDICT_SCHEMA)], index_report)
    if options.out:
        files.write_parquet(options.out, table)
    print(render(table, index_report), end="")


def _simulate(options: argparse.Namespace) -> None:
    from cis490.episodes.recipe import Recipe
    from cis490.episodes.simulate import simulate

    source = options.source or Path(_config(options)["store"])
    recipe = Recipe(**{name: getattr(options, name) for name in Recipe.HELP})
    append, n = options.append is not None, options.append or options.episodes
    steps = simulate(options.out, n, recipe, source=source, append=append, workers=options.workers)
    start = time.monotonic()
    for done in steps:
        if sys.stderr.isatty():
            left = (time.monotonic() - start) / done * (n - done)
            text = f"\r{done:,} of {n:,} episodes, {left:.0f} s left "
            print(text, end="", file=sys.stderr, flush=True)
    print(f"{n:,} episodes {'added to' if append else 'in'} {options.out}")


def _watch(options: argparse.Namespace) -> None:
    from cis490.watch import Pace, Watch, directory_of, snakemake

    store = options.store.resolve()
    _config(options, store=str(store))  # a wrong setting is said now, and not at night
    watch = Watch(
        store,
        snakemake(store, options.configfile, options.passed_on),
        directory_of(options.passed_on),
        Pace(options.still, options.patience, options.retry, options.grace),
        lambda text: print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}", flush=True),
    )
    if not options.once:
        watch.follow()
    elif code := watch.once():
        sys.exit(code)


def _inspect(options: argparse.Namespace) -> None:
    from cis490.episodes.describe import describe, plot
    from cis490.episodes.tarball import Limits
    from cis490.episodes.validate import examine_file
    from cis490.schema import Schema

    config = _config(options)
    schema = Schema.from_config(config)
    verdict, episode = examine_file(options.episode, Limits.from_config(config))
    print(describe(options.episode, verdict, episode, schema), end="")
    if options.plot and episode is not None:
        plot(episode, schema, options.plot)
        print(f"\nPicture: {options.plot}")
    if episode is None:
        sys.exit(1)


def _ingest(options: argparse.Namespace) -> None:
    from cis490 import files
    from cis490.episodes.ingest import ingest
    from cis490.episodes.summary import gather
    from cis490.episodes.tarball import Limits
    from cis490.schema import Schema
    from cis490.splits import write_fit, write_split
    from cis490.windows.build import build

    config, results = _config(options), options.results
    batches = plan(config, results / "plan")
    schema = Schema.from_config(config)
    files.write_json(results / "schema.json", schema.to_dict())
    for batch in progress(batches, len(batches), "batches"):
        ingest(
            files.read_json(results / f"plan/batches/{batch}.json"),
            store=config["store"],
            limits=Limits.from_config(config),
            verdicts=results / f"verdicts/{batch}.parquet",
            folder=results / f"telemetry/{batch}",
        )
        build(
            results / f"telemetry/{batch}",
            schema,
            features=results / f"features/{batch}.parquet",
            tensors=results / f"tensors/{batch}.safetensors",
        )
    verdicts = {batch: results / f"verdicts/{batch}.parquet" for batch in batches}
    gather(
        list(verdicts.values()),
        files.read_json(results / "plan/index.json"),
        parquet=results / "validation.parquet",
        markdown=results / "validation.md",
    )
    for split in splits(config):
        name = split["name"]
        fit = results / f"splits/fit/{name}.parquet"
        training = [verdicts[batch] for batch in batches_of(split, batches, ["train"])]
        write_fit(training, training_settings(split), fit)
        write_split(
            list(verdicts.values()),
            split,
            trainable=training,
            fit=fit,
            parquet=results / f"splits/{name}.parquet",
            json=results / f"splits/{name}.json",
        )
    print(f"{results}/validation.md says what the store holds")


def _split(options: argparse.Namespace, config: dict[str, Any]) -> dict[str, Any]:
    named = {split["name"]: split for split in splits(config)}
    name = options.split or next(iter(named))
    if name not in named:
        raise ConfigError(f"no split {name}; there are {', '.join(named)}")
    return named[name]


def _windows(results: Path, split: dict[str, Any], *parts: str) -> tuple[list[Path], list[Path]]:
    try:
        batches = batches_of(split, read_batches(results / "plan"), parts)
    except FileNotFoundError:
        raise Cis490Error(f"{results} holds no plan: run `cis490 ingest` first") from None
    return (
        [results / f"features/{batch}.parquet" for batch in batches],
        [results / f"tensors/{batch}.safetensors" for batch in batches],
    )


def _claim_card(options: argparse.Namespace, config: dict[str, Any]) -> None:
    """As a job of the workflow does, so that both can run on one machine."""
    from cis490.gpus import ON_CPU, claim
    from cis490.hardware import may_use_gpu

    training = config["training"]
    if options.architecture not in ON_CPU and may_use_gpu(training["device"]):
        claim(training["gpu_slots"])


def _train(options: argparse.Namespace) -> None:
    from cis490.code import LEARNING, code_hash
    from cis490.training.predict import predict
    from cis490.training.spaces import SPACES
    from cis490.training.train import Places, train

    config, results = _config(options), options.results
    split = _split(options, config)
    name, model = split["name"], f"{options.architecture}_{options.mode}"
    features, tensors = _windows(results, split, "train")
    _claim_card(options, config)
    searched = config["tune"] and options.architecture in SPACES
    train(
        options.architecture,
        options.mode,
        schema_file=results / "schema.json",
        fit_file=results / f"splits/fit/{name}.parquet",
        features=features,
        tensors=tensors,
        config=config,
        code=code_hash(Path(__file__).parent / part for part in LEARNING),
        out=results / f"models/{name}/{model}",
        places=Places.under(results, f"{name}/{model}", config),
        tuning=_tuning(results, name, model) if searched else None,
    )
    features, tensors = _windows(results, split, "train", "test")
    predict(
        model_dir=results / f"models/{name}/{model}",
        schema_file=results / "schema.json",
        split_file=results / f"splits/{name}.parquet",
        features=features,
        tensors=tensors,
        config=config,
        out=results / f"predictions/{name}/{model}.parquet",
        latency_out=results / f"predictions/{name}/{model}_latency.json",
    )
    print(f"{results}/models/{name}/{model}")


def _out_of_fold(options: argparse.Namespace) -> None:
    from cis490.code import LEARNING, code_hash
    from cis490.training.folds import out_of_fold

    config, results = _config(options), options.results
    split = _split(options, config)
    name, model = split["name"], f"{options.architecture}_{options.mode}"
    features, tensors = _windows(results, split, "train")
    _claim_card(options, config)
    out = results / f"oof/{name}/{model}.parquet"
    out_of_fold(
        options.architecture,
        options.mode,
        schema_file=results / "schema.json",
        fit_file=results / f"splits/fit/{name}.parquet",
        model_file=results / f"models/{name}/{model}/model.json",
        features=features,
        tensors=tensors,
        config=config,
        code=code_hash(Path(__file__).parent / part for part in LEARNING),
        out=out,
    )
    print(out)


def _tuning(results: Path, split: str, model: str) -> Path:
    return results / f"tuning/{split}/{model}.json"


def _tune(options: argparse.Namespace) -> None:
    from cis490.code import LEARNING, code_hash

    config, results = _config(options, tune=True), options.results
    require_optuna(config)  # before what imports it
    from cis490.training.search import tune
    from cis490.training.train import rates_under
    from cis490.training.trial import Source

    split = _split(options, config)
    features, tensors = _windows(results, split, "train")
    _claim_card(options, config)
    source = Source(
        options.architecture,
        options.mode,
        schema_file=results / "schema.json",
        fit_file=results / f"splits/fit/{split['name']}.parquet",
        features=features,
        tensors=tensors,
        rates=rates_under(results),
        rate_hours=config["training"]["rate_cache_hours"],
        code=code_hash(Path(__file__).parent / part for part in LEARNING),
    )
    out = _tuning(results, split["name"], f"{options.architecture}_{options.mode}")
    tune(source, config=config, out=out, workers=options.workers)
    print(out)


def _tuned(options: argparse.Namespace) -> None:
    from cis490.training.tuned import advice

    name = _split(options, _config(options))["name"]
    print(advice(options.results / f"tuning/{name}"))


def _evaluate(options: argparse.Namespace) -> None:
    from cis490.evaluation.evaluate import evaluate
    from cis490.report.comparison import write_comparison
    from cis490.report.curves import write_curves
    from cis490.report.page import write_page
    from cis490.training.summary import summarise

    config, results = _config(options), options.results
    split = _split(options, config)
    name = split["name"]
    models = sorted(path.parent.name for path in (results / f"models/{name}").glob("*/model.json"))
    if not models:
        raise Cis490Error(f"{results}/models/{name} holds no model: run `cis490 train` first")
    features, _ = _windows(results, split, "train", "test")
    predictions = results / f"predictions/{name}"
    said = [predictions / f"{model}.parquet" for model in models]
    out = results / f"eval/{name}"
    evals = [out / f"{model}_eval.json" for model in models]
    described = [results / f"models/{name}/{model}/model.json" for model in models]
    _warn_of_changes(described, config, results / f"splits/fit/{name}.parquet")
    evaluate(
        split_file=results / f"splits/{name}.parquet",
        split_json=results / f"splits/{name}.json",
        features=features,
        predictions=said,
        latencies=[predictions / f"{model}_latency.json" for model in models],
        models=described,
        metrics=out / "metrics.parquet",
        pairwise=out / "pairwise.parquet",
        evals=evals,
        replicates=config["evaluation"]["replicates"],
    )
    folders = [results / f"models/{name}/{model}" for model in models]
    curves = results / f"report/curves_{name}.svg"
    write_curves(
        [folder / "model.json" for folder in folders],
        [folder / "history.parquet" for folder in folders],
        curves,
    )
    trainings = results / f"models/{name}/summary.json"
    summarise([folder / "model.json" for folder in folders], trainings)
    files: dict[str, Any] = {
        "validation": results / "validation.parquet",
        "splits": [results / f"splits/{name}.json"],
        "metrics": [out / "metrics.parquet"],
        "pairwise": [out / "pairwise.parquet"],
        "trainings": [trainings],
        "evals": evals,
        "curves": [curves],
        # What the workflow made of these predictions; where it did not, the report says so.
        "stages": {
            stage: _made_of(said, out / f"{stage}.parquet")
            for stage in ("detection", "alarms", "calibration", "reliability")
        }
        | {
            stage: _made_of(said, results / f"{stage}/{name}/{stage}.parquet")
            for stage in ("probes", "robustness")
        }
        | {
            "transfer": _made_of(
                _transferred(described), results / f"transfer/{name}/transfer.parquet"
            )
        },
    }
    write_comparison(**files, out=results / "report/comparison_v2.md")
    write_page(
        **files,
        schema=results / "schema.json",
        metadata=[folder / "training_metadata.json" for folder in folders],
        predictions=said,
        out=results / "report/index.html",
        pictures=results / "report/pictures",
        summary=results / "report/production_summary.json",
    )
    _show_report(options.results)


def _warn_of_changes(models: Sequence[Path], config: dict[str, Any], fit_file: Path) -> None:
    """Say which models the config, or the split, would have trained otherwise."""
    from cis490.files import content_sha256, read_json
    from cis490.training.settings import since_trained

    fit_sha256 = content_sha256(fit_file)
    for file in models:
        model, metadata = read_json(file), read_json(file.with_name("training_metadata.json"))
        if changed := since_trained(metadata, model, config, fit_sha256):
            which = f"{model['architecture']} {model['mode']}"
            said = "%s was trained otherwise than the config says now: %s; cis490 train %s does it"
            logger.warning(said, which, "; ".join(changed), which)


def _transferred(models: Sequence[Path]) -> list[Path]:
    """Those model.json that `transfer` trains again from: gbt in every mode, all in the first."""
    first = next(iter(MODES))
    return [
        path
        for path in models
        if path.parent.name.startswith("gbt_") or path.parent.name.endswith(f"_{first}")
    ]


def _made_of(sources: Sequence[Path], table: Path) -> list[Path]:
    """A table that may be missing, or older than what it should be about."""
    newest = max((path.stat().st_mtime for path in sources), default=0.0)
    return [table] if table.exists() and table.stat().st_mtime >= newest else []


def _report(options: argparse.Namespace) -> None:
    _show_report(options.results, options.section)


def _show_report(results: Path, section: str | None = None) -> None:
    from cis490.report.printed import first_page, sections_about

    report = results / "report/comparison_v2.md"
    text = first_page(report) if section is None else sections_about(report, section)
    print(f"{text}\n\nReport: {report}")


def _doctor(options: argparse.Namespace) -> None:
    from cis490 import doctor, files

    findings = doctor.examine(lambda: _config(options), options.results, options.profile)
    print(files.to_json(findings) if options.json else doctor.render(findings), end="")
    if any(finding.state == "fault" for finding in findings):
        sys.exit(1)


def _clean(options: argparse.Namespace) -> None:
    from cis490.clean import as_text, leftovers, remove

    configs = [_config(options)]
    for other in options.also:
        configs.append(_config(argparse.Namespace(**vars(options) | {"configfile": other})))
    found = leftovers(options.results, configs)
    for line in found.summary():
        print(line)
    if options.verbose:
        print(*(f"{options.results}/{path}" for path in found.files), sep="\n")
        print(*(f"unknown, stays: {options.results}/{path}" for path in found.unknown), sep="\n")
    n, size = len(found.files), as_text(found.n_bytes)
    if not n:
        print(f"{options.results} holds nothing that could go")
    elif options.yes:
        print(f"{as_text(remove(found))} freed, {n:,} files")
    else:
        print(f"{size} in {n:,} files would go; nothing was removed: to do so, add --yes")


def _times(options: argparse.Namespace) -> None:
    from cis490.runs.times import Times, tables

    times = Times.of(options.results)
    print("\n".join(tables(times)))
    if options.picture or options.timeline:
        from cis490.runs import pictures

        if options.picture:
            pictures.write(pictures.costs(times), options.picture)
        if options.timeline:
            pictures.write(pictures.timeline(times.last), options.timeline)


def _status(options: argparse.Namespace) -> None:
    from cis490.runs.status import status

    print("\n".join(status(options.results)))
