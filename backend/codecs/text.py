"""Text: a fast tokenizer and, for chat models, the template that wraps a question."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from backend.errors import UserError
from backend.protocols import Prompt

MAX_TEXTS = 64
BYTE_ALPHABET = sorted({*range(33, 127), *range(161, 173), *range(174, 256)})


def _byte_of() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (the table of GPT-2's tokenizer)."""
    table = {chr(b): b for b in BYTE_ALPHABET}
    hidden = [b for b in range(256) if b not in set(BYTE_ALPHABET)]
    return table | {chr(256 + i): b for i, b in enumerate(hidden)}


class TextCodec:
    """Strings to token ids and back.

    Args:
        tokenizer: of the `tokenizers` library. chat_template: Jinja source, or "" for a model without chat.
        specials: texts of the special tokens by the names that templates use (bos_token, eos_token).
        end: tokens that end a text.
    """

    modality = "text"

    def __init__(
        self,
        tokenizer: Tokenizer,
        chat_template: str = "",
        specials: dict[str, str] | None = None,
        end: Sequence[int] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.end = frozenset(end)
        self.size = max(tokenizer.get_vocab().values()) + 1  # V: ids from here on belong to no token
        vocab = json.dumps(sorted(tokenizer.get_vocab().items())).encode()
        self.vocabulary = hashlib.sha256(vocab).hexdigest()[:12]
        self._specials = specials or {}
        self._template = _compile(chat_template)
        self._has_chat = bool(chat_template)
        self._byte_of = _byte_of() if _is_byte_level(tokenizer) else None

    @classmethod
    def from_folder(cls, folder: Path) -> TextCodec:
        """The codec of a checkpoint folder: tokenizer.json, tokenizer_config.json, chat_template.jinja, config.json.

        Raises UserError if the folder has no tokenizer.
        """
        tokenizer = read_tokenizer(folder)
        settings, config = _read_json(folder / "tokenizer_config.json"), _read_json(folder / "config.json")
        file = folder / "chat_template.jinja"
        template = file.read_text(encoding="utf-8") if file.exists() else settings.get("chat_template") or ""
        if isinstance(template, list):  # several by name
            template = next((t["template"] for t in template if t.get("name") == "default"), "")
        specials = {name: _text_of(settings[name]) for name in ("bos_token", "eos_token") if settings.get(name)}
        end: list[int] = []
        for ends in (config.get("eos_token_id"), _read_json(folder / "generation_config.json").get("eos_token_id")):
            end += [ends] if isinstance(ends, int) else list(ends or [])
        named = tokenizer.token_to_id(specials.get("eos_token", ""))
        return cls(tokenizer, template, specials, end if named is None else [*end, named])

    def encode(self, raw: Any) -> Prompt:
        """Tokens of a string (a chat question if the model chats) or of {"text": ..., "chat": bool, "system": ...}.

        {"texts": [...], ...} are several prompts, to be continued each for itself; see `Prompt.texts`.
        Raises UserError for an empty prompt or one that is not text.
        """
        options = {"text": raw} if isinstance(raw, str) else raw
        if isinstance(options, dict) and "texts" in options:
            return self._encode_several(options)
        if not isinstance(options, dict) or not isinstance(options.get("text"), str):
            raise UserError("A text prompt must be a string, or a mapping with a string under 'text'.")
        if not options["text"].strip():
            raise UserError("The prompt is empty; type a question or the beginning of a text.")
        text = options["text"]
        if options.get("chat", True) and self._has_chat:
            messages = [{"role": "user", "content": text}]
            if options.get("system"):
                messages.insert(0, {"role": "system", "content": str(options["system"])})
            try:
                text = self._template.render(messages=messages, add_generation_prompt=True, **self._specials)
            except TemplateError as error:
                raise UserError(
                    f"The chat template of this model refuses the prompt ({error}); leave out the system text, "
                    "or switch from Chat to Complete."
                ) from error
            return Prompt(tuple(self.tokenizer.encode(text, add_special_tokens=False).ids))
        return Prompt(tuple(self.tokenizer.encode(text).ids))

    def _encode_several(self, options: dict[str, Any]) -> Prompt:
        texts = options["texts"]
        if not isinstance(texts, list) or not 1 <= len(texts) <= MAX_TEXTS:
            given = len(texts) if isinstance(texts, list) else repr(texts)
            raise UserError(f"'texts' must be a list of 1 to {MAX_TEXTS} prompts, but {given} was given.")
        shared = {name: value for name, value in options.items() if name != "texts"}
        parts = tuple(self.encode({**shared, "text": text}).tokens for text in texts)
        return Prompt(tuple(token for part in parts for token in part), {"texts": parts})

    def decode(self, canvas: Sequence[int]) -> str:
        """The text of the tokens, special ones left out."""
        return str(self.tokenizer.decode([t for t in canvas if t >= 0], skip_special_tokens=True))

    def piece(self, token: int) -> str:
        """The token's own text; bytes that are no text by themselves are written ‹0xNN›."""
        name = self.tokenizer.id_to_token(token)
        if name is None:
            return f"‹{token}›"
        if self._byte_of is None or any(c not in self._byte_of for c in name):
            return str(name).replace("▁", " ")
        raw = bytes(self._byte_of[c] for c in name)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return "".join(chr(b) if b < 128 else f"‹0x{b:02X}›" for b in raw)


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder's tokenizer.json, else of tokenizer.json.gz. Raises UserError if it has neither."""
    plain, packed = folder / "tokenizer.json", folder / "tokenizer.json.gz"
    if plain.exists():
        return Tokenizer.from_file(str(plain))
    if not packed.exists():
        raise UserError(f"{folder.name} has no tokenizer.json, so its text cannot be read; pick another model.")
    return Tokenizer.from_buffer(gzip.decompress(packed.read_bytes()))


def _compile(source: str) -> Template:
    """A chat template with what published ones use: loop controls, the date, and a way to refuse."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: time.strftime(form)}
    return environment.from_string(source.replace("{% generation %}", "").replace("{% endgeneration %}", ""))


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _text_of(token: Any) -> str:
    """The text of a special token, which files write as a string or as an object."""
    return str(token["content"] if isinstance(token, dict) else token)


def _is_byte_level(tokenizer: Tokenizer) -> bool:
    return "ByteLevel" in json.dumps(json.loads(tokenizer.to_str()).get("decoder") or {})
