"""Models of the hub: fetched or found in its cache, then given to the loader of their family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from backend.entries import OUTSIDE, installed
from backend.errors import UserError
from backend.protocols import Model

FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model")
OTHER_FILES = ("consolidated*", "*/*")  # the same weights in another layout, and what lies in folders


def load(model_id: str, dtype: torch.dtype, device: torch.device, progress: Callable[[str, float], None]) -> Model:
    """Download `hub/<owner>/<name>` (or find it in the hub's cache) and load it: a forecaster, else a language model.

    Forecasters are small and run in float32 whatever `dtype` is. Raises UserError if the hub or the model cannot be
    reached, its package is missing, or it cannot be loaded without running code from its repository.
    """
    from backend.models.hub.causal_lm import load_folder
    from backend.models.hub.forecast import is_forecaster, load_forecaster_folder

    if model_id in OUTSIDE:
        installed(model_id)  # said before anything is fetched
    folder = fetch(model_id, progress)
    if is_forecaster(folder):
        return load_forecaster_folder(model_id, folder, device)
    return load_folder(model_id, folder, dtype, device)


def fetch(model_id: str, progress: Callable[[str, float], None]) -> Path:
    """The folder of `hub/<owner>/<name>` in the hub's cache. Raises UserError if it cannot be had."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    repo = model_id.removeprefix("hub/")
    progress(f"Fetching {repo} from the hub", 0.0)
    try:
        folder = snapshot_download(repo, allow_patterns=list(FILES), ignore_patterns=list(OTHER_FILES))
    except GatedRepoError as error:
        raise UserError(f"{repo} asks for its licence to be accepted; do that on the hub and log in here.") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"The hub has no public model {repo!r}; check owner and name.") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError) as error:
        raise UserError(
            f"{repo} is not in this machine's hub cache and the hub cannot be reached; pick a local or house model."
        ) from error
    except (OSError, ValueError, httpx.HTTPError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise UserError(f"{repo} could not be fetched ({reason}); try again, or pick a local model.") from error
    progress(f"Loading {repo}", 1.0)
    return Path(folder)
