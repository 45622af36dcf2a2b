# SPDX-License-Identifier: AGPL-3.0-or-later
"""The small commands: ``checks`` (this installation), ``cfg`` (what a command sets), ``completion`` and ``convert``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from det_ls.base.arguments import shown
from det_ls.base.errors import ArgumentError, DetLsError

PACKAGES = ("torch", "torchvision", "ultralytics", "numpy", "opencv-python", "pycocotools", "hotcoco", "onnxruntime")


def checks(words: Sequence[str]) -> None:
    """Run ``det-ls checks``: versions, what fits them, devices, and the form of the criterion that a run would take.

    Args:
        words: None are taken.

    Raises:
        ValueError: If there are words.
    """
    if words:
        raise ArgumentError(f"checks: expected no words, got {shown(' '.join(words))}.")
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from det_ls.base.version import __version__
    from det_ls.calibration.fold import check_heads
    from det_ls.evaluation import classifier, predictions
    from det_ls.losses.assumptions import check_losses
    from det_ls.stock.expect import SUPPORTED, expect
    from det_ls.training.assumptions import check_trainer

    print(f"{'det-ls':<15} {__version__}\n{'python':<15} {platform.python_version()} on {platform.platform()}")
    for package in PACKAGES:
        try:
            print(f"{package:<15} {version(package)}")
        except PackageNotFoundError:
            print(f"{package:<15} not installed")
    seams: tuple[tuple[str, Callable[[], object]], ...] = (
        ("trainer", check_trainer),
        ("losses", check_losses),
        ("validator", lambda: expect("validator", *predictions.ASSUMPTIONS, *classifier.ASSUMPTIONS)),
        ("folding", check_heads),
    )
    for part, check in seams:
        try:
            check()
            print(f"{part:<15} as det-ls knows it (ultralytics {SUPPORTED})")
        except DetLsError as error:
            print(f"{part:<15} {error}")
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    mps = ["Apple MPS"] if torch.backends.mps.is_available() else []
    print(f"{'devices':<15} {', '.join([f'CPU, {torch.get_num_threads()} threads', *cuda, *mps])}")
    for device in ["cpu", *(f"cuda:{i}" for i in range(len(cuda)))]:
        print(f"{'criterion':<15} {device}: {_form_on(device)}")


def cfg(words: Sequence[str]) -> None:
    """Run ``det-ls cfg``: print what a command would set, as YAML that ``cfg=`` reads.

    Args:
        words: The words of a command, ``cfg=`` included.

    Raises:
        TypeError: If a word is unknown.
        ValueError: If a label-smoothing key does not fit.
    """
    import yaml
    from ultralytics.utils import DEFAULT_CFG_DICT

    from det_ls.cli.grammar import arguments_of, check_words
    from det_ls.smoothing.request import Request
    from det_ls.smoothing.settings import split_keys

    check_words(words, ())
    given = arguments_of(words)
    keys, stock = split_keys(given)
    request = Request.parse(keys)
    ours: dict[str, Any] = {key: request.value(key) for key in vars(request.smoothing)}
    resolved = {**{k: v for k, v in DEFAULT_CFG_DICT.items() if k != "cfg"}, **stock, **ours}
    print(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True), end="")


def completion(words: Sequence[str]) -> None:
    """Run ``det-ls completion bash`` or ``zsh``: print a script that completes modes and keys.

    Args:
        words: The shell.

    Raises:
        ValueError: If it is neither.
    """
    if list(words) not in (["bash"], ["zsh"]):
        raise ArgumentError(f"completion: expected bash or zsh, got {shown(' '.join(words))}.")
    from det_ls.cli.grammar import MODES, split_names
    from det_ls.cli.help import keys_of
    from det_ls.stock.config import default_config

    modes = [*dict.fromkeys([*MODES, "metrics", "compare", "calibrate", "study", *OTHER_COMMANDS])]
    keys = {
        "train": [*split_names(), *default_config()],
        **{m: keys_of(m) for m in ("val", "metrics", "compare", "calibrate")},
        "study": [*dict.fromkeys([*keys_of("study"), *split_names(), *default_config()])],
    }
    cases = "\n".join(
        f"        *' {mode} '*) words=\"{' '.join(f'{k}=' for k in names)}\" ;;" for mode, names in keys.items()
    )
    print(
        _COMPLETION.format(
            zsh="autoload -U bashcompinit && bashcompinit\n" if words[0] == "zsh" else "", cases=cases
        ).replace("MODES", " ".join(modes))
    )


_COMPLETION = """# det-ls completion bash > ~/.local/share/bash-completion/completions/det-ls
# det-ls completion zsh >> ~/.zshrc
{zsh}_det_ls() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words
    case " ${{COMP_WORDS[*]:1:COMP_CWORD-1}} " in
{cases}
        *) words="MODES" ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    [[ "${{COMPREPLY[0]}}" == *= ]] && compopt -o nospace 2>/dev/null
    return 0
}}
complete -o default -F _det_ls det-ls
"""


def _form_on(device: str) -> str:
    """Say which form of the criterion a training run would take, found out as a run does, on a tiny random batch."""
    import torch
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    from det_ls.losses.families import smoothed_criterion

    try:
        model: Any = DetectionModel("yolo11n.yaml", nc=3, verbose=False)
        model.args = get_cfg()
        model = model.to(device).train()
        criterion = smoothed_criterion(model, label_smoothing=0.1)
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(2, 3, 64, 64, generator=generator).to(device)
        boxes = torch.tensor([[0.5, 0.5, 0.6, 0.6], [0.4, 0.5, 0.5, 0.7]])
        batch = {
            "img": images,
            "batch_idx": torch.tensor([0.0, 1.0]),
            "cls": torch.tensor([[0.0], [2.0]]),
            "bboxes": boxes,
        }
        criterion(model(images), batch)
    except (RuntimeError, DetLsError) as error:  # a card without memory, a version that does not fit
        return f"not found out ({type(error).__name__}: {error})"
    return f"the {criterion.form} form of label smoothing"


def convert(words: Sequence[str]) -> None:
    """Run ``det-ls convert``: make a YOLO data set of a COCO-format folder, or of one JSON.

    Args:
        words: ``source=`` (a folder or one JSON), ``out=``, ``task=`` (``detect``, ``segment`` or ``pose``), and
            ``images=`` for the images of one JSON.

    Raises:
        OSError: If something is missing, or ``out`` holds files.
        TypeError: If a key is unknown or missing.
        ValueError: If a JSON is no valid set of instances.
    """
    from det_ls.base.folders import one_sentence
    from det_ls.cli.grammar import check_known, key_values
    from det_ls.data.convert import convert as convert_folder

    arguments = key_values(words)
    check_known(arguments, ("source", "out", "task", "images"), ("source", "out"), "det-ls convert")
    with one_sentence("out", str(arguments["out"])):
        data = convert_folder(**{key: str(value) for key, value in arguments.items()})
    if Path(str(arguments["source"])).expanduser().is_file():
        print("val is train, the one split there is: what is measured on it is no estimate for other images.")
    print(f"Wrote {data}, for example for: det-ls train data={data}")


OTHER_COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "checks": checks,
    "cfg": cfg,
    "completion": completion,
    "convert": convert,
}
